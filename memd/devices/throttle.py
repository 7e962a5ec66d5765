"""Events that come at most so often: the last one wins."""

from __future__ import annotations

from collections.abc import Callable

from memd.work import Event

Later = Callable[[float, Callable[[], None]], object]
"""Has something called after so many seconds."""

WHILE = 1.0
"""Seconds in which there is at most one event of a key."""


class Throttle:
    """Lets one event of a key through at once, and of those that follow within a
    while the last one, when the while is over (observed on QEMU 10.0.2).

    Args:
        emit: sends an event.
        later: see `Later`.
    """

    def __init__(self, emit: Callable[[Event], None], later: Later) -> None:
        self._emit = emit
        self._later = later
        # By key, while its while lasts: what is to be sent then, if anything.
        self._held: dict[str, Event | None] = {}

    def send(self, key: str, event: Event) -> None:
        """Send it, now or later, or something newer instead."""
        if key in self._held:
            self._held[key] = event
            return
        self._begin(key)
        self._emit(event)

    def _begin(self, key: str) -> None:
        self._held[key] = None
        self._later(WHILE, lambda: self._over(key))

    def _over(self, key: str) -> None:
        event = self._held.pop(key)
        if event is not None:
            self._begin(key)
            self._emit(event)
