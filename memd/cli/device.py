"""`-device`: what is plugged into the machine before it starts.

    pc-dimm,id=d0,memdev=m0,slot=1
    {"driver": "pc-dimm", "id": "d0", "memdev": "m0", "slot": 1}

In the first spelling all values are text, and what a property makes of them is
its own affair; in the second they have their types. Texts and orders were
observed on QEMU 10.0.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from memd.cli.keyval import HELP
from memd.cli.opts import OptsList, Warn, parse_opts
from memd.cli.reading import Given
from memd.errors import QMPError
from memd.json_types import JSON

if TYPE_CHECKING:
    from memd.compat import Compat
    from memd.qom.types import ObjectType


DEVICE = OptsList("device", "driver", None)


class DeviceOption:
    """A `-device` that was given.

    Attributes:
        where: the option and its argument as given, for messages.
        is_json: whether values have their types; else they are text.
        options: what `device_add` would be given.
    """

    __slots__ = ("is_json", "options", "where")

    def __init__(self, where: str, is_json: bool, options: dict[str, JSON]) -> None:
        self.where = where
        self.is_json = is_json
        self.options = options

    def arguments(self, qom_type: ObjectType | None) -> dict[str, JSON]:
        """What `device_add` would be given, with values of their types.

        Args:
            qom_type: the device's class; None where there is no such class,
                and then values stay as they are.

        Raises:
            QMPError: a property can't take its text, or there is none of that name.
        """
        if self.is_json or qom_type is None:
            return self.options
        from memd.qapi.leftover import object_order

        typed: dict[str, JSON] = {}
        for name in object_order(self.options):
            text = self.options[name]
            if name in ("driver", "bus", "id"):
                typed[name] = text
                continue
            prop = qom_type.all_properties.get(name)
            if prop is None:
                raise QMPError(f"Property '{qom_type.name}.{name}' not found")
            typed[name] = _value(prop.type, name, text)
        return typed


def parse_device(given: Given, compat: Compat, ids: set[str], warn: Warn) -> DeviceOption:
    """Take `-device` apart.

    Args:
        given: the option.
        compat: whose JSON.
        ids: those of earlier devices in QEMU's spelling; this one's is added.
        warn: told of keys without a value.

    Raises:
        QMPError: it can't be read.
        HelpWanted: it asks what there is.
    """
    text = given.value
    if text.startswith("{"):
        from memd.cli.json_argument import parse_json_argument

        options = parse_json_argument(text, compat)
        if type(options.get("driver")) is not str:
            raise QMPError("Parameter 'driver' is missing")
        return DeviceOption(given.where, True, options)
    opts = parse_opts(DEVICE, text, None, ids)
    name = opts.get("driver")
    if name in HELP:
        raise HelpWanted(None)
    if name is not None and any(opts.has(key) for key in HELP):
        raise HelpWanted(name)
    opts = parse_opts(DEVICE, text, warn, ids)
    if name is None:
        raise QMPError("Parameter 'driver' is missing")
    if opts.id is not None:
        ids.add(opts.id)
    options = dict(opts.pairs)
    if opts.id is not None:
        options["id"] = opts.id
    return DeviceOption(given.where, False, options)


class HelpWanted(Exception):
    """A `-device` that asks what there is.

    Args:
        driver: the class that it is about, or None for the classes.
    """

    def __init__(self, driver: str | None) -> None:
        super().__init__(driver)
        self.driver = driver


_RANGES = {
    # The type of a property, its limits, and what the error calls it.
    "int32": (-(1 << 31), (1 << 31) - 1, "int32_t"),
    "uint8": (0, (1 << 8) - 1, "uint8_t"),
    "uint16": (0, (1 << 16) - 1, "uint16_t"),
    "uint32": (0, (1 << 32) - 1, "uint32_t"),
}


def _value(kind: str, name: str, text: str) -> JSON:
    """A property's value from its text."""
    from memd.qapi import numbers

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
