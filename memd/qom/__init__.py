"""The object model: types, properties, objects, and the tree of them."""

from memd.qom.builtin_objects import MemoryRegion
from memd.qom.monitor import ChardevObject, MonitorObject
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
from memd.qom.quota import NOBODY, Quota
from memd.qom.tree import Tree
from memd.qom.user_creatable import ANONYMOUS, COPIED, Description, UserCreatable

__all__ = [
    "ANONYMOUS",
    "COPIED",
    "INTERFACE",
    "NOBODY",
    "OBJECT",
    "USER_CREATABLE",
    "ChardevObject",
    "Description",
    "LinkProperty",
    "MemoryRegion",
    "MonitorObject",
    "ObjectType",
    "Paths",
    "Property",
    "QObject",
    "Quota",
    "Tree",
    "UserCreatable",
    "attribute",
]
