"""The time of an event loop, moved by a test."""

from __future__ import annotations

import asyncio
from typing import cast


class Clock:
    """As much of a loop as is asked by what only wants to know the time.

    Attributes:
        now: seconds.
    """

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        return self.now

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """It, as a loop."""
        return cast(asyncio.AbstractEventLoop, self)
