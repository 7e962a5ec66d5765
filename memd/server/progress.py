"""Telling clients how far a job has come, while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from memd.work import Event, Job, Resume

INTERVAL = 0.25
"""Seconds between two events of one job, and before its first: what is done
sooner is not told of."""

Broadcast = Callable[[tuple[Event, ...]], None]


class Progress:
    """Asks a job now and then how far it is, until it has ended.

    Args:
        loop: on which the job is asked.
        ask: the job's `progress`.
        tell: sends events to the clients.
        interval: seconds, see `INTERVAL`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ask: Callable[[], Event | None],
        tell: Broadcast,
        interval: float,
    ) -> None:
        self._loop = loop
        self._ask = ask
        self._tell = tell
        self._interval = interval
        self._timer = loop.call_later(interval, self._tick)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._interval, self._tick)
        event = self._ask()
        if event is not None:
            self._tell((event,))

    def end(self) -> None:
        """Ask no more."""
        self._timer.cancel()


def watched(
    loop: asyncio.AbstractEventLoop,
    job: Job[Any],
    done: Resume,
    tell: Broadcast,
    interval: float = INTERVAL,
) -> Resume:
    """Tell of a job that is about to start, where it can say how far it is.

    Args:
        done: what is to get the job's result.
        interval: seconds, see `INTERVAL`.

    Returns:
        what is to get it instead.
    """
    if job.progress is None:
        return done
    progress = Progress(loop, job.progress, tell, interval)

    def ended(value: Any, error: BaseException | None) -> None:
        progress.end()
        done(value, error)

    return ended
