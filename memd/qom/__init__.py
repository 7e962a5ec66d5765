"""The object model: types, properties, objects, and the tree of them."""

from memd.qom.builtin_objects import MemoryRegion
from memd.qom.chardev import ChardevObject
from memd.qom.monitor import MonitorObject
from memd.qom.object import QObject, UserCreatable
from memd.qom.property import LinkProperty, Property
from memd.qom.tree import Tree
from memd.qom.types import OBJECT, ObjectType

__all__ = [
    "OBJECT",
    "ChardevObject",
    "LinkProperty",
    "MemoryRegion",
    "MonitorObject",
    "ObjectType",
    "Property",
    "QObject",
    "Tree",
    "UserCreatable",
]
