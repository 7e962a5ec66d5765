"""Limits of what registers keep: how many of each kind, and bytes of what clients gave for them."""

from __future__ import annotations

from collections.abc import Callable

from memd.errors import QMPError
from memd.json_types import JSON

MOST = 64 << 20
"""Bytes of texts that devices, character devices and network backends may keep."""

_ITEM = 192
"""Bytes that an item of a list, or a member, takes beside its text."""


def check_count(count: int, what: str, most: int = 1024) -> None:
    """Raise `QMPError` where clients may not add one more.

    Args:
        count: how many there are.
        what: they are.
        most: how many there may be.
    """
    if count >= most:
        raise QMPError(f"there are {most} {what}, and may be no more")


class Texts:
    """Counts the bytes that are kept.

    What is gone is looked for only where there seem to be too many.
    """

    def __init__(self) -> None:
        self._kept: list[Callable[[], int]] = []
        # At least as many as there are.
        self._used = 0

    def count(self, kept: Callable[[], int]) -> None:
        """Have those of a register counted: `kept` tells how many it has."""
        self._kept.append(kept)

    def take(self, args: JSON) -> int:
        """Count the arguments of what is being made; gives the bytes that their texts take.

        Raises:
            QMPError: they would be too many.
        """
        size = size_of(args)
        if self._used + size > MOST:
            self._used = sum(kept() for kept in self._kept)
            if self._used + size > MOST:
                raise QMPError(
                    f"{self._used} bytes of texts are kept, {MOST} may be, see docs/limits.md"
                )
        self._used += size
        return size


def size_of(value: JSON) -> int:
    """Bytes that a value takes, roughly."""
    size, todo = 0, [value]
    while todo:
        each = todo.pop()
        if type(each) is str:
            size += each.__sizeof__()
        elif type(each) in (dict, list):
            size += _ITEM * len(each)
            todo += (*each, *each.values()) if type(each) is dict else each
    return size
