"""Users and groups on command lines: who may connect."""

from __future__ import annotations

import os
from collections.abc import Iterable

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
    number = _number(text)
    if number is not None:
        return number
    import pwd

    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):
        raise QMPError(f"there is no user '{text}'") from None


def group_id(text: str) -> int:
    """The id of a group that is named or numbered; raises `QMPError`."""
    number = _number(text)
    if number is not None:
        return number
    import grp

    try:
        return grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        raise QMPError(f"there is no group '{text}'") from None


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    number = int(text) if len(text) < 11 else _LARGEST_ID + 1
    if number > _LARGEST_ID:
        raise QMPError(f"'{text}' is not the number of a user or group")
    return number
