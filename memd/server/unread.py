"""Ends of connections that were closed before their client had read its descriptors."""

from __future__ import annotations

import asyncio
from functools import partial

from memd.places import Places
from memd.server.stream import Stream
from memd.timer import Timer

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

    def __init__(self, loop: asyncio.AbstractEventLoop, places: Places) -> None:
        self._places = places
        self._kept: list[tuple[Stream, int, int]] = []
        self._timer = Timer(loop, self._tick)

    def keep(self, stream: Stream, user: int, count: int) -> None:
        """Keep an end with so many descriptors that a user's client has not read.

        It takes one more itself.
        """
        self._places.take(user)
        self._kept.append((stream, user, count + 1))
        self._timer.start(PAUSE)

    def look(self) -> None:
        """Close those that have been read."""
        left = []
        for each in self._kept:
            stream, user, count = each
            if stream.unread():
                left.append(each)
            else:
                self._places.give_back(user, count - 1)
                stream.close(partial(self._places.give_back_soon, user))
        self._kept = left

    def _tick(self) -> None:
        self.look()
        if self._kept:
            self._timer.start(PAUSE)

    def close(self) -> None:
        """Close all."""
        self._timer.cancel()
        for stream, _user, _count in self._kept:
            stream.close()
        self._kept = []
