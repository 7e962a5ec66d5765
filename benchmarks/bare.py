"""What the kernel and the hardware give, without a server around it."""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import perf_counter

_MADVICE = (mmap.MADV_MERGEABLE, mmap.MADV_HUGEPAGE, mmap.MADV_DONTFORK)

MIB = 1 << 20


@contextmanager
def beside(work: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """A socket to a process that does `work` at its other end, until that is closed."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        try:
            ours.close()
            work(theirs)
        finally:
            os._exit(0)
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        os.waitpid(child, 0)


def exchanges(request: bytes, answer: bytes, count: int) -> float:
    """Requests a second that a process answers which only receives and sends."""

    def work(there: socket.socket) -> None:
        while there.recv(65536):
            there.sendall(answer)

    with beside(work) as here:
        begin = perf_counter()
        for _ in range(count):
            here.sendall(request)
            left = len(answer)
            while left:
                left -= len(here.recv(1 << 18))
        return count / (perf_counter() - begin)


def carried(size: int) -> float:
    """Bytes a second that a UNIX socket carries from one process to another."""

    def work(there: socket.socket) -> None:
        left, buffer = size, bytearray(1 << 18)
        while left:
            left -= there.recv_into(buffer)
        there.sendall(b".")

    data = bytes(size)
    with beside(work) as here:
        begin = perf_counter()
        here.sendall(data)
        here.recv(1)
        return size / (perf_counter() - begin)


def copied(size: int) -> float:
    """Bytes a second of memcpy(3) between pages that are there."""
    source, target = bytearray(size), bytearray(size)
    with memoryview(source) as there, memoryview(target) as here:
        here[:] = there
        begin = perf_counter()
        here[:] = there
        return size / (perf_counter() - begin)


def mappings(size: int, count: int, path: str = "", flags: int = mmap.MAP_PRIVATE) -> float:
    """Mappings a second that are made, advised as a backend's and unmapped.

    Args:
        path: of the file that is opened for each; "" for memory without one.
    """
    begin = perf_counter()
    for _ in range(count):
        fd = os.open(path, os.O_RDWR) if path else -1
        with mmap.mmap(fd, size, flags=flags) as mapping:
            for advice in _MADVICE:
                # Of some memory not all of it is available.
                with suppress(OSError):
                    mapping.madvise(advice)
        if path:
            os.close(fd)
    return count / (perf_counter() - begin)


def memfds(size: int, count: int) -> float:
    """The same of memfds, that stay."""
    begin = perf_counter()
    kept = []
    for _ in range(count):
        fd = os.memfd_create("bare", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        mapping = mmap.mmap(fd, size)
        mapping.madvise(mmap.MADV_HUGEPAGE)
        mapping.madvise(mmap.MADV_DONTFORK)
        kept.append(mapping)
        os.close(fd)
    taken = perf_counter() - begin
    for each in kept:
        each.close()
    return count / taken


def together(*rates: float) -> float:
    """How many a second where each takes what these take."""
    return 1 / sum(1 / rate for rate in rates)
