"""Bytes as text: sixteen in a line, as `hexdump -C` has them."""

from __future__ import annotations

from collections.abc import Iterator

WIDTH = 16

_SHOWN = bytes(byte if 0x20 <= byte < 0x7F else ord(".") for byte in range(256))


class Hexdump:
    """Makes lines of pieces that follow each other; equal lines are one `*`.

    Args:
        offset: of the first byte.
    """

    def __init__(self, offset: int) -> None:
        self._offset = offset
        self._rest = b""
        self._last = b""
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that are whole with these bytes."""
        data = self._rest + data
        end = len(data) - len(data) % WIDTH
        for at in range(0, end, WIDTH):
            row = data[at : at + WIDTH]
            if row == self._last:
                if not self._skipping:
                    self._skipping = True
                    yield "*"
            else:
                self._skipping = False
                self._last = row
                yield _line(self._offset, row)
            self._offset += WIDTH
        self._rest = data[end:]

    def finish(self) -> Iterator[str]:
        """The last line, and the offset behind it."""
        if self._rest:
            yield _line(self._offset, self._rest)
            self._offset += len(self._rest)
        yield f"{self._offset:08x}"


def _line(offset: int, row: bytes) -> str:
    half = WIDTH // 2
    digits = f"{row[:half].hex(' '):<23}  {row[half:].hex(' '):<23}"
    return f"{offset:08x}  {digits}  |{row.translate(_SHOWN).decode('ascii')}|"
