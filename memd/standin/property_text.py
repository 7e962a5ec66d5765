"""Values of devices' properties that are written as text: `-global`, `-cpu MODEL,…`.

Texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from memd.config import Global
from memd.errors import QMPError
from memd.json_types import JSON
from memd.qapi.keyval import parsed
from memd.qapi.numbers import option_size, parse_int64, parse_switch, parse_uint64
from memd.qapi.visit import narrow_integers
from memd.qom import ObjectType
from memd.qom.object import not_found

_int64, _uint64 = parsed(parse_int64, "int64"), parsed(parse_uint64, "uint64")
VISITS = {
    "bool": parsed(parse_switch, "'on' or 'off'"),
    **dict.fromkeys(("int", "int64"), _int64),
    "uint64": _uint64,
    "size": option_size,
    **narrow_integers(_int64, _uint64),
}
"""How the text of a property is read, by its type; others are taken as they are."""


def read_global(kind: ObjectType, given: Global) -> JSON:
    """The value of a device's property.

    Args:
        kind: the device's type.
        given: the property and its text.

    Raises:
        QMPError: there is no such property, or it can't have that value.
    """
    name = given.property
    try:
        told = kind.all_properties.get(name)
        if told is None:
            raise not_found(kind, name)
        visit = VISITS.get(told.type)
        return given.value if visit is None else visit(given.value, name)
    except QMPError as error:
        raise refused(given, error) from None


def refused(given: Global, error: QMPError) -> QMPError:
    """The error for a value that a property can't have, from the property's own."""
    driver, name, value = given
    told = f"can't apply global {driver}.{name}={value}: {error.desc}"
    return QMPError(told, hint=error.hint)
