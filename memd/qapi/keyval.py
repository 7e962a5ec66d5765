"""Options written as `key=value`, in the way of the human monitor's object_add.

Dotted keys nest ("limits.iops-total"), whole numbers between dots make arrays
("host-nodes.0"). Every value is text and becomes what the schema wants. Texts,
limits and orders were observed on QEMU 10.0.2 and 11.1.3, which agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from memd.errors import QMPError
from memd.json_types import JSON
from memd.qapi.check import ObjectVisit, Visits
from memd.qapi.leftover import object_order
from memd.qapi.numbers import parse_int64, parse_size, parse_switch, parse_uint64
from memd.qapi.schema import ArrayType, BuiltinType, EnumType, ObjectType, Type
from memd.qapi.visit import (
    INT64_MAX,
    UINT64_MAX,
    Visit,
    bad_type,
    narrow,
    visit_any,
    visit_enum,
    visit_null,
)

_LONGEST_FRAGMENT = 127
"""Characters between the dots of a key; QEMU keeps a fragment in 128 bytes."""


def check_keyval(type_: ObjectType, options: Mapping[str, JSON]) -> dict[str, JSON]:
    """Checks options against an object type; see `Schema.check_keyval`."""
    checked: dict[str, JSON] = ObjectVisit(type_, KeyvalVisits())(nest(options), "")
    return checked


def nest(options: Mapping[str, JSON]) -> dict[str, JSON]:
    """Turns dotted keys into objects and arrays.

    Raises:
        QMPError: for a key that is none, keys that contradict each other, and
            an array with a hole.
    """
    root: dict[str, JSON] = {}
    for key, value in options.items():
        _insert(root, key, value)
    for name in object_order(root):
        if isinstance(root[name], _Nest):
            root[name] = _listify(root[name], f"{name}.")
    return root


class _Nest(dict[str, JSON]):
    """What dotted keys with one beginning make: an object, or yet an array."""

    __slots__ = ()


def _insert(root: dict[str, JSON], key: str, value: JSON) -> None:
    """Puts a value where its key says, complaining of the leftmost mistake."""
    where = root
    path = ""
    last = ""
    rest = key
    while True:
        fragment = _fragment(rest, key)
        if last:
            path = f"{path}.{last}" if path else last
            inner = where.setdefault(last, _Nest())
            if not isinstance(inner, _Nest):
                raise QMPError(f"Parameters '{path}.*' used inconsistently")
            where = inner
        last = fragment
        if len(fragment) == len(rest):
            break
        rest = rest[len(fragment) + 1 :]
    if isinstance(where.get(last), _Nest):
        raise QMPError(f"Parameters '{key}.*' used inconsistently")
    where[last] = value


def _fragment(rest: str, key: str) -> str:
    """The first fragment of what is left of a key, up to a dot or its end.

    The dots of a vendor's prefix belong to the name. Any fragment but the first
    may be an index.
    """
    length = _name_length(rest)
    if not length and len(rest) < len(key):
        length = len(rest) - len(rest.lstrip("0123456789"))
    if not length or rest[length : length + 1] not in ("", "."):
        raise QMPError(f"Invalid parameter '{key}'")
    if length > _LONGEST_FRAGMENT:
        what = "Parameter" if length == len(key) else "Parameter fragment"
        raise QMPError(f"{what} '{rest[:length]}' is too long")
    return rest[:length]


def _name_length(text: str) -> int:
    """How much of the beginning is a name; 0 if nothing is."""
    start = 0
    if text.startswith("__"):
        start = text.find("_", 2) + 1
        prefix = text[2 : start - 1]
        if start < 4 or not all(c.isascii() and (c.isalnum() or c in ".-") for c in prefix):
            return 0
    end = start
    while end < len(text) and text[end].isascii() and (text[end].isalnum() or text[end] in "-_"):
        end += 1
    return end if end > start and text[start].isalpha() else 0


def _listify(nested: _Nest, prefix: str) -> JSON:
    """The array that an object is whose names are all indices, or the object."""
    for name in object_order(nested):
        if isinstance(nested[name], _Nest):
            nested[name] = _listify(nested[name], f"{prefix}{name}.")
    indices = [name for name in nested if name.isdigit()]
    if not indices:
        return dict(nested)
    if len(indices) < len(nested):
        raise QMPError(f"Parameters '{prefix}*' used inconsistently")
    elements = {int(name): value for name, value in nested.items()}
    for index in range(len(elements)):
        if index not in elements:
            raise QMPError(f"Parameter '{prefix}{index}' missing")
    return [elements[index] for index in range(len(elements))]


class KeyvalVisits(Visits):
    """Visits of values that are all text, of which objects and arrays consist."""

    __slots__ = ()

    def builtin(self, type_: BuiltinType) -> Visit:
        """The visit of one of the language's own types."""
        return _SCALARS[type_.name]

    def enum(self, type_: EnumType) -> Visit:
        """The visit of an enum."""
        return visit_enum((member.name for member in type_.members), _text)

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


def _text(value: JSON, path: str) -> str:
    if type(value) is not str:
        raise QMPError(f"Parameters '{path}.*' are unexpected")
    return value


def _parsed(parse: Callable[[str], JSON], expected: str) -> Visit:
    def visit(value: JSON, path: str) -> JSON:
        result = parse(_text(value, path))
        if result is None:
            raise QMPError(f"Parameter '{path}' expects {expected}")
        return result

    return visit


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


_int64 = _parsed(parse_int64, "integer")
_uint64 = _parsed(parse_uint64, "integer")

_SCALARS: dict[str, Visit] = {
    "str": _text,
    "number": _parsed(_number, "number"),
    "int": _int64,
    "int64": _int64,
    "uint64": _uint64,
    "size": _parsed(parse_size, "size"),
    "bool": _parsed(parse_switch, "'on' or 'off'"),
    "null": visit_null,
    "any": visit_any,
}
for _bits in (8, 16, 32):
    _half = INT64_MAX >> (64 - _bits)
    _SCALARS[f"int{_bits}"] = narrow(_int64, -_half - 1, _half, f"int{_bits}_t")
    _SCALARS[f"uint{_bits}"] = narrow(_uint64, 0, UINT64_MAX >> (64 - _bits), f"uint{_bits}_t")
