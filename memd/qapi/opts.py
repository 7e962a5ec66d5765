"""Options written as `key=value`, in the way of qemu-system's `-object`.

Flat: a dotted key is a key like any other. A key that is given again makes a
list where the schema wants one, and otherwise replaces what was there before.
Integers of a list may be ranges ("0-3"). Texts, limits and orders were observed
on QEMU 10.0.2 (11.1.3 agrees).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.qapi.check import Visits
from memd.qapi.hash_order import first_unexpected
from memd.qapi.numbers import parse_int64, parse_size, parse_switch, parse_unsigned
from memd.qapi.types import ArrayType, BuiltinType, EnumType, Member, ObjectType, Type
from memd.qapi.visit import bad_type, missing, visit_enum

_LONGEST_RANGE = 65536
"""The most integers that one range may stand for, as QEMU limits it."""

_INTEGERS: dict[bool, tuple[Callable[[str], int | None], str]] = {
    # signed: reader, what the error says
    True: (parse_int64, "an int64 value"),
    False: (parse_unsigned, "a uint64 value"),
}


def check_opts(type_: ObjectType, options: Iterable[tuple[str, str]]) -> JSONObject:
    """Checks options against an object type; see `Schema.check_opts`."""
    given: dict[str, list[str]] = {}
    for key, value in options:
        given.setdefault(key, []).append(value)
    result: JSONObject = {}
    _visit_members(type_, given, result)
    left = first_unexpected(given, result)
    if left is not None:
        raise QMPError(f"Invalid parameter '{left}'")
    return result


def _visit_members(type_: ObjectType, given: dict[str, list[str]], result: JSONObject) -> None:
    for member in type_.members:
        if member.name in given:
            result[member.name] = _value(member, given[member.name])
        elif not member.optional:
            raise missing(member.name)
    if type_.tag is not None:
        branch = type_.branches.get(result[type_.tag.name])
        if branch is not None:
            _visit_members(branch, given, result)


def _value(member: Member, texts: list[str]) -> JSON:
    if not isinstance(member.type, ArrayType):
        return _scalar(member.type, texts[-1], member.name)
    element = member.type.element
    if not (isinstance(element, BuiltinType) and element.json_type == "int"):
        return [_scalar(element, text, member.name) for text in texts]
    numbers = [number for text in texts for number in _range(element, text, member.name)]
    if element.name in ("int", "int64", "uint64", "size"):
        return numbers
    # Each has its 64 bits by now; the narrower type is the ordinary visit's.
    narrow = Visits().of(element)
    return [narrow(number, f"{member.name}[{i}]") for i, number in enumerate(numbers)]


def _range(element: BuiltinType, text: str, name: str) -> Iterable[int]:
    """The integers that `text` stands for: one, or FIRST-LAST."""
    parse, expected = _INTEGERS[element.name.startswith("int")]
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


def _scalar(type_: Type, text: str, name: str) -> JSON:
    if isinstance(type_, EnumType):
        return visit_enum(member.name for member in type_.members)(text, name)
    if not isinstance(type_, BuiltinType):
        raise bad_type(name, "string")
    value: JSON = text
    expected = ""
    if type_.name == "bool":
        value, expected = parse_switch(text), "'on' or 'off'"
    elif type_.name == "size":
        value, expected = parse_size(text), "a size value"
    elif type_.json_type == "int":
        parse, expected = _INTEGERS[type_.name.startswith("int")]
        value = parse(text)
        if value is not None:
            return Visits().of(type_)(value, name)
    if value is None:
        raise QMPError(f"Parameter '{name}' expects {expected}")
    return value
