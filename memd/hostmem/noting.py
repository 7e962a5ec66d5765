"""Taking note of files that are made, so that they can go even after a kill -9."""

from __future__ import annotations

import os
from typing import Protocol

from memd.hostmem.paths import Entry


class Watcher(Protocol):
    """Takes note; called from any thread.

    Each may raise `OSError`; a file whose making can't be noted is not made.
    """

    def making(self, path: bytes) -> int:
        """A file is going to be made; gives it a number."""

    def made(self, number: int, fd: int) -> None:
        """It is there, and empty."""

    def settled(self, number: int) -> None:
        """It is gone again, or has lost its name."""


watcher: Watcher | None = None
"""Who wants to know."""


def make(entry: Entry, mode: int) -> tuple[int, int | None]:
    """Make a file, which must not be there yet, and open it for reading and writing.

    Args:
        mode: its permissions, before the umask.

    Returns:
        its descriptor, and by which number its making was noted, if it was.

    Raises:
        OSError: it can't be made.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    if watcher is None:
        return entry.open(flags, mode), None
    number = watcher.making(entry.path)
    try:
        fd = entry.open(flags, mode)
    except OSError:
        settle(number)
        raise
    try:
        watcher.made(number, fd)
    except BaseException:
        entry.unlink()
        os.close(fd)
        raise
    return fd, number


def settle(number: int | None) -> None:
    """Have it noted that a file is gone again, or has lost its name.

    Args:
        number: by which its making was noted; None if it was not.
    """
    if watcher is not None and number is not None:
        try:
            watcher.settled(number)
        except OSError:
            # Who looks for it will find that it is not there.
            pass
