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
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from memd.errors import QMPError, refusing
from memd.hostmem import cgroup
from memd.hostmem.content import data_ranges

_FICLONERANGE = 0x4020940D

_PIECE = 16 << 20
"""Bytes copied at once, between two reports: some 10 ms."""

_NO_SHARING = (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.EPERM)


@dataclass(frozen=True, slots=True)
class RamFile:
    """A block of a machine's memory, which a template is made of.

    Attributes:
        fd: its file, which is owned by this.
        offset: where it begins there, in bytes.
        size: bytes of it.
        page_size: of its pages, in bytes.
    """

    fd: int
    offset: int
    size: int
    page_size: int

    def close(self) -> None:
        """Close its file."""
        os.close(self.fd)


def capture(
    memories: Sequence[RamFile], directory: str, progress: Callable[[int], None]
) -> tuple[int, bool]:
    """A file without a name that has the same bytes: its descriptor, and whether it shares blocks.

    Args:
        memories: the blocks, which follow each other in the file.
        directory: where the file is made.
        progress: told how many bytes were gone through.

    Raises:
        QMPError: it can't be read, or the disk is full.
    """
    with (
        refusing("cannot copy the memory"),
        tempfile.TemporaryFile(dir=directory, buffering=0) as copy,
    ):
        copy.truncate(sum(memory.size for memory in memories))
        to, at, shared = copy.fileno(), 0, True
        for memory in memories:
            if not _share(memory, to, at):
                shared = False
                for start, end in data_ranges(memory.fd, memory.offset, memory.size):
                    _copy(memory, start, end, to, at, progress)
            at += memory.size
        return os.dup(to), shared


def shares_blocks(directory: str) -> bool:
    """Whether files in a directory can share blocks, so that copying one copies nothing.

    Raises:
        QMPError: nothing can be written there.
    """
    with (
        refusing(f"cannot write to '{directory}'"),
        tempfile.TemporaryFile(dir=directory, buffering=0) as file,
    ):
        file.write(bytes(4096))
        memory = RamFile(file.fileno(), 0, 4096, 4096)
        copy, shared = capture((memory,), directory, lambda _done: None)
        os.close(copy)
        return shared


def _share(memory: RamFile, to: int, at: int) -> bool:
    """Let a range of a file from `at` on be the memory; False where that can't be."""
    clone = struct.pack("qQQQ", memory.fd, memory.offset, memory.size, at)
    try:
        fcntl.ioctl(to, _FICLONERANGE, clone)
    except OSError as failed:
        if failed.errno in _NO_SHARING:
            return False
        raise
    return True


def _copy(
    memory: RamFile, start: int, end: int, to: int, at: int, progress: Callable[[int], None]
) -> None:
    """Copy a range of the memory, which is from `at` on in the file that is copied to."""
    os.lseek(to, at + start, os.SEEK_SET)
    while start < end:
        count = min(_PIECE, end - start)
        with cgroup.writing(to, count):
            try:
                done = os.sendfile(to, memory.fd, memory.offset + start, count)
            except OSError as failed:
                if failed.errno != errno.EINVAL:
                    raise
                # Huge pages are not sent, only read.
                done = os.write(to, os.pread(memory.fd, count, memory.offset + start))
        if not done:
            raise QMPError("cannot copy the memory: its file is cut short")
        start += done
        progress(at + start)
