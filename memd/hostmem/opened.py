"""Facts of a file, noted when it is opened, so that it need not be asked again.

A call to a file system may wait.
"""

from __future__ import annotations

import fcntl
import os
import stat

from memd.hostmem import file_systems, libc
from memd.hostmem.paths import is_trusted
from memd.named_tuple import NamedTuple

EXT4_MAGIC = 0xEF53
_OVERLAYFS_MAGIC = 0x794C7630

LOCAL = {
    EXT4_MAGIC: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0xF2F52010: "f2fs",
    0x2FC12FC1: "zfs",
    _OVERLAYFS_MAGIC: "overlay",
    libc.TMPFS_MAGIC: "tmpfs",
    0x858458F6: "ramfs",
    libc.HUGETLBFS_MAGIC: "hugetlbfs",
}
"""File systems that have no server, by magic number; /proc is one, too."""


class Opened(NamedTuple):
    """A file that is open.

    Attributes:
        mode: its type and permissions, as in `st_mode`.
        links: how many names it has.
        device: of the file system, as in `st_dev`.
        inode: as in `st_ino`.
        device_number: what it is if it is a device, as in `st_rdev`.
        block_size: as in `st_blksize`, in bytes.
        size: in bytes, as its end can be sought; -1 where it can't.
        magic: of its file system, 0 where it can't be told.
        read_only: whether it was opened to read only.
        changed: when its attributes or content last changed, in nanoseconds.
        others_write: whether other users, but root, may write it.
    """

    mode: int
    links: int
    device: int
    inode: int
    device_number: int
    block_size: int
    size: int
    magic: int
    read_only: bool
    changed: int
    others_write: bool = False

    def is_same(self, other: Opened | None) -> bool:
        """Whether it is the same file."""
        return other is not None and (self.device, self.inode) == (other.device, other.inode)

    @property
    def page_size(self) -> int:
        """Of its memory, in bytes. Huge pages show as the block size."""
        return self.block_size if self.magic == libc.HUGETLBFS_MAGIC else libc.PAGE_SIZE

    @property
    def in_memory(self) -> bool:
        """Whether it is never waited for: its file system is in memory."""
        return self.magic in (libc.TMPFS_MAGIC, libc.HUGETLBFS_MAGIC)

    @property
    def number(self) -> int:
        """By which it counts what is waited for; see `file_systems.number`."""
        return file_systems.number(self.mode, self.device, self.device_number)

    @property
    def local(self) -> bool:
        """Whether the kernel alone closes it: no server has to be told (FUSE, NFS)."""
        if self.magic in LOCAL or self.magic in (libc.PROC_SUPER_MAGIC, 0):
            return True
        return not stat.S_ISREG(self.mode)

    @property
    def overlaid(self) -> bool:
        """Whether it is on an overlayfs, whose inodes hold no pages themselves."""
        return self.magic == _OVERLAYFS_MAGIC

    @property
    def zero_device(self) -> bool:
        """Whether it is /dev/zero: each mapping is memory of its own."""
        return stat.S_ISCHR(self.mode) and self.device_number == libc.ZERO_DEVICE

    @property
    def can_go_apart(self) -> bool:
        """Whether what it reads as can become another file than what is mapped.

        A file of an overlayfs that was opened to read only is copied up when
        somebody opens it for writing; what is read is the copy from then on,
        what is mapped stays the file of before.
        """
        return self.overlaid and self.read_only

    @property
    def reads_as_mapped(self) -> bool:
        """Whether reading the file gives what a shared mapping of it has.

        Not of a guest_memfd, which has no position to read at, and of devices.
        """
        kind = stat.S_IFMT(self.mode)
        return self.size >= 0 and kind in (stat.S_IFREG, stat.S_IFBLK) and not self.can_go_apart


def look(fd: int, magic: int | None = None, read_only: bool | None = None) -> Opened:
    """The facts of an open file.

    Args:
        magic: of its file system, where that is known.
        read_only: whether it was opened to read only, where that is known.

    Raises:
        OSError: it can't be told.
    """
    found = os.fstat(fd)
    if magic == libc.TMPFS_MAGIC and stat.S_ISREG(found.st_mode):
        size = found.st_size
    else:
        try:
            size = os.lseek(fd, 0, os.SEEK_END)
        except OSError:
            size = -1
    return Opened(
        found.st_mode,
        found.st_nlink,
        found.st_dev,
        found.st_ino,
        found.st_rdev,
        found.st_blksize,
        size,
        libc.file_system_type(fd) if magic is None else magic,
        (
            fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
            if read_only is None
            else read_only
        ),
        found.st_ctime_ns,
        bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)) or not is_trusted(found.st_uid),
    )


MEMFD = Opened(stat.S_IFREG, 0, 0, 0, 0, libc.PAGE_SIZE, 0, libc.TMPFS_MAGIC, False, 0)
"""A memfd of ordinary pages, or POSIX shared memory."""

GUEST_MEMFD = MEMFD._replace(size=-1, magic=0)
"""A guest_memfd."""
