"""Users and groups on command lines: who may connect."""

from __future__ import annotations

import os
from collections.abc import Iterable

from memd.config import Allowed
from memd.errors import QMPError

_LARGEST_ID = (1 << 32) - 2
"""The largest id of a user or group; the one above it means none (chown(2))."""


def allowed(users: Iterable[int], groups: Iterable[int]) -> Allowed:
    """Who may connect, where that is told.

    Root and memd's own user always may: they can read its memory and end it,
    whatever is asked of it.
    """
    return Allowed(frozenset((*users, 0, os.geteuid())), frozenset(groups))


def id_of(kind: str, text: str) -> int:
    """The id of a "user" or a "group" that is named or numbered; raises `QMPError`."""
    import grp
    import pwd

    if text.isascii() and text.isdigit():
        if len(text) > 10 or int(text) > _LARGEST_ID:
            raise QMPError(f"'{text}' is not the number of a user or group")
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid if kind == "user" else grp.getgrnam(text).gr_gid
    except (KeyError, ValueError):
        raise QMPError(f"there is no {kind} '{text}'") from None
