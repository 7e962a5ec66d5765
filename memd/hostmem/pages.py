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
    """This process's pages; a context manager that closes the kernel's file."""

    def __init__(self) -> None:
        """Open it; raises `OSError`."""
        try:
            self._fd = os.open(_PAGEMAP, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as lack:
            text = f"{_PAGEMAP} is not there: /proc may not be mounted"
            raise FileNotFoundError(lack.errno, text) from None
        self._buffer = bytearray(_RUN.size * _RUNS)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))
        self._scans = True

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
        if self._scans:
            try:
                yield from self._scan(address, length, of, kinds)
                return
            except OSError as failed:
                if failed.errno not in (errno.ENOTTY, errno.EINVAL):
                    raise
                self._scans = False
        for begin, end, found in self._read(address, length):
            if found & of:
                yield begin, end, found & kinds

    def present(self, address: int, length: int) -> int | None:
        """How many bytes of a range are in memory and mapped, pages of zeroes left out.

        Returns:
            None where these are many runs, or the kernel does not tell.

        Raises:
            OSError: as `runs`.
        """
        if not self._scans:
            return None
        try:
            count, stopped = self._ask(address, address + length, ZERO, PRESENT | ZERO, 0, PRESENT)
        except OSError as failed:
            if failed.errno not in (errno.ENOTTY, errno.EINVAL):
                raise
            return None
        if stopped < address + length:
            return None
        with memoryview(self._buffer) as found, found.cast("Q") as words:
            return sum(words[1 : 3 * count : 3]) - sum(words[0 : 3 * count : 3])

    def _ask(self, at: int, end: int, *masks: int) -> tuple[int, int]:
        """How many runs of a range are in the buffer now, and where the kernel stopped.

        Args:
            masks: kinds that are taken for their opposite; that a page has to be all of,
                or one of; that are told.
        """
        argument = bytearray(
            _ARGUMENT.pack(_ARGUMENT.size, 0, at, end, 0, self._address, _RUNS, 0, *masks)
        )
        count = fcntl.ioctl(self._fd, _PAGEMAP_SCAN, argument)
        return count, _ARGUMENT.unpack(argument)[4]

    def _scan(self, address: int, length: int, of: int, kinds: int) -> Iterator[Run]:
        at, end = address, address + length
        while at < end:
            count, at = self._ask(at, end, 0, 0, of, kinds)
            with memoryview(self._buffer) as found:
                for first, after, told in _RUN.iter_unpack(found[: count * _RUN.size]):
                    yield first - address, after - address, told

    def _read(self, address: int, length: int) -> Iterator[Run]:
        first, kinds = 0, 0
        at = 0
        while at < length:
            count = min(_ENTRIES, (length - at) // PAGE_SIZE)
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
