"""The names under which descriptors are in a service manager's store.

Short, as all of them are passed in one variable of the environment.
"""

from __future__ import annotations

import os
import stat

LIST = "memd-list"
"""That of the list of what there is."""

_PREFIX = "memd-"
_HEX = frozenset("0123456789abcdef")


def name_of(number: int) -> str:
    """The name for an object's memory."""
    return f"{_PREFIX}{number:x}"


def number_of(name: str) -> int:
    """The number that such a name holds."""
    return int(name.removeprefix(_PREFIX), 16)


def is_stored(name: str, fd: int) -> bool:
    """Whether a descriptor that was passed is out of the store, and no socket to be served.

    Args:
        name: the one that it was passed with; a socket's may look like any.
    """
    digits = name.removeprefix(_PREFIX)
    if name != LIST and (digits == name or not digits or not _HEX.issuperset(digits)):
        return False
    try:
        return not stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False
