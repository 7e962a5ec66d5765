"""Which pages of a mapping are there: /proc/self/pagemap, asked for whole ranges.

The ioctl PAGEMAP_SCAN (Linux 6.7) names runs of pages of one kind; before it,
each page has an entry to be read (proc_pid_pagemap(5)).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator

from memd.hostmem.libc import PAGE_SIZE

FILE = 1 << 2
"""The page is a file's, or shared: not a private mapping's own."""
PRESENT = 1 << 3
"""The page is in memory, and mapped."""
SWAPPED = 1 << 4
"""The page is swapped out."""
ZERO = 1 << 5
"""The page is the kernel's page of zeroes: it takes no memory."""
HUGE = 1 << 6
"""The page is a huge one, or a part of one that is mapped as such."""

_PAGEMAP_SCAN = 0xC0606610
_ARGUMENT = struct.Struct("=12Q")
_RUN = struct.Struct("=3Q")
_RUNS = 2048
"""Runs asked for at once: 48 KiB."""

_ENTRIES = 64 << 10
"""Entries read at once: 512 KiB, for 256 MiB of memory."""

Run = tuple[int, int, int]
"""Begin and end as offsets in bytes, and the kinds: a sum of FILE and so on."""

_PAGEMAP = "/proc/self/pagemap"


class PageMap:
    """This process's pages; a context manager that closes the kernel's file.

    Args:
        runs: how many are asked for at once.
        entries: how many are read at once.
        scans: False to read entries only, as before Linux 6.7.

    Raises:
        OSError: the kernel's file can't be opened.
    """

    def __init__(self, runs: int = _RUNS, entries: int = _ENTRIES, scans: bool = True) -> None:
        try:
            self._fd = os.open(_PAGEMAP, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as lack:
            text = f"{_PAGEMAP} is not there: /proc may not be mounted"
            raise FileNotFoundError(lack.errno, text) from None
        self._runs, self._entries = runs, entries
        self._buffer = bytearray(_RUN.size * runs)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))
        self._scans = scans

    def __enter__(self) -> PageMap:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self._fd)

    def runs(
        self,
        address: int,
        length: int,
        *,
        of: int = PRESENT | SWAPPED,
        kinds: int = FILE | PRESENT | SWAPPED | ZERO,
    ) -> Iterator[Run]:
        """The runs of pages of some kinds, in their order.

        Args:
            address: of the mapping; `length` is in bytes.
            of: the kinds, one of which a page has to be.
            kinds: those to be told apart. FILE makes it three times as long, as the kernel
                then looks at each page (1 GiB: 10 ms); HUGE and ZERO it tells since Linux 6.7.

        Raises:
            OSError: the kernel does not tell.
        """
        at, end = address, address + length
        try:
            while at < end and self._scans:
                found, at = self._ask(address, at, end, of, kinds)
                yield from found
        except OSError as failed:
            self._stop_scanning(failed)
        if not self._scans:
            for begin, after, told in self._read(address, length):
                if told & of:
                    yield begin, after, told & kinds

    def few(self, address: int, length: int, kinds: int) -> list[Run] | None:
        """The runs of pages that are in memory or swapped out, as long as the kernel tells all
        of them at once; see `runs`.

        Returns:
            None where they are more than 2,048, and before Linux 6.7.
        """
        end = address + length
        if self._scans:
            try:
                found, stopped = self._ask(address, address, end, PRESENT | SWAPPED, kinds)
                return found if stopped == end else None
            except OSError as failed:
                self._stop_scanning(failed)
        return None

    def _stop_scanning(self, failed: OSError) -> None:
        if failed.errno not in (errno.ENOTTY, errno.EINVAL):
            raise failed
        self._scans = False

    def _ask(self, address: int, at: int, end: int, of: int, kinds: int) -> tuple[list[Run], int]:
        """Runs from `at` on, as many as come at once, and where the kernel stopped."""
        into = self._address, self._runs
        argument = bytearray(
            _ARGUMENT.pack(_ARGUMENT.size, 0, at, end, 0, *into, 0, 0, 0, of, kinds)
        )
        count = fcntl.ioctl(self._fd, _PAGEMAP_SCAN, argument)
        with memoryview(self._buffer) as buffer:
            found = [
                (first - address, after - address, told)
                for first, after, told in _RUN.iter_unpack(buffer[: count * _RUN.size])
            ]
        return found, _ARGUMENT.unpack(argument)[4]

    def _read(self, address: int, length: int) -> Iterator[Run]:
        first, kinds = 0, 0
        at = 0
        while at < length:
            count = min(self._entries, (length - at) // PAGE_SIZE)
            data = os.pread(self._fd, count * 8, (address + at) // PAGE_SIZE * 8)
            if not data:
                break
            for (entry,) in struct.iter_unpack("=Q", data):
                # The three highest bits say present, swapped, file or shared.
                now = _KINDS[entry >> 61]
                if now != kinds:
                    if kinds:
                        yield first, at, kinds
                    first, kinds = at, now
                at += PAGE_SIZE
        if kinds:
            yield first, at, kinds


_KINDS = tuple(
    (PRESENT if bits & 4 else SWAPPED) | (FILE if bits & 1 else 0) if bits & 6 else 0
    for bits in range(8)
)
"""The kinds by the highest bits of an entry. Which page is that of zeroes it does not say."""
