"""Options written as `key=value`, in the way of the human monitor's object_add.

Dotted keys nest ("limits.iops-total"), whole numbers between dots make arrays
("host-nodes.0"). Every value is text and becomes what the schema wants. Texts,
limits and orders were observed on QEMU 10.0.2 and 11.1.3, which agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from memd.errors import QMPError, bad_type
from memd.json_types import JSON, JSONObject
from memd.qapi.check import ObjectVisit, Visits
from memd.qapi.dotted_keys import Nest, descend, members, put
from memd.qapi.numbers import parse_int64, parse_size, parse_switch, parse_uint64
from memd.qapi.types import ArrayType, ObjectType, Type
from memd.qapi.visit import Visit, narrow_integers, visit_any, visit_null


def check_keyval(type_: ObjectType, options: Mapping[str, JSON]) -> JSONObject:
    """Checks `key=value` options as the human monitor's object_add does.

    Args:
        type_: such as that of "ObjectOptions".
        options: the options in the order written; nested ones by their dotted keys
            ("host-nodes.0") or as objects and arrays already.

    Returns:
        The options with the types that the schema wants.

    Raises:
        QMPError: with the texts that QEMU has for such input.
    """
    checked: JSONObject = ObjectVisit(type_, KeyvalVisits())(nest(options), "")
    return checked


def nest(options: Mapping[str, JSON]) -> JSONObject:
    """Turns dotted keys into objects and arrays.

    Raises:
        QMPError: for a key that is none, keys that contradict each other, and
            an array with a hole.
    """
    root = Nest()
    for key, value in options.items():
        put(*descend(root, key), value, key)
    return members(root)


def visit_text(value: JSON, path: str) -> str:
    """A string."""
    if type(value) is not str:
        raise QMPError(f"Parameters '{path}.*' are unexpected")
    return value


def parsed(
    parse: Callable[[str], JSON], expected: str, text: Callable[[JSON, str], str] = visit_text
) -> Visit:
    """The visit of a value that is written as text.

    Args:
        parse: gives the value, or None for a text that is none.
        expected: what the error calls it.
        text: gives the text.
    """

    def visit(value: JSON, path: str) -> JSON:
        result = parse(text(value, path))
        if result is None:
            raise QMPError(f"Parameter '{path}' expects {expected}")
        return result

    return visit


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


_int64 = parsed(parse_int64, "integer")
_uint64 = parsed(parse_uint64, "integer")

SCALARS: dict[str, Visit] = {
    "str": visit_text,
    "number": parsed(_number, "number"),
    "int": _int64,
    "int64": _int64,
    "uint64": _uint64,
    "size": parsed(parse_size, "size"),
    "bool": parsed(parse_switch, "'on' or 'off'"),
    "null": visit_null,
    "any": visit_any,
    **narrow_integers(_int64, _uint64),
}
"""The visit of each type of the language itself, by its name."""


def typed(members: JSONObject, kinds: Mapping[str, str], above: str) -> JSONObject:
    """Members whose values are text, with those of their types; unknown ones stay as they are.

    Args:
        kinds: the names of their types.
        above: what they are members of.

    Raises:
        QMPError: one is not of its type.
    """
    return {
        name: SCALARS[kinds[name]](text, f"{above}.{name}") if name in kinds else text
        for name, text in members.items()
    }


class KeyvalVisits(Visits):
    """Visits of values that are all text, of which objects and arrays consist."""

    scalars = SCALARS
    string = staticmethod(visit_text)

    def array(self, type_: ArrayType) -> Visit:
        """The visit of an array, whose elements' paths are spelled with dots."""
        item = self.of(type_.element)

        def visit(value: JSON, path: str) -> JSON:
            if type(value) is not list:
                raise bad_type(path, "array")
            return [item(element, f"{path}.{index}") for index, element in enumerate(value)]

        return visit

    def python_types(self, type_: Type) -> tuple[type, ...]:
        """How the values of an alternate's alternative arrive."""
        if isinstance(type_, ObjectType | ArrayType):
            return super().python_types(type_)
        return (str,)
