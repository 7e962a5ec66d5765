"""The memory of a machine that stands, copied so that the machine can go on.

A file system that shares blocks between files (XFS, btrfs) copies nothing. Else the
bytes are copied by the kernel. Write-protecting the memory instead would have to be
done in the machine's own process, which maps it; another process can't.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import tempfile
from collections.abc import Callable

from memd.errors import QMPError
from memd.hostmem.content import Gone, data_ranges

_FICLONERANGE = 0x4020940D

_PIECE = 16 << 20
"""Bytes copied at once, between two reports: some 10 ms."""

_NO_SHARING = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.EPERM)


def capture(
    fd: int, offset: int, length: int, directory: str, progress: Callable[[int], None]
) -> tuple[int, bool]:
    """A file without a name that has the same bytes: its descriptor, and whether it shares blocks.

    Args:
        fd: the memory's file.
        offset: where it begins there, in bytes.
        length: bytes of it.
        directory: where the file is made.
        progress: told how many bytes were gone through.

    Raises:
        QMPError: it can't be read, or there is no room.
    """
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as copy:
            copy.truncate(length)
            to = copy.fileno()
            shared = _share(fd, offset, length, to)
            if not shared:
                for start, end in data_ranges(fd, offset, length):
                    _copy(fd, offset, start, end, to, progress)
            return os.dup(to), shared
    except OSError as failed:
        raise QMPError(f"cannot copy the memory: {os.strerror(failed.errno or 0)}") from None
    except Gone as gone:
        raise QMPError(f"cannot copy the memory: {gone}") from None


def shares_blocks(directory: str) -> bool:
    """Whether files in a directory can share blocks, so that copying one copies nothing.

    Raises:
        QMPError: nothing can be written there.
    """
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            file.write(bytes(4096))
            copy, shared = capture(file.fileno(), 0, 4096, directory, lambda _done: None)
            os.close(copy)
            return shared
    except OSError as failed:
        raise QMPError(f"cannot write to '{directory}': {failed.strerror}") from None


def _share(fd: int, offset: int, length: int, to: int) -> bool:
    try:
        fcntl.ioctl(to, _FICLONERANGE, struct.pack("qQQQ", fd, offset, length, 0))
    except OSError as failed:
        if failed.errno in _NO_SHARING:
            return False
        raise
    return True


def _copy(
    fd: int, offset: int, start: int, end: int, to: int, progress: Callable[[int], None]
) -> None:
    os.lseek(to, start, os.SEEK_SET)
    at = start
    while at < end:
        count = min(_PIECE, end - at)
        try:
            done = os.sendfile(to, fd, offset + at, count)
        except OSError as failed:
            if failed.errno != errno.EINVAL:
                raise
            # Huge pages are not sent, only read.
            done = os.write(to, os.pread(fd, count, offset + at))
        if not done:
            raise QMPError("cannot copy the memory: its file is cut short")
        at += done
        progress(at)
