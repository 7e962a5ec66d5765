"""The steps of the daemon's end: each is taken, whatever comes of the others."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

log = logging.getLogger("memd")

Step = Callable[[], Awaitable[object] | None]
"""Does something, or gives what does it."""


async def take_each(steps: Iterable[Step | None]) -> None:
    """Take the steps, one after the other; one that fails is logged."""
    for step in steps:
        try:
            waiting = step() if step else None
            if waiting is not None:
                await waiting
        except OSError as error:
            log.warning("at the end: %s", error)
        except Exception:
            log.exception("at the end")
