"""Ends of connections that were closed before their client had read its descriptors."""

from __future__ import annotations

import asyncio

from memd.server.stream import Stream
from memd.session.places import Places

PAUSE = 0.25
"""Seconds between two looks at them."""


class Unread:
    """Keeps them until what they carry has been read, or the client has gone.

    A descriptor that is on its way counts for the daemon's user in the kernel
    (unix(7), ETOOMANYREFS), whether the end that sent it is open or not.

    Args:
        loop: where it looks.
        places: where the descriptors are counted.
    """

    __slots__ = ("_kept", "_loop", "_places", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, places: Places) -> None:
        self._loop = loop
        self._places = places
        self._kept: list[tuple[Stream, int, int]] = []
        self._timer: asyncio.TimerHandle | None = None

    def keep(self, stream: Stream, user: int, count: int) -> None:
        """Keep an end with so many descriptors that a user's client has not read."""
        self._kept.append((stream, user, count))
        if self._timer is None:
            self._timer = self._loop.call_later(PAUSE, self._tick)

    def look(self) -> None:
        """Close those that have been read."""
        left = []
        for each in self._kept:
            stream, user, count = each
            if stream.unread():
                left.append(each)
            else:
                stream.close()
                self._places.give_back(user, count)
        self._kept = left

    def _tick(self) -> None:
        self._timer = None
        self.look()
        if self._kept:
            self._timer = self._loop.call_later(PAUSE, self._tick)

    def close(self) -> None:
        """Close all."""
        if self._timer is not None:
            self._timer.cancel()
        for stream, _user, _count in self._kept:
            stream.close()
        self._kept = []
