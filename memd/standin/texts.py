"""What registers keep of the texts that clients gave them, counted for all of them together."""

from __future__ import annotations

from collections.abc import Callable

from memd.errors import QMPError
from memd.json_types import JSON

MOST = 64 << 20
"""Bytes of texts that devices, character devices and network backends may keep."""


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
    """Bytes that the texts in a value take, its members' names excepted."""
    size, todo = 0, [value]
    while todo:
        each = todo.pop()
        if type(each) is str:
            size += each.__sizeof__()
        elif type(each) is dict:
            todo += each.values()
        elif type(each) is list:
            todo += each
    return size
