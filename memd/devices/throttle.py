"""Events that come at most so often: the last one wins."""

from __future__ import annotations

from collections.abc import Callable

from memd.work import Event

Cancel = Callable[[], None]
Later = Callable[[float, Callable[[], None]], Cancel]
"""Has something called after so many seconds; what it returns forgets about it."""


class Throttle:
    """Lets one event of a key through at once, and of those that follow within a
    while the last one, when the while is over (observed on QEMU 10.0.2).

    Args:
        emit: sends an event.
        later: see `Later`.
        seconds: the while.
    """

    def __init__(self, emit: Callable[[Event], None], later: Later, seconds: float = 1.0) -> None:
        self._emit = emit
        self._later = later
        self._seconds = seconds
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
        self._later(self._seconds, lambda: self._over(key))

    def _over(self, key: str) -> None:
        event = self._held.pop(key)
        if event is not None:
            self._begin(key)
            self._emit(event)
