"""How much memory clones of one template share: `python -m benchmarks.templating`.

memd makes a template and hands it out read-only. Processes in the place of VMMs
map it privately, read all of it and write to some of it. Then each tells what
the kernel counts for it in /proc/self/smaps_rollup: Rss, everything that it has
mapped, and Pss, in which a page that several have mapped is divided among them.
"""

from __future__ import annotations

import argparse
import mmap
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memd.client import Client

MIB = 1 << 20
PAGE = mmap.PAGESIZE
FIELDS = ("Rss", "Pss", "Private_Dirty")

TREE = Path(__file__).resolve().parents[1]


def counted() -> list[int]:
    """What the kernel counts for this process, in bytes, by FIELDS."""
    found = {}
    for row in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
        name, size, *_ = row.split()
        found[name.rstrip(":")] = int(size) * 1024
    return [found[name] for name in FIELDS]


def clone(fd: int, size: int, step: int) -> None:
    """Be one clone: what it takes goes to standard output, each line when it is told to."""

    def step_done(*figures: int) -> None:
        print(*figures, flush=True)
        sys.stdin.readline()

    step_done()
    before = counted()
    with mmap.mmap(fd, size, access=mmap.ACCESS_COPY) as memory:
        sum(memory[::PAGE])
        if step:
            for page in range(0, size // PAGE, step):
                memory[page * PAGE] ^= 0xFF
        step_done()
        step_done(*(now - then for now, then in zip(counted(), before, strict=True)))


def start_memd(directory: Path) -> tuple[subprocess.Popen[bytes], Client]:
    """A memd of its own."""
    path = directory / "qmp.sock"
    command = [sys.executable, "-m", "memd", "--qmp", f"unix:{path},server=on,wait=off"]
    process = subprocess.Popen(command, cwd=TREE)
    deadline = time.monotonic() + 30
    while True:
        try:
            return process, Client(path)
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise
            time.sleep(0.01)


def make_template(client: Client, path: Path, size: int) -> None:
    """A template whose every page holds something, saved by memd."""
    client.execute("object-add", {"qom-type": "memory-backend-ram", "id": "made", "size": size})
    content = os.urandom(MIB)
    for at in range(0, size, 8 * MIB):
        client.write("made", at, (content * 8)[: size - at])
    client.execute("x-memdev-save", {"id": "made", "filename": str(path)})
    client.execute("object-del", {"id": "made"})
    template = {
        "qom-type": "memory-backend-file",
        "id": "template",
        "size": size,
        "mem-path": str(path),
        "readonly": True,
        "rom": "on",
    }
    client.execute("object-add", template)


def measure(clones: int, size: int, written: int) -> list[list[int]]:
    """The figures of each clone, in bytes, by FIELDS.

    Args:
        clones: how many.
        size: of the template, in bytes.
        written: how much of it each writes to, in percent of its pages.
    """
    step = 100 // written if written else 0
    with tempfile.TemporaryDirectory(prefix="memd-bench-", dir="/dev/shm") as name:
        process, client = start_memd(Path(name))
        workers = []
        try:
            make_template(client, Path(name) / "template", size)
            with client.export("template") as memory:
                command = [sys.executable, "-m", "benchmarks.templating", "--be-clone"]
                command += [str(memory.fd), str(memory.size), str(step)]
                workers = [
                    subprocess.Popen(
                        command,
                        cwd=TREE,
                        pass_fds=[memory.fd],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                    for _ in range(clones)
                ]
            # Nobody goes on before all have come as far: a share depends on the others.
            for _ in range(2):
                together(workers)
            return [[int(word) for word in line.split()] for line in together(workers)]
        finally:
            for worker in workers:
                worker.communicate()
            client.close()
            process.terminate()
            process.wait()


def together(workers: list[subprocess.Popen[str]]) -> list[str]:
    """A line of every worker, and only then may they go on."""
    lines = []
    for worker in workers:
        if worker.stdout is not None:
            lines.append(worker.stdout.readline())
    for worker in workers:
        if worker.stdin is not None:
            worker.stdin.write("\n")
            worker.stdin.flush()
    return lines


def report(clones: int, size: int, written: int, figures: list[list[int]]) -> str:
    """The figures for a reader."""
    rss, pss, dirty = (sum(each) for each in zip(*figures, strict=True))
    rows = [
        ("mapped (Rss)", rss, "what they would take if each had its own"),
        ("taken (Pss)", pss, "what they take together, the template included"),
        ("copied on write", dirty, "of it, what is one clone's alone"),
        ("saved by sharing", rss - pss, f"{100 * (rss - pss) / rss:.0f} %"),
    ]
    lines = [
        f"{clones} clones of a template of {size // MIB} MiB,"
        f" each reading all of it and writing to {written} % of its pages",
        *(
            f"  {name:17}{total / MIB:9.1f} MiB {total / clones / MIB:9.1f} each   {what}"
            for name, total, what in rows
        ),
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--clones", type=int, default=8)
    parser.add_argument("--size", type=int, default=256, help="of the template, in MiB")
    parser.add_argument("--written", type=int, default=5, help="percent of the pages")
    parser.add_argument("--be-clone", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be_clone:
        clone(*options.be_clone)
        return
    size = options.size * MIB
    figures = measure(options.clones, size, options.written)
    print(report(options.clones, size, options.written, figures))


if __name__ == "__main__":
    main()
