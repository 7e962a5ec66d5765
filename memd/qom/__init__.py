"""The object model: types, properties, objects, and the tree of them."""

from memd.qom.chardev import Chardev
from memd.qom.monitor import Monitor
from memd.qom.object import QObject, UserCreatable
from memd.qom.property import LinkProperty, Property
from memd.qom.standing import MemoryRegion
from memd.qom.tree import Tree
from memd.qom.types import OBJECT, ObjectType

__all__ = [
    "OBJECT",
    "Chardev",
    "LinkProperty",
    "MemoryRegion",
    "Monitor",
    "ObjectType",
    "Property",
    "QObject",
    "Tree",
    "UserCreatable",
]
