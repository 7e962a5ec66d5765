"""What a region holds, read without making the pages that are not there.

A mapping of a file shows the file, but for the pages of its own that a private
one has. So the file is read as a file: that neither maps its pages nor makes
those that are holes. Only what the mapping alone shows is read through it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

from memd.hostmem import cgroup, libc
from memd.hostmem.pages import FILE, ZERO, PageMap
from memd.hostmem.region import Region

CHUNK = 1 << 20
"""Bytes read at once; a multiple of the page size."""

_NOT_OF_FILES = frozenset((errno.EINVAL, errno.EOPNOTSUPP))

Piece = tuple[int, bytearray, bool]
"""Its offset in the region, in bytes; its data; whether it replaces an earlier one."""


_ZEROES = bytes(libc.PAGE_SIZE)


class Gone(OSError):
    """A part of a region can't be read; its text says why."""


def read(region: Region, offset: int, into: bytearray | memoryview) -> tuple[int, int]:
    """Copy a part of a region, as long as `into` is.

    Args:
        region: pinned, or used by this thread alone.
        offset: where it begins, in bytes.

    Returns:
        How many bytes could be read, and the errno value of why no more.
    """
    address = region.address + offset
    with memoryview(into) as view:
        if region.only_mapped:
            return _read_held(region, offset, view)
        if not region.reads_as_file:
            try:
                with _making(region, offset, len(into)):
                    return libc.read_memory(address, view), errno.EFAULT
            except OSError as failed:
                return 0, failed.errno or errno.EFAULT
        done, number = _read_file(region, offset, view)
        if not region.shared:
            first, last = libc.whole_pages(address, done)
            try:
                with PageMap() as pages:
                    for start, end, kinds in pages.runs(first, last - first):
                        if not kinds & FILE:
                            begin = max(0, first + start - address)
                            part = view[begin : min(done, first + end - address)]
                            if libc.read_memory(address + begin, part) < len(part):
                                return begin, errno.EFAULT
            except FileNotFoundError:
                # Without /proc only the mapping tells which pages are its own.
                return libc.read_memory(address, view), errno.EFAULT
    return done, number


def _read_file(region: Region, offset: int, into: memoryview) -> tuple[int, int]:
    at, done = region.offset + offset, 0
    while done < len(into):
        try:
            count = region.host.read(region.fd, into[done:], at + done)
        except OSError as failed:
            return done, failed.errno or errno.EIO
        if not count:
            # The page in which a file ends is mapped to its end.
            mapped = min(len(into), done + -(at + done) % libc.PAGE_SIZE)
            return mapped, errno.EFAULT
        done += count
    return done, 0


def _read_held(region: Region, offset: int, into: memoryview) -> tuple[int, int]:
    first, last = libc.whole_pages(offset, len(into))
    for start, end in held_ranges(region.fd, region.offset, first, last):
        begin = max(0, start - offset)
        part = into[begin : end - offset]
        if libc.read_memory(region.address + offset + begin, part) < len(part):
            return begin, errno.EFAULT
    return len(into), 0


def _making(region: Region, start: int, length: int) -> AbstractContextManager[None]:
    """A shared mapping of /dev/zero has no file to read: reading makes its pages."""
    if region.shared and region.opened is not None and region.opened.zero_device:
        return cgroup.making(region, start, length)
    return nullcontext()


def pieces(region: Region) -> Iterator[Piece]:
    """What a region holds but for holes and pages of zeroes that were never written.

    Args:
        region: pinned.

    Raises:
        OSError: a part can't be read.
    """
    length = region.length
    if region.anonymous:
        yield from _through_pages(region, over=False)
    elif region.reads_as_file:
        for start, end in data_ranges(region.fd, region.offset, length):
            for at in range(start, end, CHUNK):
                data = bytearray(min(CHUNK, end - at))
                with memoryview(data) as view:
                    done, number = _read_file(region, at, view)
                if done < len(data):
                    if number != errno.EFAULT:
                        raise libc.os_error(number)
                    raise Gone("its file is being truncated")
                yield at, data, False
        if not region.shared:
            yield from _through_pages(region, over=True)
    elif region.only_mapped:
        for start, end in held_ranges(region.fd, region.offset, 0, length):
            yield from _through_mapping(region, start, end, over=False)
    else:
        # Which pages are mapped does not tell what a device holds.
        yield from _through_mapping(region, 0, length, over=False)


def runs(data: bytes | bytearray) -> Iterator[tuple[int, int, bool]]:
    """Runs of pages that are alike: where each begins and ends, and whether it is zeroes."""
    step = len(_ZEROES)
    zero = [data[page : page + step] == _ZEROES for page in range(0, len(data), step)]
    start = 0
    for index, this in enumerate(zero):
        if index + 1 == len(zero) or zero[index + 1] != this:
            yield start, min((index + 1) * step, len(data)), this
            start = (index + 1) * step


def _through_pages(region: Region, over: bool) -> Iterator[Piece]:
    """The pages that a private mapping has of its own."""
    # In place of a file's page, one of zeroes is content: KSM makes such of what was written.
    not_own = FILE if over else FILE | ZERO
    with PageMap() as pages:
        for start, end, kinds in pages.runs(region.address, region.length):
            if not kinds & not_own:
                yield from _through_mapping(region, start, end, over)


def _through_mapping(region: Region, start: int, end: int, over: bool) -> Iterator[Piece]:
    for at in range(start, end, CHUNK):
        data = bytearray(min(CHUNK, end - at))
        with _making(region, at, len(data)):
            done = libc.read_memory(region.address + at, data)
        if done < len(data):
            raise Gone(os.strerror(errno.EFAULT))
        yield at, data, over


def held_ranges(fd: int, offset: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a range of memory that the kernel holds, relative to `offset`.

    All of it where the kernel, or a filter of system calls, does not let be told.
    """
    pages = (end - start) // libc.PAGE_SIZE
    try:
        held, _evicted = libc.cachestat(fd, offset + start, end - start)
    except OSError:
        held = pages
    if held == pages:
        yield start, end
    elif held:
        middle = start + pages // 2 * libc.PAGE_SIZE
        yield from held_ranges(fd, offset, start, middle)
        yield from held_ranges(fd, offset, middle, end)


def data_ranges(fd: int, offset: int, length: int) -> Iterator[tuple[int, int]]:
    """The parts of a range of a file that are not holes, relative to `offset`.

    Raises:
        Gone: the file ends before the range does.
    """
    end = offset + length
    size = os.lseek(fd, 0, os.SEEK_END)
    if size < end:
        raise Gone(f"its file was truncated to {size} bytes")
    at = offset
    while at < end:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
            hole = min(end, os.lseek(fd, at, os.SEEK_HOLE))
        except OSError as failed:
            if failed.errno == errno.ENXIO:
                return
            if failed.errno not in _NOT_OF_FILES:
                raise
            # A block device has no holes that it tells of.
            yield at - offset, length
            return
        if at >= end:
            return
        yield at - offset, hole - offset
        at = hole
