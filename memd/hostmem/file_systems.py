"""File systems and devices that may be waited for, by the numbers of `Job.on`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from memd.hostmem import libc
from memd.work import ELSEWHERE, SHARED_MEMORY

_WHERE = os.O_PATH | os.O_CLOEXEC


def number(mode: int, device: int, device_number: int) -> int:
    """The number of what a file waits for: its file system, or the device that it is.

    Args:
        mode: as in `st_mode`.
        device: as in `st_dev`.
        device_number: as in `st_rdev`.
    """
    if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
        # No file system's.
        return 1 << 64 | device_number
    return device


def of_paths(paths: Iterable[str]) -> frozenset[int]:
    """`Job.on` for opening any of these; unknown for none."""
    encoded = [each.encode("utf-8", "surrogateescape") for each in paths]
    return frozenset().union(*(of_path(each, set()) for each in encoded)) or ELSEWHERE


def of_path(path: bytes, in_memory: set[int]) -> frozenset[int]:
    """`Job.on` for opening a path, as far as is known without waiting.

    It is the file system of the last directory on the way that the kernel knows: this
    is whom it would ask next.

    Args:
        in_memory: the numbers of those that have no server.
    """
    if len(path) >= libc.PATH_MAX:
        return ELSEWHERE
    while True:
        try:
            fd = libc.openat2(libc.AT_FDCWD, path or b".", _WHERE, libc.RESOLVE_CACHED)
            break
        except OSError:
            shorter = os.path.dirname(path.rstrip(b"/"))
            if shorter == path or not path:
                return ELSEWHERE
            path = shorter
    try:
        found = libc.known(fd)
        if found is None:
            return ELSEWHERE
        waited_for = number(*found[:3])
        return SHARED_MEMORY if waited_for in in_memory else frozenset((waited_for,))
    finally:
        os.close(fd)
