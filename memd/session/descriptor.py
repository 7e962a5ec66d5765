"""A descriptor that a client has sent, on the account of its user."""

from __future__ import annotations

from functools import partial

from memd.places import Places


class Descriptor:
    """A descriptor that a client has sent, counted for its user until it is closed.

    Args:
        fd: it.
        places: where it is counted; its place is taken already.
        user: whom it is counted for.
    """

    __slots__ = ("_places", "_user", "fd")

    def __init__(self, fd: int, places: Places, user: int) -> None:
        self.fd = fd
        self._places = places
        self._user = user

    def close(self) -> None:
        """Close it; its place is free once that is done."""
        if self.fd >= 0:
            from memd.hostmem.closing import close

            fd, self.fd = self.fd, -1
            close(fd, partial(self._places.give_back_soon, self._user), self._user)
