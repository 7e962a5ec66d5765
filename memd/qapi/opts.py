"""Options written as `key=value`, in the way of qemu-system's `-object`.

Flat: a dotted key is a key like any other. A key that is given again makes a
list where the schema wants one, and otherwise replaces what was there before.
Integers of a list may be ranges ("0-3"). Texts, limits and orders were observed
on QEMU 10.0.2 (11.1.3 agrees).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from memd.errors import QMPError, bad_type
from memd.json_types import JSON, JSONObject
from memd.qapi.check import ObjectVisit, Visits
from memd.qapi.hash_order import first_unexpected
from memd.qapi.keyval import parsed
from memd.qapi.numbers import parse_int64, parse_size, parse_switch, parse_unsigned
from memd.qapi.types import AlternateType, ArrayType, BuiltinType, ObjectType, Type
from memd.qapi.visit import BUILTIN_VISITS, Visit, narrow_integers

_LONGEST_RANGE = 65536
"""The most integers that one range may stand for, as QEMU limits it."""


def check_opts(type_: ObjectType, options: Iterable[tuple[str, str]]) -> JSONObject:
    """Checks `key=value` options as `-object` of qemu-system does.

    Args:
        type_: such as that of "ObjectOptions".
        options: keys and values in the order written.

    Raises:
        QMPError: with the texts that QEMU has for such input.
    """
    given: dict[str, list[str]] = {}
    for key, value in options:
        given.setdefault(key, []).append(value)
    result: JSONObject = {}
    ObjectVisit(type_, _OptsVisits()).visit_members(given, "", result)
    left = first_unexpected(given, result)
    if left is not None:
        raise QMPError(f"Invalid parameter '{left}'")
    return result


def _last(texts: JSON, _path: str = "") -> str:
    """The text that counts of those that one key was given."""
    return str(texts[-1])


def _no_text(_texts: JSON, path: str) -> JSON:
    raise bad_type(path, "string")


def _range(kind: str, text: str, name: str) -> Iterable[int]:
    """The integers that `text` stands for: one, or FIRST-LAST."""
    parse, expected = _INTEGERS[kind.startswith("int")]
    one = parse(text)
    if one is not None:
        return (one,)
    # A sign may stand before the dash that divides the two.
    dash = text.find("-", 1)
    first = parse(text[:dash]) if dash > 0 else None
    last = parse(text[dash + 1 :]) if dash > 0 else None
    if first is None or last is None or not first <= last < first + _LONGEST_RANGE:
        raise QMPError(f"Parameter '{name}' expects {expected} or range")
    return range(first, last + 1)


_INTEGERS: dict[bool, tuple[Callable[[str], int | None], str]] = {
    # signed: reader, what the error says
    True: (parse_int64, "an int64 value"),
    False: (parse_unsigned, "a uint64 value"),
}

_int64 = parsed(*_INTEGERS[True], _last)
_uint64 = parsed(*_INTEGERS[False], _last)

_SCALARS: dict[str, Visit] = {
    "bool": parsed(parse_switch, "'on' or 'off'", _last),
    "size": parsed(parse_size, "a size value", _last),
    "int": _int64,
    "int64": _int64,
    "uint64": _uint64,
    **narrow_integers(_int64, _uint64),
}
"""The visit of each type of the language itself; a text stays one where there is none."""


class _OptsVisits(Visits):
    """Visits of the texts that one key was given, of which the last one counts."""

    scalars = _SCALARS
    string = staticmethod(_last)

    def array(self, type_: ArrayType) -> Visit:
        """The visit of an array: each text is an element, or a range of integers."""
        element = type_.element
        if isinstance(element, ObjectType) and len(element.members) == 1:
            # A text is the only member of a struct.
            member = element.members[0]
            only = self.of(member.type)
            return lambda texts, path: [{member.name: only([text], path)} for text in texts]
        if not (isinstance(element, BuiltinType) and element.json_type == "int"):
            item = self.of(element)
            return lambda texts, path: [item([text], path) for text in texts]
        # Each has 64 bits first; the narrower type is the ordinary visit's.
        narrow = BUILTIN_VISITS[element.name]

        def visit(texts: JSON, path: str) -> JSON:
            numbers = [number for text in texts for number in _range(element.name, text, path)]
            return [narrow(number, f"{path}[{i}]") for i, number in enumerate(numbers)]

        return visit

    def _make(self, type_: Type) -> Visit:
        return _no_text if isinstance(type_, AlternateType | ObjectType) else super()._make(type_)
