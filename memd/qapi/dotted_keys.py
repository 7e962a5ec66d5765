"""Keys with dots: how options that are written flat are nested.

A dot goes down a level ("limits.iops-total"), a level whose keys are all whole
numbers is an array ("host-nodes.0", "host-nodes.1"). Texts, limits and orders were
observed on QEMU 10.0.2 and 11.1.3, which agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.qapi.hash_order import object_order

_LONGEST_FRAGMENT = 127
"""Characters between two dots of a key; QEMU keeps a fragment in 128 bytes."""

_NAME = r"(?:__[A-Za-z0-9.-]+_)?[A-Za-z][A-Za-z0-9_-]*"
"""A QAPI name, a vendor's `__PREFIX_` included."""

_DIGITS = "[0-9]+"


class Nest(JSONObject):
    """Where keys go that have the same beginning: an object, or an array to be."""


def descend(root: Nest, key: str) -> tuple[Nest, str]:
    """The level that a key's value goes to, and its name there; levels are made.

    Raises:
        QMPError: for a key that is none, and keys that contradict each other.
    """
    where = root
    start = 0
    last: str | None = None
    while True:
        found = re.compile(_NAME).match(key, start)
        if found is None and last is not None:
            found = re.compile(_DIGITS).match(key, start)
        if found is None or key[found.end() : found.end() + 1] not in ("", "."):
            raise QMPError(f"Invalid parameter '{key}'")
        fragment, end = found[0], found.end()
        if len(fragment) > _LONGEST_FRAGMENT:
            what = "Parameter" if fragment == key else "Parameter fragment"
            raise QMPError(f"{what} '{fragment}' is too long")
        if last is not None:
            below = where.setdefault(last, Nest())
            if not isinstance(below, Nest):
                raise QMPError(f"Parameters '{key[: start - 1]}.*' used inconsistently")
            where = below
        last = fragment
        if end == len(key):
            return where, last
        start = end + 1


def put(where: Nest, last: str, value: JSON, key: str) -> None:
    """Put a value where `descend` has led; raises `QMPError` where others are below."""
    if isinstance(where.get(last), Nest):
        raise QMPError(f"Parameters '{key}.*' used inconsistently")
    where[last] = value


def dotted(key: str) -> bool:
    """Whether a key goes down a level, apart from a vendor's prefix."""
    name = re.match(_NAME, key)
    return key.find(".", name.end() if name else 0) >= 0


Order = Callable[[Iterable[str]], Iterable[str]]


def members(root: Nest, order: Order = iter) -> JSONObject:
    """The object that the keys stand for.

    The root is not an array, whatever its keys are: they are parameters.

    Args:
        order: in which the members of an object are to be.

    Raises:
        QMPError: for an array with a hole, and one with a name in it.
    """
    whole = {key: _whole(root[key], key, order) for key in object_order(root)}
    return {key: whole[key] for key in order(root)}


def _whole(value: JSON, path: str, order: Order) -> JSON:
    """A level as the object or array that it is."""
    if not isinstance(value, Nest):
        return value
    inner = {key: _whole(value[key], f"{path}.{key}", order) for key in object_order(value)}
    indices = [key for key in inner if re.match(_DIGITS, key)]
    if not indices:
        return {key: inner[key] for key in order(value)}
    if len(indices) < len(inner):
        raise QMPError(f"Parameters '{path}.*' used inconsistently")
    # "0" and "00" are one element, and the last one in that order counts.
    elements = {_index(key): member for key, member in inner.items()}
    for index in range(len(elements)):
        if index not in elements:
            raise QMPError(f"Parameter '{path}.{index}' missing")
    return [elements[index] for index in range(len(elements))]


def _index(digits: str) -> str | int:
    """An array index; an absurd one stays text, which no array has."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) < 19 else digits
