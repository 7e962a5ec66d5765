"""Work that may wait for a file system, for no longer than it is given."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


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
