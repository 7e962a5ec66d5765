"""Regions to work on, closed afterwards."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from memd.faulty.kernel import FaultyHost
from memd.hostmem import files, libc
from memd.hostmem.host import Host
from memd.hostmem.region import ANONYMOUS_ALIGN, Region
from memd.hostmem.spec import READ, READ_WRITE, MapSpec

HOST = Host()
PAGE = libc.PAGE_SIZE
MIB = 1 << 20


def apart(region: Region) -> Region:
    """The region, marked as a backend's is: the kernel joins nothing of the interpreter's to it."""
    libc.madvise(region.address, region.length, libc.MADV_DONTFORK)
    return region


def anonymous(size: int = MIB, host: Host = HOST) -> Region:
    """A region of anonymous memory, to be closed."""
    return apart(Region(host, MapSpec(size, size, PAGE, ANONYMOUS_ALIGN, shared=False)))


@contextmanager
def made(
    fd: int = -1,
    size: int = MIB,
    *,
    shared: bool = False,
    rom: bool = False,
    offset: int = 0,
    page_size: int = PAGE,
    host: Host = HOST,
) -> Iterator[Region]:
    """A region of a descriptor, which it takes over, or anonymous."""
    protection = READ if rom else READ_WRITE
    spec = MapSpec(size, size, page_size, page_size, offset, protection, shared)
    region = apart(Region(host, spec, fd))
    try:
        yield region
    finally:
        region.close()


@contextmanager
def memfd(size: int = MIB, **options: bool | int | Host) -> Iterator[Region]:
    """A shared region of a memfd."""
    fd = files.plain_memfd(HOST, "test").take()
    os.ftruncate(fd, size)
    with made(fd, size, **{"shared": True, **options}) as region:  # type: ignore[arg-type]
        yield region


@contextmanager
def of_file(
    path: Path, size: int = MIB, *, readonly: bool = False, **options: bool | int
) -> Iterator[Region]:
    """A region of a file, which gets its size if it is missing."""
    if not path.exists():
        path.write_bytes(b"")
        os.truncate(path, size)
    fd = os.open(path, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
    with made(fd, size, **options) as region:  # type: ignore[arg-type]
        yield region


class StrictHost(Host):
    """A kernel that promises no more memory than there is."""

    def never_overcommits(self) -> bool:
        return True


class SwappingHost(Host):
    """A kernel that has swapped something out, of each range of a file as many pages.

    Attributes:
        asked: the ranges that were asked about: where they begin, and their length.
    """

    def __init__(self, cached: int, evicted: int) -> None:
        super().__init__()
        self._told = cached, evicted
        self.asked: list[tuple[int, int]] = []

    def cachestat(self, fd: int, offset: int, length: int) -> tuple[int, int]:
        self.asked.append((offset, length))
        return self._told

    def swap_used(self) -> bool:
        return True


class HeldHost(Host):
    """A kernel that populates a piece of memory, and then waits.

    Attributes:
        begun: set once it has made pages.
        go_on: to be set for it to go on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = threading.Event(), threading.Event()

    def advise(self, address: int, length: int, advice: int) -> int:
        result = super().advise(address, length, advice)
        if advice == libc.MADV_POPULATE_WRITE:
            self.begun.set()
            self.go_on.wait(60)
        return result


def failing(**kinds: int) -> FaultyHost:
    """A kernel some of whose calls fail: by their kinds in `TestFaultSyscall`, with these errno."""
    return FaultyHost(lambda kind: kinds.get(kind.replace("-", "_"), 0))
