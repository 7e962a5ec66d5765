"""Options as `key=value,...` with dotted keys: the way of qemu-storage-daemon's `--object`.

A dot goes down a level ("limits.iops-total"), a level whose keys are all whole
numbers is an array ("host-nodes.0=1,host-nodes.1=3"), `,,` stands for a comma
in a value. Texts and their order were observed on qemu-storage-daemon 10.0.2.
"""

from __future__ import annotations

from typing import Any

from memd.errors import QMPError

HELP = ("help", "?")
"""The keys that ask what there is, written without a value."""

LONGEST_FRAGMENT = 127
"""Characters between two dots of a key; QEMU keeps a fragment in 128 bytes."""

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_DIGITS = frozenset("0123456789")
_NAME = _LETTERS | _DIGITS | frozenset("-_")
_PREFIX = _LETTERS | _DIGITS | frozenset(".-")


class Level(dict[str, Any]):
    """Where keys go that have the same beginning: an object, or an array to be."""

    __slots__ = ()


def parse_keyval(text: str, implied: str | None = None) -> tuple[dict[str, Any], bool]:
    """Take options apart.

    Args:
        text: the options.
        implied: the key of a first value that has none.

    Returns:
        The options, whose values are strings, objects and arrays; and whether
        help was asked for.

    Raises:
        QMPError: for a key that is none, one without a value, keys that
            contradict each other, and an array with a hole.
    """
    options = Level()
    wants_help = False
    position = 0
    while position < len(text):
        at, key_end = position, _span(text, position)
        written = text[at:key_end]
        has_value = text[key_end : key_end + 1] == "="
        if not has_value:
            if written in HELP:
                wants_help, implied = True, None
                position = key_end + 1
                continue
            if implied is not None and written:
                # The value ends at the comma, doubled or not.
                options[implied] = written
                implied = None
                position = key_end + 1
                continue
        implied = None
        where, last = _descend(options, written)
        if not has_value:
            raise QMPError(f"Expected '=' after parameter '{written}'")
        value, position = split_value(text, key_end + 1)
        if isinstance(where.get(last), Level):
            raise QMPError(f"Parameters '{written}.*' used inconsistently")
        where[last] = value
    # Not an array, whatever its keys are: they are parameters.
    return {key: _settle(value, key) for key, value in _in_order(options)}, wants_help


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


def dotted(key: str) -> bool:
    """Whether a key goes down a level, apart from a vendor's prefix."""
    return "." in key[_name_length(key) :]


def _span(text: str, start: int) -> int:
    end = start
    while end < len(text) and text[end] not in "=,":
        end += 1
    return end


def _descend(options: Level, key: str) -> tuple[Level, str]:
    """The level that a key's value goes to, and its name there; levels are made."""
    where = options
    start = 0
    last: str | None = None
    while True:
        length = _name_length(key[start:])
        if not length and last is not None:
            length = _digits_length(key[start:])
        end = start + length
        if not length or (end < len(key) and key[end] != "."):
            raise QMPError(f"Invalid parameter '{key}'")
        fragment = key[start:end]
        if length > LONGEST_FRAGMENT:
            what = "Parameter" if fragment == key else "Parameter fragment"
            raise QMPError(f"{what} '{fragment}' is too long")
        if last is not None:
            below = where.setdefault(last, Level())
            if not isinstance(below, Level):
                raise QMPError(f"Parameters '{key[: start - 1]}.*' used inconsistently")
            where = below
        last = fragment
        if end == len(key):
            return where, last
        start = end + 1


def _name_length(text: str) -> int:
    """How much of the beginning is a QAPI name, a vendor's `__PREFIX_` included; 0 for none."""
    start = 0
    if text.startswith("__"):
        start = 2
        while start < len(text) and text[start] in _PREFIX:
            start += 1
        if start == 2 or text[start : start + 1] != "_":
            return 0
        start += 1
    if text[start : start + 1] not in _LETTERS:
        return 0
    end = start
    while end < len(text) and text[end] in _NAME:
        end += 1
    return end


def _digits_length(text: str) -> int:
    end = 0
    while end < len(text) and text[end] in _DIGITS:
        end += 1
    return end


def _in_order(level: Level) -> list[tuple[str, Any]]:
    """A level's members in the order in which QEMU looks at them."""
    from memd.qapi.leftover import object_order

    return [(key, level[key]) for key in object_order(level)]


def _settle(value: Any, path: str) -> Any:
    """A level as the object or array that it is."""
    if not isinstance(value, Level):
        return value
    members = {key: _settle(below, f"{path}.{key}") for key, below in _in_order(value)}
    indices = [key for key in members if key[0] in _DIGITS]
    if not indices:
        return members
    if len(indices) < len(members):
        raise QMPError(f"Parameters '{path}.*' used inconsistently")
    # "0" and "00" are one element, and the last one in that order counts.
    elements = {_index(key): member for key, member in members.items()}
    for index in range(len(elements)):
        if index not in elements:
            raise QMPError(f"Parameter '{path}.{index}' missing")
    return [elements[index] for index in range(len(elements))]


def _index(digits: str) -> str | int:
    """An array index; an absurd one stays text, which no array has."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) < 19 else digits
