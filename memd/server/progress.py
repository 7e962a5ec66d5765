"""Telling clients how far a job has come, while it runs."""

from __future__ import annotations

import asyncio
from typing import Any

from memd.work import Emit, Job, Resume

INTERVAL = 0.25
"""Seconds between two events of one job, and before its first: what is done
sooner is not told of."""


def watched(
    loop: asyncio.AbstractEventLoop,
    job: Job[Any],
    done: Resume,
    tell: Emit,
    interval: float = INTERVAL,
) -> Resume:
    """Tell of a job that is about to start, where it can say how far it is.

    Args:
        loop: on which it is asked, now and then, until it has ended.
        done: what is to get the job's result.
        tell: sends events to the clients.
        interval: seconds, see `INTERVAL`.

    Returns:
        what is to get it instead.
    """
    ask = job.progress
    if ask is None:
        return done

    timer = loop.call_later(interval, lambda: tick())

    def tick() -> None:
        nonlocal timer
        timer = loop.call_later(interval, tick)
        if (event := ask()) is not None:
            tell((event,))

    def ended(value: Any, error: BaseException | None) -> None:
        timer.cancel()
        done(value, error)

    return ended
