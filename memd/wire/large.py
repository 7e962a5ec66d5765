"""Messages that take much: told apart, so that they can be counted and bounded."""

from __future__ import annotations

from memd.json_types import JSON

TOKEN_COST = 192
"""Bytes that a token is counted as beyond its own text: a list or a dictionary takes some
100, and whatever there are of these the garbage collector has to go through."""

LARGE = 256 << 10
"""Bytes that a message takes in memory, from which on it is told apart."""


class Large:
    """A message that takes more than `LARGE`.

    Attributes:
        value: it.
        size: bytes of its tokens.
        held: bytes that it takes of memory, roughly.
    """

    __slots__ = ("held", "size", "value")

    def __init__(self, value: JSON, size: int, held: int) -> None:
        self.value = value
        self.size = size
        self.held = held
