"""Work that may wait for a file system, for no longer than it is given."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds that a start waits for the file system of a file without which it can't go on."""


def within(seconds: float, work: Callable[[], T]) -> T:
    """Run `work` in a thread, where there is one available; gives what it returns or raises.

    Raises:
        TimeoutError: it takes longer. It goes on, and what it comes to is lost.
    """
    came: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            came.append(work())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="memd-deadline", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return work()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not came:
        raise TimeoutError(errno.ETIMEDOUT, "the file system does not answer")
    return came[0]


def at_start(work: Callable[[], T]) -> T:
    """Run what a start can't go on without, within `PATIENCE`."""
    return within(PATIENCE, work)


def read_at_start(path: str, limit: int = -1) -> bytes:
    """Read a file that the command line is about.

    A pipe is waited for as long as its writer takes.

    Args:
        limit: bytes to be read at most; all of them if it is negative.

    Raises:
        OSError: it can't be read, or (TimeoutError) its file system does not answer.
    """

    def read() -> bytes:
        with open(path, "rb") as file:
            return file.read(limit)

    content = at_start(lambda: read() if stat.S_ISREG(os.stat(path).st_mode) else None)
    return read() if content is None else content
