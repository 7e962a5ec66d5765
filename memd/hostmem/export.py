"""Handing a region to another process: by descriptor, or by a path that it opens."""

from __future__ import annotations

import errno
import os
import stat

from memd.errors import QMPError
from memd.hostmem.region import Region

_OWNER_ONLY = 0o600


def export(region: Region, name: str, writable: bool) -> int:
    """A new descriptor of the file behind a region.

    One that is not writable belongs to an open file description of its own,
    which can't be made writable.

    Args:
        name: of the memory, in messages.
        writable: whether it has to let one write.

    Raises:
        QMPError: there is no such descriptor to give.
    """
    opened = region.opened
    if opened is None:
        raise QMPError(
            f"'{name}' is private memory without a descriptor: make it with share=on to export it"
        )
    if opened.zero_device:
        raise QMPError(f"'{name}' is memory of /dev/zero, whose descriptor does not lead to it")
    if writable and not region.writable:
        raise QMPError(f"'{name}' is read-only memory (ROM): it can't be exported writable")
    if writable and opened.read_only:
        raise QMPError(f"the file of '{name}' is opened read-only: it can't be exported writable")
    if writable and not region.shared:
        raise QMPError(
            f"'{name}' is a private mapping, whose writes are not in its file: make it with"
            " share=on, or export the file below it with writable=false"
        )
    there = os.fstat(region.fd)
    if not there.st_nlink and stat.S_IMODE(there.st_mode) != _OWNER_ONLY:
        # Its owner alone may open it again through /proc: by their modes every user may
        # open a memfd there, and no user POSIX shared memory.
        os.fchmod(region.fd, _OWNER_ONLY)
    try:
        if writable or opened.read_only:
            fd = os.dup(region.fd)
        else:
            fd = os.open(f"/proc/self/fd/{region.fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as failed:
        if failed.errno == errno.ENXIO:
            raise QMPError(f"'{name}' has no descriptor that is read-only") from None
        raise QMPError(f"cannot export '{name}': {failed.strerror}") from None
    return fd


def path_of(region: Region) -> str:
    """A path by which another process of the same user opens the file behind a region.

    Returns:
        The file's own path if it still leads there, or one under /proc, which
        is there as long as the region is; "" where no path does: for a
        guest_memfd, without /proc, and for a file that has been copied up on
        an overlayfs since.
    """
    here = f"/proc/{os.getpid()}/fd/{region.fd}"
    try:
        there = os.fstat(region.fd)
        if not there.st_nlink and stat.S_ISREG(there.st_mode):
            return here
        path = os.readlink(here)
    except OSError:
        return ""
    opened = region.opened
    if path.startswith("anon_inode:") or (
        opened is not None and opened.can_go_apart and there.st_ctime_ns != opened.changed
    ):
        return ""
    try:
        path.encode()
        found = os.stat(path)
    except (OSError, UnicodeEncodeError):
        return here
    return path if os.path.samestat(found, there) else here
