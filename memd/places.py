"""Accounts: how much of what is scarce each user has."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TypeVar

from memd.errors import QMPError
from memd.json_types import JSON

T = TypeVar("T")

ANYBODY = -1
"""The user whom clients count for that the kernel knows no user of, as over TCP."""

USER: ContextVar[int | None] = ContextVar("user", default=None)
"""The user whose client's command is being run; None for what the daemon does by itself."""

KEPT = 96 << 20
"""Bytes that are kept of what all clients gave. An eighth is set aside for root, and one for the
daemon's own user."""

KEPT_PER_USER = 64 << 20
"""Of these, what one user's clients may have."""

KEPT_SHARE = 8 / 9
"""Of those that nobody else has and that are not set aside, what one user may have."""

ITEM = 32 << 10
"""Bytes that a device, a block node or the like counts as beside its texts: there are commands
that go through all of them."""

MEMBER = 192
"""Bytes that an item of a list, or a member, takes beside its text."""

SHARE = 3 / 4
"""How much one user may have of what it finds of most of what is scarce, see `Places`."""

SPARE = 4
"""Places set aside for each of those who are to get in always, where there are many."""


class Places:
    """A bounded number of places, counted for each user.

    Some are set aside for root, and some for the daemon's own user: the operator gets
    in while others have all that they may. No share bounds what these two have.

    Args:
        total: how many there are; 0 for any number.
        share: the fraction that another user may have of those that are not set aside and that
            nobody else has, rounded up: each user leaves some of what it has found to the next
            one. Of few, one user may have all; with three quarters or less, one user leaves
            some of four or more to others.
        each: how many of them any user may have; 0 for any number.
        spare: how many are set aside for each of `apart`, an eighth of all at most.
        apart: the users for whom some are set aside.
        within: other places, of which each of these takes one, too.
    """

    __slots__ = (
        *("_apart", "_common", "_count", "_each", "_returned", "_share", "_spare", "_taken"),
        *("_taken_of_common", "_within"),
    )

    def __init__(
        self,
        total: int = 0,
        share: float = 1,
        each: int = 0,
        spare: int = SPARE,
        apart: Iterable[int] | None = None,
        within: Places | None = None,
    ) -> None:
        self._apart = frozenset(operators() if apart is None else apart)
        self._within = within
        self._spare = min(spare, total // 8)
        # Places that are set aside for nobody.
        self._common = total - self._spare * len(self._apart)
        self._share = share
        self._each = each
        self._taken: dict[int | None, int] = {}
        self._count = 0
        self._taken_of_common = 0
        self._returned: deque[int | None] = deque()

    @property
    def taken(self) -> int:
        """How many are taken."""
        if self._returned:
            self._count_returned()
        return self._count

    def of(self, user: int) -> int:
        """How many a user has."""
        if self._returned:
            self._count_returned()
        return self._taken.get(user, 0)

    def most(self, user: int) -> int:
        """How many a user may have while no other has any, those set aside for it included.

        0 for any number.
        """
        common = self._common if user in self._apart else math.ceil(self._common * self._share)
        most = min(filter(None, (self._each, common)), default=0)
        return most and most + (self._spare if user in self._apart else 0)

    def allowed(self, user: int) -> int:
        """How many a user may have beside those that others have now."""
        spare = self._spare if user in self._apart else 0
        found = self._common - (self._taken_of_common - max(0, self.of(user) - spare))
        common = found if user in self._apart else math.ceil(found * self._share)
        return max(0, min(common, self._each or common)) + spare

    def has_free_place(self, user: int, count: int = 1) -> bool:
        """Whether a user may take so many more."""
        if self._within is not None and not self._within.has_free_place(user, count):
            return False
        if self._returned:
            self._count_returned()
        spare = self._spare if user in self._apart else 0
        before = max(0, self._taken.get(user, 0) - spare)
        after = self._taken.get(user, 0) + count - spare
        if after <= 0:
            return True
        if self._each and after > self._each:
            return False
        if not self._common:
            return True
        found = self._common - (self._taken_of_common - before)
        return after <= (found if user in self._apart else math.ceil(found * self._share))

    def to_end_for(self, user: int, pending: Iterable[tuple[T, int]]) -> T | None:
        """What is to end so that a user who has no free place may take one; None for nothing.

        Its own oldest, and another user's only where that user has more than its share.

        Args:
            pending: what may end, the oldest first, each with its user.
        """
        oldest: dict[int, T] = {}
        for each, whose in pending:
            oldest.setdefault(whose, each)
        for whose in sorted(oldest, key=lambda whose: whose != user):
            if whose == user or self._has_more_than_share(whose):
                self.give_back(whose)
                is_room = self.has_free_place(user)
                self.take(whose)
                if is_room:
                    return oldest[whose]
        return None

    def _has_more_than_share(self, user: int) -> bool:
        if self._common and self.of(user) > self.allowed(user):
            return True
        return self._within is not None and self._within._has_more_than_share(user)

    def take(self, user: int | None, count: int = 1) -> None:
        """Count places as taken, also beyond the limit; of None by the daemon itself."""
        self._change(user, count)
        if self._within is not None:
            self._within.take(user, count)

    def give_back(self, user: int | None, count: int = 1) -> None:
        """Count places as free again."""
        self._change(user, -count)
        if self._within is not None:
            self._within.give_back(user, count)

    def give_back_soon(self, user: int | None) -> None:
        """Count a place as free again when next the places are looked at; from any thread."""
        self._returned.append(user)
        if self._within is not None:
            self._within.give_back_soon(user)

    def _count_returned(self) -> None:
        while self._returned:
            self._change(self._returned.popleft(), -1)

    def _change(self, user: int | None, count: int) -> None:
        # Each object that comes or goes is counted here twice: no function is called.
        self._count += count
        before = self._taken.get(user, 0)
        after = before + count
        if after:
            self._taken[user] = after
        elif before:
            del self._taken[user]
        spare = self._spare if user in self._apart else 0
        of_common = (after if after > spare else spare) - (before if before > spare else spare)
        self._taken_of_common += of_common


class Account:
    """What the daemon keeps and opens for clients, counted for each user.

    What the daemon is told by its command line counts for nobody.

    Attributes:
        places: of each byte of what clients gave.
        descriptors: of what is kept open for them.
    """

    def __init__(self) -> None:
        self.places = Places(KEPT, KEPT_SHARE, KEPT_PER_USER, KEPT // 8)
        self.descriptors = Places()

    def charge(self, args: JSON, more: int = 0, descriptors: int = 0) -> Share:
        """Count something that a client's command makes of its arguments.

        Args:
            more: bytes that it takes besides.
            descriptors: that it keeps open, at most.

        Raises:
            QMPError: its user has too much.
        """
        return self.charge_bytes(ITEM + size_of(args) + more, USER.get(), descriptors)

    def charge_bytes(self, size: int, user: int | None, descriptors: int = 0) -> Share:
        """Count so many bytes, and descriptors, for a user.

        Raises:
            QMPError: they would be too many.
        """
        self.check(size, user)
        if descriptors:
            check_descriptors(self.descriptors, descriptors, user)
        share = Share(self, user, descriptors)
        share.set(size)
        return share

    def check(self, more: int, user: int | None) -> None:
        """Raise `QMPError` where a user may not have so many bytes more."""
        places = self.places
        if user is None or more <= 0 or places.has_free_place(user, more):
            return
        there, most, allowed = places.of(user), places.most(user), places.allowed(user)
        # Less than its own limit only because of others.
        beside = "" if allowed == most else f" beside the {places.taken - there} of others"
        raise QMPError(
            f"cannot keep {more} bytes more: {there} bytes are kept for {whom(user)},"
            f" {allowed} may be{beside}, see docs/limits.md"
        )


class Share:
    """What something takes of an account until it is no more.

    As a context manager it ends where the block fails.
    """

    __slots__ = ("_account", "_descriptors", "_size", "_user")

    def __init__(self, account: Account, user: int | None, descriptors: int = 0) -> None:
        self._account = account
        self._user = user
        self._size = 0
        self._descriptors = descriptors
        if descriptors:
            account.descriptors.take(user, descriptors)

    def __enter__(self) -> Share:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        if kind is not None:
            self.end()

    def resize(self, size: int) -> None:
        """It takes so many bytes from now on.

        Raises:
            QMPError: they are too many; nothing has changed.
        """
        self._account.check(size - self._size, self._user)
        self.set(size)

    def add(self, more: int) -> None:
        """It takes so many bytes more, or less; raises `QMPError` as `resize`."""
        self.resize(self._size + more)

    def set(self, size: int) -> None:
        """The same as `resize`, also beyond the limits."""
        if size != self._size:
            if self._user is not None:
                self._account.places.take(self._user, size - self._size)
            self._size = size

    def end(self) -> None:
        """It is no more, or could not be made; where it takes no bytes, from any thread."""
        self.set(0)
        if self._descriptors:
            for _ in range(self._descriptors):
                self._account.descriptors.give_back_soon(self._user)
            self._descriptors = 0


def check_descriptors(places: Places, more: int, user: int | None) -> None:
    """Raise `QMPError` where so many descriptors more may not be open for a user."""
    if user is None or places.has_free_place(user, more):
        return
    raise QMPError(
        f"Too many open files: {places.of(user)} descriptors are open for {whom(user)},"
        f" {places.taken} for all, see docs/limits.md"
    )


def operators() -> frozenset[int]:
    """The users who are to get in always: root, and the daemon's own."""
    return frozenset((0, os.geteuid()))


def current_user() -> int:
    """The user of `USER`; the daemon's own where it does something by itself."""
    user = USER.get()
    return os.geteuid() if user is None else user


def size_of(value: JSON) -> int:
    """The bytes that a value takes, roughly: those of texts, and `MEMBER` for each other item."""
    size, todo = 0, [value]
    while todo:
        each = todo.pop()
        if type(each) is str:
            size += each.__sizeof__()
        elif type(each) in (dict, list):
            size += MEMBER * len(each)
            todo += (*each, *each.values()) if type(each) is dict else each
    return size


def whom(user: int) -> str:
    """What errors call a user."""
    return "those without a user id" if user == ANYBODY else f"user {user}"
