"""Checks of single values: the primitives that the argument checks are made of.

A `Visit` takes a JSON value and the full path of where it stands ("size",
"host-nodes[0]", "limits.iops-total") and returns the value as QEMU would hold
it, or raises `QMPError` with QEMU's text. All texts were observed on QEMU
10.0.2 and 11.1.3, which agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from memd.errors import QMPError, bad_type, not_accepted
from memd.json_types import JSON

Visit = Callable[[JSON, str], JSON]
"""(value, full path) -> the converted value; raises `QMPError`."""

INTEGERS = {
    **{f"int{bits}": (-1 << (bits - 1), (1 << (bits - 1)) - 1) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": (0, (1 << bits) - 1) for bits in (8, 16, 32, 64)},
}
"""The least and the largest number of each type of integers."""

INT64_MIN, INT64_MAX = INTEGERS["int64"]
UINT64_MAX = INTEGERS["uint64"][1]


def as_signed(number: int, bits: int) -> int:
    """The signed integer that the lower bits of a number are."""
    half = 1 << bits - 1
    return (number + half) % (2 * half) - half


def last_name(path: str) -> str:
    """The name that errors about enums, narrow integers and alternates give.

    QEMU names the member alone, without what it stands in, and has no name for
    an element of a list: that one reads 'null'.
    """
    tail = path.rpartition(".")[2]
    return "null" if tail.endswith("]") or tail.isdigit() or not tail else tail


def _visit_of(python_type: type, expected: str) -> Visit:
    """The visit of a type whose values JSON writes in one way."""

    def visit(value: JSON, path: str) -> JSON:
        if type(value) is not python_type:
            raise bad_type(path, expected)
        return value

    return visit


visit_bool = _visit_of(bool, "boolean")
visit_str = _visit_of(str, "string")
visit_null = _visit_of(type(None), "null")


def visit_any(value: JSON, path: str) -> JSON:
    """Any value at all."""
    return value


def visit_number(value: JSON, path: str) -> JSON:
    """A number, held as a double."""
    if type(value) is float:
        return value
    if type(value) is not int:
        raise bad_type(path, "number")
    return float(value)


def visit_int64(value: JSON, path: str) -> JSON:
    """QAPI's int: a signed integer of 64 bits; a double, even 1.0, is none."""
    if type(value) is not int or not INT64_MIN <= value <= INT64_MAX:
        raise bad_type(path, "integer")
    return value


def visit_uint64(value: JSON, path: str) -> JSON:
    """An unsigned integer of 64 bits; a negative one wraps around."""
    if type(value) is not int or not INT64_MIN <= value <= UINT64_MAX:
        raise QMPError(f"Parameter '{path}' expects uint64")
    return value if value >= 0 else value & UINT64_MAX


def narrow_integers(signed: Visit, unsigned: Visit) -> dict[str, Visit]:
    """The visit of each type of integers with fewer than 64 bits.

    Args:
        signed: that of those with 64.
        unsigned: the same.
    """
    return {
        name: _narrow(unsigned if name.startswith("u") else signed, name)
        for name in INTEGERS
        if not name.endswith("64")
    }


def _narrow(wide: Visit, name: str) -> Visit:
    """An integer that `wide` takes and that is one of a type as well."""
    low, high = INTEGERS[name]

    def visit(value: JSON, path: str) -> JSON:
        if type(value) is int and low <= value <= high:
            return value
        number = wide(value, path)
        if not low <= number <= high:
            raise QMPError(f"Parameter '{last_name(path)}' expects {name}_t")
        return number

    return visit


BUILTIN_VISITS: dict[str, Visit] = {
    "str": visit_str,
    "number": visit_number,
    "int": visit_int64,
    "int64": visit_int64,
    "uint64": visit_uint64,
    "size": visit_uint64,
    "bool": visit_bool,
    "null": visit_null,
    "any": visit_any,
    **narrow_integers(visit_int64, visit_uint64),
}
"""The visit of each type of the language itself; over QMP a size is a uint64."""

visit_size = BUILTIN_VISITS["size"]
visit_int32 = BUILTIN_VISITS["int32"]
visit_uint16 = BUILTIN_VISITS["uint16"]
visit_uint32 = BUILTIN_VISITS["uint32"]


def visit_enum(members: Iterable[str], string: Visit = visit_str) -> Visit:
    """One of `members`.

    Args:
        string: how the name itself is read.
    """
    names = frozenset(members)

    def visit(value: JSON, path: str) -> JSON:
        name = string(value, path)
        if name not in names:
            raise not_accepted(last_name(path), name)
        return name

    return visit


def visit_list(item: Visit) -> Visit:
    """An array whose elements are all `item`."""

    def visit(value: JSON, path: str) -> JSON:
        if type(value) is not list:
            raise bad_type(path, "array")
        try:
            # Paths are for errors only, and cost more than all the rest.
            return [item(element, "") for element in value]
        except QMPError:
            return [item(element, f"{path}[{index}]") for index, element in enumerate(value)]

    return visit
