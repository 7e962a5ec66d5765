"""Reading and writing a region's bytes, through the kernel's own checks.

Nothing here touches the memory itself: process_vm_readv(2) and
process_vm_writev(2) do, and answer with an error where the mapping forbids it
or a page is not available (a file that was truncated, a full disk, a broken page),
where the process's own access would end in a signal.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator

from memd.errors import QMPError, refusing
from memd.hostmem import cgroup, content, libc
from memd.hostmem.region import Region
from memd.hostmem.window import Window

MAX_LENGTH = 16 << 20
"""Bytes that can be read or written at once: in base64 some 22 million
characters, of which a client and memd each hold a few copies."""

_PIECE = 512 << 10
"""Bytes that are copied at once: what fits into a processor's cache."""

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


def check_whole_pages(region: Region, name: str, offset: int, length: int) -> None:
    """Raise `QMPError` where a range of a region is not whole pages of its memory."""
    for parameter, value in (("offset", offset), ("length", length)):
        if value % region.page_size:
            raise QMPError(
                f"Parameter '{parameter}' must be a multiple of the page size"
                f" 0x{region.page_size:x} of '{name}'"
            )


def check_length(length: int, parameter: str) -> None:
    """Raise `QMPError` where `length` bytes are too many for one call."""
    if length > MAX_LENGTH:
        raise QMPError(f"Parameter '{parameter}' exceeds {MAX_LENGTH} bytes")


def may_wait(region: Region, length: int) -> bool:
    """Whether copying may keep the caller for long: much to do, or a file system to wait for."""
    return length > INLINE_LENGTH or not (region.opened is None or region.opened.in_memory)


class InMemfd:
    """Bytes at the beginning of a memfd that a client has sent.

    Args:
        fd: the descriptor; stays the caller's.
        length: how many bytes.
        to_read: whether these have to stay there as long as the client pleases.

    Raises:
        QMPError: it is no such descriptor.
    """

    def __init__(self, fd: int, length: int, *, to_read: bool) -> None:
        try:
            # What is not memory has no seals: it could keep its reader waiting.
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        except OSError:
            raise QMPError("the descriptor that came along is not a memfd") from None
        if to_read and not (seals & fcntl.F_SEAL_SHRINK and os.fstat(fd).st_size >= length):
            raise QMPError(
                f"the memfd that came along has to have {length} bytes and be sealed against"
                " shrinking (F_SEAL_SHRINK)"
            )
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == (
            os.O_WRONLY if to_read else os.O_RDONLY
        ):
            raise QMPError(f"the memfd that came along can't be {'read' if to_read else 'written'}")
        self.fd = fd
        self._length = length

    def __len__(self) -> int:
        """How many bytes."""
        return self._length


def read(region: Region, name: str, offset: int, length: int) -> bytearray:
    """Copy bytes out of a region.

    Args:
        name: of the memory, in messages.
        offset: in bytes, like `length`; both have been checked.

    Raises:
        QMPError: they can't be read.
    """
    data = bytearray(length)
    _read(region, name, offset, data)
    return data


def read_to(region: Region, name: str, offset: int, to: InMemfd) -> None:
    """Copy bytes out of a region, as many as `to` is to have; see `read`.

    Raises:
        QMPError: they can't be read, or not be written there.
    """
    length, copied = len(to), 0
    # The process that writes to it is charged for its pages, also where a client has made it.
    with refusing("cannot write to the memfd that came along"), cgroup.writing(to.fd, length, 0):
        if region.shared and region.reads_as_file:
            copied = region.host.copy(region.fd, region.offset + offset, to.fd, 0, length)
        for at, piece in _pieces(region, name, offset + copied, length - copied):
            if os.pwrite(to.fd, piece, copied + at) < len(piece):
                raise QMPError("cannot write to the memfd that came along")


def check_readable(region: Region, name: str, offset: int, length: int) -> None:
    """See that bytes can be read; see `read`."""
    for _ in _pieces(region, name, offset, length):
        pass


def _pieces(
    region: Region, name: str, offset: int, length: int
) -> Iterator[tuple[int, memoryview]]:
    """Copy bytes out of a region, some at a time: where, from `offset` on, and these."""
    buffer = memoryview(bytearray(min(length, _PIECE)))
    for at in range(0, length, _PIECE):
        piece = buffer[: length - at]
        _read(region, name, offset + at, piece)
        yield at, piece


