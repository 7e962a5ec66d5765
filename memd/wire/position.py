"""Where in a connection's input an error is: line and column, from 1.

Lines end at a line feed; a column is a byte, whatever the byte is (a tab and
each byte of a UTF-8 sequence count one). Observed on QEMU 11.1.3.
"""

from __future__ import annotations


class Position:
    """How far the input was read; one per connection."""

    __slots__ = ("column", "line")

    def __init__(self) -> None:
        self.line = 1
        self.column = 1

    def advance(self, data: bytes, start: int, end: int) -> None:
        """Move past `data[start:end]`."""
        newlines = data.count(b"\n", start, end)
        if newlines:
            self.line += newlines
            self.column = end - data.rindex(b"\n", start, end)
        else:
            self.column += end - start
