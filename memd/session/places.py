"""Places of what is scarce, counted for each user."""

from __future__ import annotations

import math
import os
from collections import Counter, deque
from collections.abc import Iterable
from functools import partial

ANYBODY = -1
"""The user whom clients count for that the kernel knows no user of, as over TCP."""

SPARE = 4
"""Places set aside for each of those who are to get in always, where there are many."""


class Places:
    """A bounded number of places, counted for each user.

    Some are set aside for root, and some for the daemon's own user: the operator gets
    in while others have all that they may. Beyond these both count as any user.

    Args:
        total: how many there are; 0 for any number.
        share: the fraction of those that are not set aside that one user may have, rounded up.
            Of few, one user may have all; with three quarters or less, one user leaves some of
            four or more to others.
        each: how many of them instead; 0 for any number.
        apart: the users for whom some are set aside.
    """

    __slots__ = (
        *("_apart", "_common", "_each", "_returned", "_spare", "_taken", "_taken_of_common"),
    )

    def __init__(
        self,
        total: int = 0,
        share: float = 1,
        each: int | None = None,
        apart: Iterable[int] | None = None,
    ) -> None:
        self._apart = frozenset((0, os.geteuid()) if apart is None else apart)
        self._spare = min(SPARE, total // 8)
        # Places that are set aside for nobody.
        self._common = total - self._spare * len(self._apart)
        if each is None:
            each = math.ceil(self._common * share)
        self._each = each
        self._taken: Counter[int] = Counter()
        self._taken_of_common = 0
        self._returned: deque[int] = deque()

    @property
    def taken(self) -> int:
        """How many are taken."""
        self._count_returned()
        return self._taken.total()

    def of(self, user: int) -> int:
        """How many a user has."""
        self._count_returned()
        return self._taken[user]

    def most(self, user: int) -> int:
        """How many a user may have, those set aside for it included; 0 for any number."""
        most = min(filter(None, (self._each, self._common)), default=0)
        return most and most + (self._spare if user in self._apart else 0)

    def has_free_place(self, user: int, count: int = 1) -> bool:
        """Whether a user may take so many more."""
        self._count_returned()
        spare = self._spare if user in self._apart else 0
        after = self._taken[user] + count - spare
        if after <= 0:
            return True
        if self._each and after > self._each:
            return False
        more = min(after, count)
        return not self._common or self._taken_of_common + more <= self._common

    def take(self, user: int, count: int = 1) -> None:
        """Count places as taken, also beyond the limit."""
        self._change(user, count)

    def give_back(self, user: int, count: int = 1) -> None:
        """Count places as free again."""
        self._change(user, -count)
        if not self._taken[user]:
            del self._taken[user]

    def give_back_soon(self, user: int) -> None:
        """Count a place as free again when next the places are looked at; from any thread."""
        self._returned.append(user)

    def _count_returned(self) -> None:
        while self._returned:
            self.give_back(self._returned.popleft())

    def _change(self, user: int, count: int) -> None:
        spare = self._spare if user in self._apart else 0
        before = max(0, self._taken[user] - spare)
        self._taken[user] += count
        self._taken_of_common += max(0, self._taken[user] - spare) - before


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
