"""Clients that have connected and not negotiated: for how long, and which may be dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.timer import Timer

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from memd.server.connection import Connection

GRACE = 10.0
"""Seconds for which a client that has not negotiated is not dropped for
another: the two messages that it takes are sent within milliseconds."""


class PendingNegotiation:
    """Keeps count of them.

    Args:
        timeout: seconds after which one that has not negotiated is disconnected;
            0 for never.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        self._loop = loop
        self._timeout = timeout
        # When each came, the first first; some have negotiated since.
        self._since: dict[Connection, float] = {}
        self._timer = Timer(loop, self._look)

    def came(self, connection: Connection) -> None:
        """A client has connected."""
        self._since[connection] = self._loop.time()
        if self._timeout:
            self._timer.start(self._timeout)

    def left(self, connection: Connection) -> None:
        """A client's connection is gone."""
        self._since.pop(connection, None)

    def close(self) -> None:
        """Disconnect nobody any more."""
        self._timeout = 0
        self._timer.cancel()

    def of(self, user: int) -> int:
        """How many of a user's there are."""
        self._first()
        return sum(
            each.session.user == user and not each.session.negotiated for each in self._since
        )

    def overdue(self) -> Iterator[tuple[Connection, int]]:
        """The clients that have been silent for over `GRACE`, the longest first, and their users.

        What it yields has to be dealt with before the next one comes or goes.
        """
        self._first()
        now = self._loop.time()
        for each, since in self._since.items():
            if now - since < GRACE:
                return
            if not each.session.negotiated:
                yield each, each.session.user

    def _first(self) -> Connection | None:
        # Each that has negotiated is passed over once.
        while self._since:
            first = next(iter(self._since))
            if not first.session.negotiated:
                return first
            del self._since[first]
        return None

    def _look(self) -> None:
        now = self._loop.time()
        while (first := self._first()) is not None:
            left = self._since[first] + self._timeout - now
            if left > 0:
                self._timer.start(left)
                return
            self.left(first)
            first.session.cut_off("capabilities were not negotiated in time")
