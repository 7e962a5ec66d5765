"""Objects of the tree at the start, as in QEMU's `-machine none`."""

from __future__ import annotations

from memd.json_types import JSON
from memd.qapi.visit import visit_bool
from memd.qom.object import QObject
from memd.qom.property import LinkProperty, Paths, Property
from memd.qom.types import INTERFACE, OBJECT, USER_CREATABLE, ObjectType

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
        self.place(None)

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

_HOTPLUG_HANDLER = ObjectType("hotplug-handler", INTERFACE, abstract=True)
_RESETTABLE = ObjectType("resettable", INTERFACE, abstract=True)


class SystemBus(QObject):
    """The bus of a machine that has nothing on it."""

    def __init__(self, tree: Paths) -> None:
        super().__init__(_SYSTEM, tree)
        self.realized = False


def _set_realized(bus: SystemBus, value: JSON) -> None:
    bus.realized = value


def _set_handler(bus: SystemBus, target: QObject | None) -> None:
    """Nothing to do: no object is a hotplug handler, so only "" comes this far."""


_BUS = ObjectType("bus", OBJECT, abstract=True, interfaces=("resettable",))
_SYSTEM = ObjectType(
    "System",
    _BUS,
    properties=(
        Property(
            "realized",
            "bool",
            visit=visit_bool,
            get=lambda bus: bus.realized,
            set=_set_realized,
        ),
        LinkProperty(
            "hotplug-handler", "hotplug-handler", follow=lambda bus: None, set=_set_handler
        ),
    ),
)

TYPES = (
    OBJECT,
    INTERFACE,
    USER_CREATABLE,
    CONTAINER,
    MEMORY_REGION,
    _HOTPLUG_HANDLER,
    _RESETTABLE,
    _BUS,
    _SYSTEM,
)
"""The types of what stands, but for the machine's."""
