"""A timer that runs once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timer:
    """Calls a function once, some time after it was started.

    Args:
        loop: on which it is called.
        act: the function; it may start the timer again.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, act: Callable[[], object]) -> None:
        self._loop = loop
        self._act = act
        self._handle: asyncio.TimerHandle | None = None

    def start(self, delay: float) -> None:
        """Have it called after so many seconds; one that runs already goes on."""
        if self._handle is None:
            self._handle = self._loop.call_later(delay, self._run)

    def cancel(self) -> None:
        """Have it not called, until it is started again."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _run(self) -> None:
        self._handle = None
        self._act()
