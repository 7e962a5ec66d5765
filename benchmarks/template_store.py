"""What the template store takes, and how fast it is: `python -m benchmarks.template_store`.

A memory of 1 GiB, about half of it not zeroes: the content of this system's own
programs and libraries in the order of a guest's page cache. Ten templates of it,
nine made with the first as base, each with 5 % of its pages changed. Then reading:
verifying and unpacking, and giving what is unpacked to a reader. With a registry
(docker-registry on PATH) behind a link of 1 Gbit/s: push, pull, and the first
pages from there.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.link import Link
from memd.pages.store import Store

MIB = 1 << 20
PAGE = 4096
PIECE = 64 * PAGE


def files() -> Iterator[Path]:
    """Programs and libraries, in the same order each time."""
    for folder in ("/usr/bin", "/usr/lib", "/usr/share"):
        for place, below, names in os.walk(folder):
            below.sort()
            yield from (Path(place, name) for name in sorted(names))


def fill(fd: int, size: int, data: int) -> None:
    """Make a memory of which so many bytes are not zeroes, in stretches all over it."""
    os.ftruncate(fd, size)
    chance = random.Random(1)
    left, at = data, 0
    for path in files():
        if left <= 0:
            return
        try:
            if not path.is_file() or path.is_symlink():
                continue
            content = path.read_bytes()[: 8 * MIB]
        except OSError:
            continue
        content = content[: len(content) // PAGE * PAGE][:left]
        os.pwrite(fd, content, at)
        left -= len(content)
        at += len(content) + chance.randrange(2 * (size - data) * len(content) // data + 1)
        at -= at % PAGE
        if at + 8 * MIB > size:
            at = 0


def change(fd: int, size: int, part: float, seed: int) -> None:
    """Change pages that are not zeroes, a part of all pages, scattered."""
    chance = random.Random(seed)
    for page in chance.sample(range(size // PAGE), int(size // PAGE * part)):
        there = os.pread(fd, PAGE, page * PAGE)
        other = os.pread(fd, PAGE, chance.randrange(size // PAGE) * PAGE)
        mixed = other[: PAGE // 2] + there[PAGE // 2 :]
        os.pwrite(fd, chance.randbytes(64) + mixed[64:], page * PAGE)


@contextmanager
def timed(what: str, size: int = 0) -> Iterator[None]:
    """Print how long something takes, and so many bytes in that time."""
    begun, used = time.perf_counter(), time.process_time()
    yield
    took, used = time.perf_counter() - begun, time.process_time() - used
    rate = f"{size / took / 1e9:8.2f} GB/s" if size else ""
    print(f"  {what:<54}{took * 1000:9.1f} ms, {used * 1000:8.1f} of CPU{rate}", flush=True)


def taken(store: Store) -> int:
    """Bytes of what is stored."""
    return sum(each.stat().st_size for each in Path(store.blobs.directory).iterdir())


def save(store: Store, name: str, fd: int, size: int, base: str | None = None) -> None:
    """Store a template."""
    store.begin(name, base).store(fd, size, devices=os.urandom(780_000), machine="q35")


def serve(store: Store, name: str) -> None:
    """Give all of a template to a plain reader, as who serves clones does."""
    template = store.open(name)
    ours, theirs = socket.socketpair()
    for each in (ours, theirs):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MIB)

    def read() -> None:
        buffer = bytearray(4 * MIB)
        while theirs.recv_into(buffer):
            pass

    reader = threading.Thread(target=read)
    reader.start()
    ranges = template.data_ranges()
    total = sum(length for _offset, length in ranges)
    with timed("unpacked pages to a plain reader", total):
        for first, length in ranges:
            for offset in range(first, first + length, PIECE):
                count = min(PIECE, first + length - offset) // PAGE
                left = template.copy.records(offset // PAGE, count)
                while left:
                    left = left[os.sendfile(ours.fileno(), left.fd, left.start, len(left)) :]
        ours.shutdown(socket.SHUT_WR)
        reader.join()
    ours.close()
    theirs.close()
    template.close()


def local(place: Path, size: int, data: int) -> None:
    """What one host sees."""
    with (place / "memory").open("w+b") as file:
        fd = file.fileno()
        fill(fd, size, data)
        store = Store(str(place / "store"))
        with timed("the first template stored", data):
            save(store, "t0", fd, size)
        once = taken(store)
        pages = [
            page
            for first, length in store.open("t0").data_ranges()
            for page in range(first // PAGE, (first + length) // PAGE)
        ]
        hot = random.Random(2).sample(pages, min(25_600, len(pages) // 2))
        for number in range(1, 10):
            with (place / "child").open("w+b") as other:
                shutil.copyfile(place / "memory", place / "child")
                change(other.fileno(), size, 0.05, number)
                with timed(f"template {number + 1} stored, with the first as base"):
                    save(store, f"t{number}", other.fileno(), size, "t0")
        print(
            f"  {data // MIB} MiB of data: one takes {once / MIB:.0f} MiB, ten"
            f" {taken(store) / MIB:.0f} MiB, {taken(store) / once:.2f} times as much"
        )
        with timed("a working set of half of it, 100 MiB at most, recorded"):
            store.set_working_set("t9", hot)
        print(f"  with it: {taken(store) / MIB:.0f} MiB")
        for name in ("t0", "t5", "t9"):
            with timed(f"{name} verified", data):
                store.verify(name)
            template = store.open(name)
            with timed(f"{name} opened"):
                store.open(name).close()
            with timed(f"{name} verified and unpacked", data):
                for offset in range(0, size, MIB):
                    template.fetch(offset, MIB)
            template.close()
            serve(store, name)
        store.close()


def remote(place: Path, url: str, size: int) -> None:
    """What another host sees."""
    here = Store(str(place / "store"), sources=[url])
    stored = here.usage("t9").stored
    with timed("t9 pushed", stored):
        here.push("t9")
    with timed("t8 pushed, which shares most of it"):
        here.push("t8")
    there = Store(str(place / "there"), sources=[url])
    with timed("t9 pulled", stored):
        there.pull("t9")
    there.close()
    lazy = Store(str(place / "lazy"), sources=[url])
    with timed("t9 located"):
        lazy.locate("t9")
    template = lazy.open("t9")
    pages = template.working_set()
    with timed("its first page fetched"):
        template.fetch(pages[0] * PAGE, PAGE)
    with timed("its working set fetched", len(pages) * PAGE):
        for at in range(0, len(pages), 4096):
            template.fetch_pages(pages[at : at + 4096])
    with timed("all of it fetched and unpacked", template.manifest.data):
        for offset in range(0, size, 4 * MIB):
            template.fetch(offset, 4 * MIB)
    template.close()
    lazy.close()
    here.close()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.template_store")
    parser.add_argument("--size", type=int, default=1024, help="of the memory, in MiB")
    parser.add_argument("--data", type=int, default=480, help="of it not zeroes, in MiB")
    parser.add_argument("--dir", type=Path, help="where to store (default: a temporary directory)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        place = Path(folder)
        size = arguments.size * MIB
        print("local", flush=True)
        local(place, size, arguments.data * MIB)
        print("a directory as source", flush=True)
        remote(place, f"file:{folder}/shared", size)
        if shutil.which("docker-registry"):
            from tests.pages.registry import Registry

            for each in ("there", "lazy"):
                shutil.rmtree(place / each)
            registry = Registry(place)
            try:
                print("a registry as source, behind a link of 1 Gbit/s", flush=True)
                with Link(registry.port) as link:
                    remote(place, f"oci://127.0.0.1:{link.port}/templates", size)
            finally:
                registry.close()


if __name__ == "__main__":
    main()
