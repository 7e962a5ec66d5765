"""The identity of a file and of a descriptor of it."""

from __future__ import annotations

import fcntl
import os
import stat

from memd.hostmem.opened import Opened
from memd.json_types import JSON

_TEXTS = {
    "type": "of another type",
    "dev": "on another device",
    "ino": "another file",
    "access": "opened otherwise",
    "seals": "sealed otherwise",
}


def identify(fd: int, opened: Opened | None = None) -> dict[str, JSON]:
    """The identity of a descriptor's file, as JSON; raises `OSError`.

    Args:
        opened: what was noted of it, where its file system is not to be asked.
    """
    if opened is None or opened.local:
        there = os.fstat(fd)
        device, inode, mode = there.st_dev, there.st_ino, there.st_mode
    else:
        device, inode, mode = opened.device, opened.inode, opened.mode
    return {
        "dev": device,
        "ino": inode,
        "type": stat.S_IFMT(mode),
        "access": fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE,
        "seals": _seals(fd),
    }


def _seals(fd: int) -> int | None:
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return None


def difference(expected: dict[str, JSON], fd: int) -> str | None:
    """How a descriptor differs from the one that was given to `identify`; None if not."""
    found = identify(fd)
    return next((text for name, text in _TEXTS.items() if found[name] != expected[name]), None)