def _read(region: Region, name: str, offset: int, into: bytearray | memoryview) -> None:
    done, number = content.read(region, offset, into)
    if done < len(into):
        what = f"cannot read '{name}' at offset {offset + done}"
        raise _failure(region, what, offset + len(into), number)


def write(region: Region, name: str, offset: int, data: bytes | InMemfd) -> None:
    """Copy bytes into a region.

    The pages are made first, so that what is not available is known before the
    first byte changes.

    Args:
        name: of the memory, in messages.
        offset: in bytes; has been checked, together with the data's length.

    Raises:
        QMPError: they can't be written. Nothing has changed then, unless the
            file was truncated this very moment.
    """
    length = len(data)
    what = f"cannot write '{name}' at offset {offset}"
    done = length
    try:
        with cgroup.making(region, offset, length):
            if _is_written_as_file(region, offset, data):
                _write_file(region, offset, data)
            else:
                done = _write_mapping(region, offset, data)
    except OSError as failed:
        number = failed.errno or errno.EFAULT
        raise _failure(region, what, offset + length, number, write=True) from None
    if done < length or not (length or region.writable):
        raise _failure(region, what, offset + length, write=True)


def _is_written_as_file(region: Region, offset: int, data: bytes | InMemfd) -> bool:
    """Whether to write to the file of a shared mapping.

    A fault of the mapping could keep the whole process waiting for the file system. In
    memory, what is not there yet is made for a file without being cleared before, but huge
    pages may be made for a mapping alone.
    """
    opened = region.opened
    if opened is None or opened.read_only or not (region.shared and region.reads_as_file):
        return False
    if not opened.in_memory:
        return True
    if isinstance(data, bytes) or region.page_size > libc.PAGE_SIZE or _advised_is_huge():
        return False
    try:
        return libc.cachestat(region.fd, region.offset + offset, len(data)) == (0, 0)
    except OSError:
        return False


def _advised_is_huge() -> bool:
    try:
        with open("/sys/kernel/mm/transparent_hugepage/shmem_enabled", encoding="ascii") as file:
            return "[advise]" in file.read()
    except OSError:
        return False


def _write_file(region: Region, offset: int, data: bytes | InMemfd) -> None:
    host, fd, at, length = region.host, region.fd, region.offset + offset, len(data)
    if region.opened is not None and stat.S_ISREG(region.opened.mode):
        if os.fstat(fd).st_size < at + length:
            raise libc.os_error(errno.EFAULT)
        # So that what is not available is known before the first byte changes.
        libc.allocate(fd, at, length)
    if isinstance(data, bytes):
        host.write(fd, data, at)
    elif (copied := host.copy(data.fd, 0, fd, at, length)) < length:
        window = Window(data.fd, length)
        try:
            host.write(fd, window.view[copied:], at + copied)
        finally:
            window.close()


def _write_mapping(region: Region, offset: int, data: bytes | InMemfd) -> int:
    """How many bytes could be written."""
    first, last = libc.whole_pages(region.address + offset, len(data))
    if last - first > libc.PAGE_SIZE:
        error = region.host.advise(first, last - first, libc.MADV_POPULATE_WRITE)
        # EINVAL: the mapping can't be written, which the copying will find too.
        if error not in (0, errno.EINVAL, errno.EINTR):
            raise libc.os_error(error)
    if isinstance(data, InMemfd):
        return libc.read_file(data.fd, region.address + offset, len(data))
    return libc.write_memory(region.address + offset, data)


def _failure(
    region: Region, what: str, end: int, number: int = errno.EFAULT, *, write: bool = False
) -> QMPError:
    """The error for memory that the kernel would not copy."""
    opened, reason = region.opened, os.strerror(number)
    if write and not region.writable:
        reason = "it is read-only memory (ROM)"
    elif number == errno.EFAULT and opened is not None and stat.S_ISREG(opened.mode):
        size = os.fstat(region.fd).st_size
        if size < region.offset + min(end, region.length):
            reason = f"its file was truncated to {size} bytes"
        elif write and not os.fstatvfs(region.fd).f_bavail:
            reason = os.strerror(errno.ENOSPC)
    return QMPError(f"{what}: {reason}")
