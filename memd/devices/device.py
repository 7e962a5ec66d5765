"""The properties of devices, and of what devices have in common.

Names, types, defaults and texts were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from memd.backends.base import MemoryBackend
from memd.compat import Compat
from memd.devices.machine import Device
from memd.errors import QMPError, device_not_found
from memd.json_types import JSON
from memd.qapi.visit import (
    BUILTIN_VISITS,
    Visit,
    visit_enum,
)
from memd.qom import OBJECT, LinkProperty, ObjectType, Property, QObject, Tree
from memd.work import Event

Row = tuple[str, str, JSON] | tuple[str, str, JSON, str]
"""A property that is only stored: name, type, default and, unless its type tells,
description."""

VISITS: dict[str, Visit] = {
    **BUILTIN_VISITS,
    "OnOffAuto": visit_enum(("auto", "on", "off")),
    "PCIELinkSpeed": visit_enum(("2_5", "5", "8", "16", "32", "64")),
    "PCIELinkWidth": visit_enum(("1", "2", "4", "8", "12", "16", "32")),
}
"""The check of each type of device properties."""

DESCRIPTIONS = {
    "bool": "on/off",
    "OnOffAuto": "on/off/auto",
    "PCIELinkSpeed": "2_5/5/8/16/32/64",
    "PCIELinkWidth": "1/2/4/8/12/16/32",
}
"""What is told of properties of a type, unless they have a description."""


def settable_properties(tree: Tree, driver: str) -> list[Property]:
    """The properties of a type of devices that can be set when one is made.

    Raises:
        QMPError: there is no such type, or no device is of it.
    """
    found = tree.type_by_name(driver)
    if found is None:
        raise device_not_found(driver)
    if not found.is_a("device") or found.abstract:
        raise QMPError("Parameter 'typename' expects a non-abstract device type")
    common = tree.types()["device"].all_properties
    # Those of 10.0 that begin so are other spellings.
    legacy = () if tree.compat is not Compat.V10_0 else ("legacy-",)
    return [
        prop
        for name, prop in found.all_properties.items()
        if name not in common and not name.startswith(legacy)
    ]


def deleted(device: Device, path: str) -> Event:
    """The event that tells that a device is gone."""
    data = {"path": path}
    if device.id is not None:
        data["device"] = device.id
    return Event("DEVICE_DELETED", data)


def attempt(device: Device, what: str, name: str) -> QMPError:
    """The error for a property that can't be set any more."""
    kind = device.part_with(name)
    # A part of a device has no id.
    id = device.id if kind == device.qom_type.name else None
    if what == "link property":
        who = f"device '{'(null)' if id is None else id}'"
    else:
        who = "anonymous device" if id is None else f"device '{id}'"
    return QMPError(
        f"Attempt to set {what} '{name}' on {who} (type '{kind}') after it was realized"
    )


def switches(values: dict[str, bool]) -> tuple[Row, ...]:
    """The rows of properties that are on or off, from their defaults."""
    return tuple((name, "bool", value) for name, value in values.items())


Take = Callable[[Any, Any], None]
"""Is told a device and the value that its property is to have; it may refuse."""


def stored(row: Row, take: Take | None = None) -> Property:
    """A property that is kept, and can be set until the device is real."""
    name, type, default = row[:3]
    found = kept(name, type, default, VISITS[type], take)
    # That a text is empty at the start is not told.
    found.default = None if type == "str" else default
    found.description = row[3] if len(row) == 4 else DESCRIPTIONS.get(type)
    return found


def kept(name: str, type: str, default: JSON, visit: Visit, take: Take | None = None) -> Property:
    """The same, of which neither default nor description is told."""

    def setter(device: Device, value: JSON) -> None:
        if take is not None:
            take(device, value)
        device.values[name] = value

    return Property(
        name,
        type,
        visit=visit,
        guard=unless_realized(name),
        get=lambda device: device.values.get(name, default),
        set=setter,
    )


def unless_realized(name: str) -> Callable[[Device], None]:
    """The guard of a property that can't be set any more once the device is real."""

    def guard(device: Device) -> None:
        if device.realized:
            raise attempt(device, "property", name)

    return guard


def peripherals(tree: Tree) -> Iterator[QObject]:
    """The devices that clients have plugged into the machine."""
    for end in ("", "-anon"):
        yield from tree.resolve(f"/machine/peripheral{end}").children.values()


def memdev_property() -> LinkProperty:
    """The backend of a device, which has it as `memdev`."""

    def set_link(device: Any, target: QObject | None) -> None:
        # The path is looked up first.
        if device.realized:
            raise attempt(device, "link property", "memdev")
        device.memdev = target if isinstance(target, MemoryBackend) else None

    return LinkProperty(
        "memdev", "memory-backend", follow=lambda device: device.memdev, set=set_link
    )


def need_memdev(device: Any) -> MemoryBackend:
    """The backend of a device; raises `QMPError` where it has none."""
    memdev = device.memdev
    # It may have been deleted in between.
    if isinstance(memdev, MemoryBackend) and memdev.region is not None:
        return memdev
    raise QMPError("'memdev' property must be set")


def alignment(memdev: MemoryBackend) -> int:
    """The alignment of the address of a backend's memory, in bytes."""
    return 1 if memdev.region is None else memdev.region.spec.align


def is_rom(memdev: MemoryBackend) -> bool:
    """Whether a backend's memory can't be written."""
    return memdev.region is not None and not memdev.region.writable


def _set_realized(device: Device, value: bool) -> None:
    if device.realized and not value:
        raise QMPError(
            f"Property '{device.qom_type.name}.realized' can't be turned off: use device_del"
        )


DEVICE = ObjectType(
    "device",
    OBJECT,
    abstract=True,
    interfaces=("resettable", "vmstate-if"),
    properties=(
        LinkProperty("parent_bus", "bus", follow=lambda device: device.bus),
        Property(
            "realized",
            "bool",
            get=lambda device: device.realized,
            set=_set_realized,
        ),
        Property("hotplugged", "bool", get=lambda device: device.hotplugged),
        Property("hotpluggable", "bool", get=lambda device: device.hotpluggable),
    ),
)
