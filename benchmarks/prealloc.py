"""How fast memory is preallocated, beside what the kernel gives a bare loop."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

from benchmarks.client import add, delete
from benchmarks.figures import LOOP, Draw, Figure, Scale, Subject, Take
from benchmarks.servers import TREE, Server

MIB = 1 << 20
THREADS = 2
HUGE = 2 * MIB
KINDS = ("ram", "memfd", "hugetlb", "file")
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")

_MADV_HUGEPAGE = 14
_MADV_POPULATE_WRITE = 23
_MAP_SHARED, _MAP_PRIVATE, _MAP_ANONYMOUS = 1, 2, 0x20


@contextlib.contextmanager
def huge_pages(size: int) -> Iterator[bool]:
    """Huge pages for so many bytes beyond those there are; put back at the end.

    Gives whether they are available.
    """
    try:
        before = int(POOL.read_text())
        wanted = before + size // HUGE
        POOL.write_text(str(wanted))
    except OSError:
        yield False
        return
    try:
        yield int(POOL.read_text()) >= wanted
    finally:
        POOL.write_text(str(before))


def bare(kind: str, size: int, threads: int, path: str) -> float:
    """Bytes a second that madvise(2) alone gives, in this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_size_t
    libc.mmap.argtypes = [ctypes.c_size_t, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
    libc.madvise.argtypes = [ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int]
    if kind == "ram":
        flags, fd = _MAP_PRIVATE | _MAP_ANONYMOUS, -1
    else:
        flags = _MAP_SHARED
        if kind == "file":
            flags = _MAP_PRIVATE
            fd = os.open(path, os.O_RDWR | os.O_CREAT)
        else:
            fd = os.memfd_create("bare", 4 if kind == "hugetlb" else 0)
        os.ftruncate(fd, size)
    area = libc.mmap(0, size + (HUGE if fd < 0 else 0), 3, flags, fd, 0)
    address = area + -area % HUGE if fd < 0 else area
    libc.madvise(address, size, _MADV_HUGEPAGE)
    part = size // threads // mmap.PAGESIZE * mmap.PAGESIZE
    failed = []

    def fill(start: int) -> None:
        if libc.madvise(address + start, part, _MADV_POPULATE_WRITE):
            failed.append(ctypes.get_errno())

    workers = [threading.Thread(target=fill, args=(n * part,)) for n in range(threads)]
    begin = perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    taken = perf_counter() - begin
    if failed:
        raise OSError(failed[0], os.strerror(failed[0]))
    return size / taken


def bare_apart(kind: str, size: int, threads: int, path: Path) -> float:
    """The same in a process of its own."""
    line = [sys.executable, "-m", "benchmarks.prealloc", kind, str(size), str(threads), str(path)]
    done = subprocess.run(line, cwd=TREE, capture_output=True, text=True, check=True)
    return float(done.stdout)


def of_server(side: str, kind: str, size: int, path: Path) -> float:
    """Bytes a second of an object-add."""
    more: dict[str, object] = {"prealloc": True, "prealloc_threads": THREADS}
    if kind == "hugetlb":
        more |= {"hugetlb": True, "hugetlbsize": HUGE}
    elif kind == "file":
        more["mem_path"] = str(path)
    with Server(side) as server:
        # What the first object of all costs is not what is asked here.
        server.client.ask(add("memfd", "first", MIB, prealloc=True))
        request = add("memfd" if kind == "hugetlb" else kind, "x", size, **more)
        begin = perf_counter()
        server.client.send(request)
        server.client.answer()
        taken = perf_counter() - begin
        server.client.send(delete("x"))
        server.client.answer()
    return size / taken


def measure(scale: Scale, take: Take, _draw: Draw, sides: tuple[str, ...]) -> None:
    """One round."""
    for kind in KINDS:
        size = scale(1024 if kind == "hugetlb" else 2048, 256) * MIB
        with tempfile.TemporaryDirectory(prefix="memd-bench-", dir="/dev/shm") as name:
            path = Path(name) / "memory"
            with huge_pages(size if kind == "hugetlb" else 0) as there:
                if kind == "hugetlb" and not there:
                    continue
                # The first touch of a virtual machine's memory is its host's work.
                bare_apart(kind, size, THREADS, path)
                path.unlink(missing_ok=True)
                order = (*sides, "limit") if sides[0] == "memd" else ("limit", *sides)
                # What a page costs drifts by a tenth within seconds, with what else
                # the machine's host does: there and back, each side meets the same.
                for side in (*order, *reversed(order)):
                    if side == "limit":
                        rate = bare_apart(kind, size, THREADS, path)
                    else:
                        rate = of_server(side, kind, size, path)
                    take(f"prealloc-{kind}", side, rate / 1e9)
                    path.unlink(missing_ok=True)


SUBJECT = Subject(
    "prealloc",
    tuple(
        Figure(f"prealloc-{kind}", f"preallocation of {what}", "GB/s", target=1.0, limit=LOOP)
        for kind, what in zip(
            KINDS,
            (
                "ram, 2 GiB",
                "memfd, 2 GiB",
                "memfd of huge pages, 1 GiB",
                "file (private, on tmpfs), 2 GiB",
            ),
            strict=True,
        )
    ),
    measure,
)


if __name__ == "__main__":
    print(bare(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
