"""Options as they are written, `key=value,...`: their text as keys and values.

A comma in a value is written twice. What keys and values mean is not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_key = re.compile("[^=,]*")


def pairs(text: str, implied: str | None = None) -> Iterator[tuple[str, str | None]]:
    """Each key with its value; None where it has none.

    Args:
        text: the options.
        implied: the key of a first value that has none.
    """
    position = 0
    while position < len(text):
        key, position = key_at(text, position)
        value = None
        if text[position : position + 1] == "=":
            value, position = split_value(text, position + 1)
        elif implied is not None:
            key, (value, position) = implied, split_value(text, position - len(key))
        else:
            position += 1
        implied = None
        yield key, value


def key_at(text: str, start: int) -> tuple[str, int]:
    """The key that begins at `start`, and where it ends: at "=", a comma or the text's end."""
    found = _key.match(text, start)
    assert found is not None
    return found[0], found.end()


def split_value(text: str, start: int) -> tuple[str, int]:
    """The value that begins at `start`, and where the text goes on after its comma."""
    parts = []
    while True:
        comma = text.find(",", start)
        if comma < 0:
            parts.append(text[start:])
            return ",".join(parts), len(text)
        parts.append(text[start:comma])
        start = comma + 1
        if text[start : start + 1] != ",":
            return ",".join(parts), start
        start += 1
