"""`device`: what all devices have in common, and what memory devices have.

Names, types, defaults and texts were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from memd.backends.base import MemoryBackend
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.qapi.visit import (
    BUILTIN_VISITS,
    Visit,
    visit_bool,
    visit_enum,
)
from memd.qom import (
    INTERFACE,
    OBJECT,
    LinkProperty,
    MemoryRegion,
    ObjectType,
    Property,
    QObject,
    Tree,
)
from memd.work import Command, Event

if TYPE_CHECKING:
    from memd.config import MachineConfig
    from memd.devices.area import Area
    from memd.devices.bus import Buses
    from memd.devices.guest import Guest

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

_DESCRIPTIONS = {
    "bool": "on/off",
    "OnOffAuto": "on/off/auto",
    "PCIELinkSpeed": "2_5/5/8/16/32/64",
    "PCIELinkWidth": "1/2/4/8/12/16/32",
}


class MachinePort(Protocol):
    """What a device needs of the machine that it is in; `Machine` is one."""

    config: MachineConfig
    started: bool
    plugged: list[MemoryDevice]
    emit: Callable[[tuple[Event, ...]], None]
    spawn: Callable[[Command[None], str], None]

    @property
    def buses(self) -> Buses:
        """Its buses."""

    @property
    def guest(self) -> Guest:
        """Who runs in it."""

    @property
    def numa_nodes(self) -> int:
        """How many NUMA nodes it has."""

    def need_area(self) -> Area:
        """The addresses for devices; raises `QMPError` where there are none."""

    def take(self, device: MemoryDevice, memdev: MemoryBackend) -> None:
        """Give a device its place, and a backend."""

    def show_region(self, region: MemoryRegion, address: int) -> None:
        """Have a region show where it is."""

    def check_private_discard(self, memdev: MemoryBackend) -> None:
        """Warn of discarding memory of a private mapping of a file; raises `QMPError`."""

    def size_changed(self, device: MemoryDevice, size: int) -> None:
        """Tell clients that a device has another size."""

    def remove(self, device: MemoryDevice) -> None:
        """Take away a device that the guest has released."""


class Device(QObject):
    """A device, or a part of one.

    Attributes:
        id: the one that it was given, or None.
        leaving: whether the guest was asked to release it.
        realized: whether it is real.
        hotplugged: whether it came after the machine had started.
        values: what the properties that are only stored were set to, by name.
    """

    __slots__ = ("hotplugged", "id", "leaving", "realized", "values")

    tree: Tree

    def __init__(self, qom_type: ObjectType, tree: Tree, id: str | None) -> None:
        super().__init__(qom_type, tree)
        self.id = id
        self.leaving = False
        self.realized = False
        self.hotplugged = False
        self.values: JSONObject = {}

    @property
    def bus(self) -> QObject | None:
        """The bus that it is on, if any."""
        return None

    @property
    def hotpluggable(self) -> bool:
        """Whether it can be removed while the machine runs."""
        return True

    def check_bus(self) -> None:
        """Raise `QMPError` where nothing can be removed from the bus that it is on."""

    def removal(self, machine: MachinePort) -> None:
        """Ask the guest to release it.

        Raises:
            QMPError: that can't be.
        """
        raise QMPError(f"Device '{self.qom_type.name}' does not support hotplugging")


class MemoryDevice(Device, ABC):
    """A device that puts a backend's memory into the machine."""

    @property
    @abstractmethod
    def address(self) -> int:
        """Where in the machine its memory begins."""

    @property
    @abstractmethod
    def memory_size(self) -> int:
        """Bytes of addresses that it takes."""

    @property
    @abstractmethod
    def plugged_size(self) -> int:
        """Bytes that the machine has of it."""

    @property
    @abstractmethod
    def backend(self) -> MemoryBackend | None:
        """Whose memory it is."""

    @abstractmethod
    def info(self) -> JSON:
        """What `query-memory-devices` tells of it (QAPI `MemoryDeviceInfo`)."""

    @abstractmethod
    def realize(self, machine: MachinePort) -> Command[None] | None:
        """Make it real: it takes its place and its backend.

        Returns:
            None, or a `Command` where the kernel may take long over the rest.

        Raises:
            QMPError: it can't be; nothing is taken.
        """

    def found(self, machine: MachinePort) -> None:
        """The guest finds it: when it is plugged in, or when the machine starts."""

    @abstractmethod
    def removed(self) -> tuple[Event, ...]:
        """It is gone from the machine; gives the events that tell of it."""


def deleted(device: Device, path: str) -> Event:
    """The event that tells that a device is gone."""
    data = {"path": path}
    if device.id is not None:
        data["device"] = device.id
    return Event("DEVICE_DELETED", data)


def attempt(device: Device, what: str, name: str) -> QMPError:
    """What is said of a property that can't be set any more."""
    kind = device.qom_type.name
    if what == "link property":
        who = f"device '{'(null)' if device.id is None else device.id}'"
    else:
        who = "anonymous device" if device.id is None else f"device '{device.id}'"
    return QMPError(
        f"Attempt to set {what} '{name}' on {who} (type '{kind}') after it was realized"
    )


def stored(row: Row) -> Property:
    """A property that is kept, and can be set until the device is real."""
    name, type, default = row[:3]
    found = kept(name, type, default, VISITS[type])
    # That a text is empty at the start is not told.
    found.default = None if type == "str" else default
    found.description = row[3] if len(row) == 4 else _DESCRIPTIONS.get(type)
    return found


def kept(
    name: str,
    type: str,
    default: JSON,
    visit: Visit,
    take: Callable[[Device, JSON], None] | None = None,
) -> Property:
    """The same, of which neither default nor description is told.

    Args:
        take: told a value before it is kept; it may refuse it.
    """

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
    """What clients have plugged into the machine."""
    for end in ("", "-anon"):
        yield from (tree.resolve(f"/machine/peripheral{end}").children or {}).values()


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


def unreadable(name: str) -> Property:
    """A property of QEMU 10.0 that can be neither read nor set."""
    return Property(name, "str")


def need_memdev(device: Any) -> MemoryBackend:
    """The backend of a device; raises `QMPError` where it has none."""
    memdev = device.memdev
    # It may have been deleted in between.
    if isinstance(memdev, MemoryBackend) and memdev.region is not None:
        return memdev
    raise QMPError("'memdev' property must be set")


def alignment(memdev: MemoryBackend) -> int:
    """What the address of a backend's memory has to be a multiple of, in bytes."""
    return 1 if memdev.region is None else memdev.region.spec.align


def is_rom(memdev: MemoryBackend) -> bool:
    """Whether a backend's memory can't be written."""
    return memdev.region is not None and not memdev.region.writable


def _set_realized(device: Device, value: bool) -> None:
    if device.realized and not value:
        raise QMPError(
            f"Property '{device.qom_type.name}.realized' can't be turned off: use device_del"
        )


VMSTATE_IF = ObjectType("vmstate-if", INTERFACE, abstract=True)
MEMORY_DEVICE = ObjectType("memory-device", INTERFACE, abstract=True)

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
            visit=visit_bool,
            get=lambda device: device.realized,
            set=_set_realized,
        ),
        Property("hotplugged", "bool", get=lambda device: device.hotplugged),
        Property("hotpluggable", "bool", get=lambda device: device.hotpluggable),
    ),
)
