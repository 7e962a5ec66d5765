"""Users and groups on command lines: who may connect."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from memd.config import Allowed
from memd.errors import QMPError

_LARGEST_ID = (1 << 32) - 2
"""The largest id of a user or group; the one above it means none (chown(2))."""


def allowed(users: Iterable[str], groups: Iterable[str]) -> Allowed | None:
    """Who may connect, by name or number; None where nothing was said.

    Root and memd's own user always may: they can read its memory and end it,
    whatever is asked of it.

    Raises:
        QMPError: there is no such user or group.
    """
    user_ids = frozenset(user_id(user) for user in users)
    group_ids = frozenset(group_id(group) for group in groups)
    if not user_ids and not group_ids:
        return None
    return Allowed(user_ids | {0, os.geteuid()}, group_ids)


def user_id(text: str) -> int:
    """The id of a user that is named or numbered; raises `QMPError`."""
    import pwd

    return _id("user", text, lambda: pwd.getpwnam(text).pw_uid)


def group_id(text: str) -> int:
    """The id of a group that is named or numbered; raises `QMPError`."""
    import grp

    return _id("group", text, lambda: grp.getgrnam(text).gr_gid)


def _id(kind: str, text: str, find: Callable[[], int]) -> int:
    number = _number(text)
    try:
        return find() if number is None else number
    except (KeyError, ValueError):
        raise QMPError(f"there is no {kind} '{text}'") from None


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    number = int(text) if len(text) < 11 else _LARGEST_ID + 1
    if number > _LARGEST_ID:
        raise QMPError(f"'{text}' is not the number of a user or group")
    return number
