"""What `device_add` is given for a `-device`: texts become values of their types."""

from __future__ import annotations

from collections.abc import Callable

from memd.config import DeviceOption
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.qapi import numbers
from memd.qapi.hash_order import object_order
from memd.qom.types import ObjectType


def arguments(device: DeviceOption, qom_type: ObjectType | None) -> JSONObject:
    """What `device_add` would be given, with values of their types.

    Args:
        qom_type: the device's class; None where there is no such class,
            and then values stay as they are.

    Raises:
        QMPError: a property can't take its text, or there is none of that name.
    """
    if device.is_json or qom_type is None:
        return device.options
    typed: JSONObject = {}
    for name in object_order(device.options):
        text = device.options[name]
        if name in ("driver", "bus", "id"):
            typed[name] = text
            continue
        prop = qom_type.all_properties.get(name)
        if prop is None:
            raise QMPError(f"Property '{qom_type.name}.{name}' not found")
        typed[name] = value_of(prop.type, name, text)
    return typed


_RANGES = {
    # The type of a property, its limits, and what the error calls it.
    "int32": (-(1 << 31), (1 << 31) - 1, "int32_t"),
    "uint8": (0, (1 << 8) - 1, "uint8_t"),
    "uint16": (0, (1 << 16) - 1, "uint16_t"),
    "uint32": (0, (1 << 32) - 1, "uint32_t"),
}


def value_of(kind: str, name: str, text: str) -> JSON:
    """A property's value from its text."""
    readers: dict[str, tuple[Callable[[str], JSON | None], str]] = {
        "bool": (numbers.parse_switch, "'on' or 'off'"),
        "int": (numbers.parse_size, "size"),
        "size": (numbers.parse_size, "size"),
        "int64": (numbers.parse_int64, "integer"),
        "uint64": (numbers.parse_uint64, "integer"),
    }
    limits = _RANGES.get(kind)
    reader, expected = readers.get(kind, (numbers.parse_int64, "integer"))
    if kind not in readers and limits is None:
        return text
    value = reader(text)
    if value is None:
        raise QMPError(f"Parameter '{name}' expects {expected}")
    if limits is not None and not limits[0] <= value <= limits[1]:
        raise QMPError(f"Parameter '{name}' expects {limits[2]}")
    return value
