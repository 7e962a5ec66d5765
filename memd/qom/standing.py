"""What stands in the tree from the start, as QEMU's `-machine none` shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.compat import Compat
from memd.json_types import JSON
from memd.qapi.visit import visit_bool
from memd.qom.machine import Machine, machine_types
from memd.qom.object import QObject
from memd.qom.property import LinkProperty, Property
from memd.qom.types import INTERFACE, OBJECT, USER_CREATABLE, ObjectType

if TYPE_CHECKING:
    from memd.qom.tree import Tree

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

    def __init__(self, tree: Tree, size: int) -> None:
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


class _SystemBus(QObject):
    """The bus of a machine that has nothing on it."""

    __slots__ = ("realized",)

    def __init__(self, tree: Tree) -> None:
        super().__init__(_SYSTEM, tree)
        self.realized = False


def _set_realized(bus: _SystemBus, value: JSON) -> None:
    bus.realized = value


def _set_handler(bus: _SystemBus, target: QObject | None) -> None:
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


def furnish(tree: Tree) -> QObject:
    """Put the standing objects and their types into a new tree; returns `/machine`."""
    types = (
        OBJECT,
        INTERFACE,
        USER_CREATABLE,
        CONTAINER,
        MEMORY_REGION,
        _HOTPLUG_HANDLER,
        _RESETTABLE,
        _BUS,
        _SYSTEM,
        *machine_types(tree.compat),
    )
    for each in types:
        tree.add_type(each)
    machine = Machine(types[-1], tree)
    unattached = QObject(CONTAINER, tree)
    unattached.add_child("io[0]", MemoryRegion(tree, 0x10000))
    unattached.add_child("sysbus", _SystemBus(tree))
    unattached.add_child("system[0]", MemoryRegion(tree, 2**64 - 1))
    machine.add_child("peripheral", QObject(CONTAINER, tree))
    machine.add_child("peripheral-anon", QObject(CONTAINER, tree))
    machine.add_child("unattached", unattached)

    root = tree.root
    root.add_child("backend", QObject(CONTAINER, tree))
    root.add_child("machine", machine)
    root.add_child("objects", tree.objects)
    root.add_child("chardevs", tree.chardevs)
    if tree.compat is not Compat.V10_0:
        root.add_child("audiodevs", QObject(CONTAINER, tree))
    return machine
