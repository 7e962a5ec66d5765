"""Whose commands are run when, so that nobody waits for long."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

SLICE = 0.002
"""Seconds that a client's commands are run for before others have their turn. 256 short
ones take half of that; a turn costs a few microseconds."""

ROUND = 0.008
"""Seconds in which those who have more to do take their turns, before the loop looks
again for who has come: with what is under way, the longest wait of a client that
sends a command now and then."""


def _nothing() -> None:
    pass


class FairScheduler:
    """Shares the loop among clients.

    Who sends a command now and then is served at once. Who sends so many that a
    turn does not suffice goes on with the others of that kind, one after another,
    for a bounded time between two looks at who has come.

    Attributes:
        round: see `ROUND`.
    """

    round = ROUND

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait for another turn."""
        return len(self._waiting)

    def begin(self) -> float:
        """A turn begins; gives the time (monotonic) at which it is to end.

        One command is run in any case. The more clients wait for their next turn,
        the shorter are those of who comes.
        """
        return monotonic() + SLICE / (1 + len(self._waiting))

    def wait(self, resume: Callable[[], None]) -> None:
        """Queue for another turn; `resume` is called when it comes."""
        if not self._waiting:
            self._loop.call_soon(self._round)
        self._waiting.append(resume)

    def claim(self) -> bool:
        """Whether a turn can be taken at once: nobody waits, and nobody else has claimed one
        since the loop last looked who has come."""
        free = not self._waiting
        if free:
            self.wait(_nothing)
        return free

    def _round(self) -> None:
        waiting = self._waiting
        end = monotonic() + self.round
        try:
            # Each once: who has more to do by then queues again.
            for _ in range(len(waiting)):
                try:
                    waiting[0]()
                finally:
                    waiting.popleft()
                if monotonic() > end:
                    break
        finally:
            if waiting:
                self._loop.call_soon(self._round)
