"""Reading and writing a region's bytes, through the kernel's own checks.

Nothing here touches the memory itself: process_vm_readv(2) and
process_vm_writev(2) do, and answer with an error where the mapping forbids it
or a page can't be had (a file that was truncated, a full disk, a broken page),
where the process's own access would end in a signal.
"""

from __future__ import annotations

import errno
import os
import stat

from memd.errors import QMPError
from memd.hostmem import cgroup, content, libc
from memd.hostmem.opened import Opened
from memd.hostmem.region import Region

MAX_LENGTH = 16 << 20
"""Bytes that can be read or written at once: in base64 some 22 million
characters, of which a client and memd each hold a few copies."""

INLINE_LENGTH = 64 << 10
"""Bytes up to which memory is copied in the event loop: 0.01 ms where its pages
are there, 0.07 ms where they have to be made (measured)."""


def check_range(name: str, size: int, offset: int, length: int) -> None:
    """See that a range is within a region.

    Args:
        name: of the memory, in messages.
        size: what there is, in bytes; so are `offset` and `length`.

    Raises:
        QMPError: it is not.
    """
    # Python's integers do not wrap around.
    if offset + length > size:
        raise QMPError(
            f"{length} bytes at offset {offset} are not within the {size} bytes of '{name}'"
        )


def check_length(length: int, parameter: str) -> None:
    """Raise `QMPError` where `length` bytes are too many for one call."""
    if length > MAX_LENGTH:
        raise QMPError(f"Parameter '{parameter}' exceeds {MAX_LENGTH} bytes")


def may_wait(region: Region, length: int) -> bool:
    """Whether copying may keep the caller for long: much to do, or a file system to wait for."""
    return length > INLINE_LENGTH or not (region.opened is None or region.opened.in_memory)


def read(region: Region, name: str, offset: int, length: int) -> bytearray:
    """Copy bytes out of a region.

    Args:
        name: of the memory, in messages.
        offset: in bytes, like `length`; both have been checked.

    Raises:
        QMPError: they can't be read.
    """
    data = bytearray(length)
    done, number = content.read(region, offset, data)
    if done < length:
        what = f"cannot read '{name}' at offset {offset + done}"
        raise _failure(region, what, offset + length, number)
    return data


def write(region: Region, name: str, offset: int, data: bytes) -> None:
    """Copy bytes into a region.

    The pages are made first, so that what can't be had is known before the
    first byte changes.

    Args:
        name: of the memory, in messages.
        offset: in bytes; has been checked, together with the data's length.

    Raises:
        QMPError: they can't be written. Nothing has changed then, unless the
            file was truncated this very moment.
    """
    length = len(data)
    end = offset + length
    what = f"cannot write '{name}' at offset {offset}"
    first, last = _pages(region, offset, length)
    if region.shared and region.reads_as_file and _is_written_as_file(region.opened):
        _write_file(region, what, offset, data)
        return
    try:
        with cgroup.making(region, offset, length):
            if last - first > libc.PAGE_SIZE:
                error = region.host.advise(first, last - first, libc.MADV_POPULATE_WRITE)
                # EINVAL: the mapping can't be written, which the copying will find
                # too, or Linux before 5.14 does not know the advice.
                if error not in (0, errno.EINVAL, errno.EINTR):
                    raise libc.os_error(error)
            done = libc.write_memory(region.address + offset, data)
    except OSError as failed:
        raise _failure(region, what, end, failed.errno or errno.EFAULT, write=True) from None
    if done < length or not (length or region.writable):
        raise _failure(region, what, end, write=True)


def _is_written_as_file(opened: Opened | None) -> bool:
    return opened is not None and not (opened.in_memory or opened.read_only)


def _write_file(region: Region, what: str, offset: int, data: bytes) -> None:
    """Write to the file of a shared mapping: its fault could keep the whole process waiting."""
    host, fd, at = region.host, region.fd, region.offset + offset
    end = offset + len(data)
    done = 0
    try:
        if region.opened is not None and stat.S_ISREG(region.opened.mode):
            if os.fstat(fd).st_size < at + len(data):
                raise libc.os_error(errno.EFAULT)
            # So that what can't be had is known before the first byte changes.
            libc.allocate(fd, at, len(data))
        with memoryview(data) as view:
            while done < len(data):
                done += host.write(fd, view[done:], at + done)
    except OSError as failed:
        raise _failure(region, what, end, failed.errno or errno.EIO, write=True) from None


def _pages(region: Region, offset: int, length: int) -> tuple[int, int]:
    """The addresses of a range's first page and of what follows its last one."""
    start = region.address + offset
    return start & -libc.PAGE_SIZE, start + length + -(start + length) % libc.PAGE_SIZE


def _failure(
    region: Region, what: str, end: int, number: int = errno.EFAULT, *, write: bool = False
) -> QMPError:
    """What is said of memory that the kernel would not copy."""
    return QMPError(f"{what}: {_reason(region, end, number, write)}")


def _reason(region: Region, end: int, number: int, write: bool) -> str:
    if write and not region.writable:
        return "it is read-only memory (ROM)"
    if number == errno.EFAULT and region.opened is not None and stat.S_ISREG(region.opened.mode):
        size = os.fstat(region.fd).st_size
        if size < region.offset + end and size < region.offset + region.length:
            return f"its file was truncated to {size} bytes"
        if write and not os.fstatvfs(region.fd).f_bavail:
            return os.strerror(errno.ENOSPC)
    return os.strerror(number)
