/*
 * The guest of benchmarks/clones.py: the first process of a machine, spoken to
 * over its console. It fills memory, and on each line does what the first letter
 * says, and answers with that letter in upper case:
 *
 *   e   nothing: the first output
 *   s   checks every 20th of the hot pages
 *   d   checks all of the hot pages, and writes to every 20th
 *   a   checks all pages
 *
 * A page that is not as it was ends it with the letter X.
 */
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <termios.h>
#include <unistd.h>

#define PAGE 4096u
#define WORDS (PAGE / 8)
#define HOT (100u << 20)

#ifndef COLD
#define COLD (380ul << 20)
#endif

static uint64_t mix(uint64_t x)
{
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdull;
    x ^= x >> 33;
    return x;
}

static uint64_t next(uint64_t x)
{
    return x * 6364136223846793005ull + 1442695040888963407ull;
}

/* Half of a page is noise and half of it one word again and again: zstd makes half of it.
 * The second word is the guest's own. */
static void fill(uint64_t *page, uint64_t number)
{
    uint64_t x = mix(number + 1);
    page[0] = number;
    for (unsigned at = 2; at < WORDS; at++) {
        if (at < WORDS / 2)
            x = next(x);
        page[at] = x;
    }
}

static int good(const uint64_t *page, uint64_t number)
{
    uint64_t x = mix(number + 1), wrong = page[0] ^ number;
    for (unsigned at = 2; at < WORDS; at++) {
        if (at < WORDS / 2)
            x = next(x);
        wrong |= page[at] ^ x;
    }
    return !wrong;
}

static int check(uint64_t *memory, unsigned long bytes, unsigned step)
{
    for (unsigned long at = 0; at < bytes / PAGE; at += step)
        if (!good(memory + at * WORDS, at))
            return 0;
    return 1;
}

int main(void)
{
    unsigned long size = HOT + COLD;
    uint64_t *memory = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct termios raw;
    char line[64];

    tcgetattr(0, &raw);
    raw.c_lflag &= ~(ECHO | ICANON);
    tcsetattr(0, TCSANOW, &raw);
    if (memory == MAP_FAILED)
        memory = 0;
    for (unsigned long at = 0; memory && at < size / PAGE; at++)
        fill(memory + at * WORDS, at);
    write(1, memory ? "READY" : "X", memory ? 5 : 1);
    for (;;) {
        int fine = 1;
        if (read(0, line, 1) != 1)
            continue;
        if (line[0] == 's')
            fine = check(memory, HOT, 20);
        if (line[0] == 'd') {
            fine = check(memory, HOT, 1);
            for (unsigned long at = 0; at < HOT / PAGE; at += 20)
                memory[at * WORDS + 1]++;
        }
        if (line[0] == 'a')
            fine = check(memory, size, 1);
        line[0] = fine ? line[0] - 'a' + 'A' : 'X';
        write(1, line, 1);
    }
}
