"""Objects of the tree at the start, as in QEMU's `-machine none`."""

from __future__ import annotations

from memd.errors import QMPError
from memd.qom.object import (
    INTERFACE,
    OBJECT,
    USER_CREATABLE,
    LinkProperty,
    ObjectType,
    Paths,
    Property,
    QObject,
    attribute,
)

CONTAINER = ObjectType("container", OBJECT)
"""An object that only holds others."""


class MemoryRegion(QObject):
    """A `memory-region`: what shows of a backend's memory once it is mapped.

    Attributes:
        size: in bytes.
        addr: where in its container it begins, in bytes.
        container: the region that it is a part of, or None.
    """

    __slots__ = ("addr", "container", "size")

    def __init__(self, tree: Paths, size: int) -> None:
        super().__init__(MEMORY_REGION, tree)
        self.size = size
        self.container: QObject | None = None
        self.addr = 0

    def place(self, container: QObject | None, addr: int = 0) -> None:
        """Make it a part of another region, from a byte of that one on; or of none."""
        self.container = container
        self.addr = addr


MEMORY_REGION = ObjectType(
    "memory-region",
    OBJECT,
    properties=(
        LinkProperty("container", "memory-region", follow=lambda region: region.container),
        Property("addr", "uint64", get=lambda region: region.addr),
        Property("size", "uint64", get=lambda region: region.size),
        Property("priority", "uint32", get=lambda region: 0),
    ),
)


class Bus(QObject):
    """A bus.

    Attributes:
        hotplug: whether devices may come and go while the machine runs.
    """

    def __init__(self, qom_type: ObjectType, tree: Paths, *, hotplug: bool) -> None:
        super().__init__(qom_type, tree)
        self.hotplug = hotplug

    def check_hotplug(self) -> None:
        """Raise `QMPError` unless devices may come and go."""
        if not self.hotplug:
            raise QMPError(f"Bus '{self.name}' does not support hotplugging")


class SystemBus(Bus):
    """The bus of all machines. The devices on it do not come and go; it does not keep them."""

    realized = False

    def check_hotplug(self) -> None:
        raise QMPError("Bus 'main-system-bus' does not support hotplugging")


_BUS = ObjectType("bus", OBJECT, abstract=True, interfaces=("resettable",))
_SYSTEM = ObjectType(
    "System",
    _BUS,
    properties=(
        attribute("realized", "bool"),
        # No object is a hotplug handler, so only "" is ever set.
        LinkProperty(
            "hotplug-handler",
            "hotplug-handler",
            follow=lambda bus: None,
            set=lambda bus, target: None,
        ),
    ),
)

TYPES = (
    OBJECT,
    INTERFACE,
    USER_CREATABLE,
    CONTAINER,
    MEMORY_REGION,
    *(ObjectType(name, INTERFACE, abstract=True) for name in ("hotplug-handler", "resettable")),
    _BUS,
    _SYSTEM,
)
"""The types of what stands, but for the machine's."""
