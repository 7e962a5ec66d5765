"""Types of objects: a name, a parent, and properties."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from memd.qom.property import Property


class ObjectType:
    """A type, or an interface, as `qom-list-types` shows it.

    Attributes:
        name: as clients spell it.
        parent: the type that it derives from; None for `object` and `interface`.
        abstract: whether it has no objects of its own.
        properties: its own properties, inherited ones left out.
        all_properties: all its properties by name, inherited ones first.
        interfaces: the names of the interfaces that it implements, inherited
            ones included.
        factory: makes an object for `object-add`, from this type, the tree and
            the id; None where clients can't make one.
    """

    __slots__ = (
        "_ancestry",
        "abstract",
        "all_properties",
        "child_type",
        "factory",
        "interfaces",
        "name",
        "parent",
        "properties",
    )

    def __init__(
        self,
        name: str,
        parent: ObjectType | None,
        *,
        abstract: bool = False,
        properties: Iterable[Property] = (),
        interfaces: Iterable[str] = (),
        factory: Callable[[ObjectType, Any, str], Any] | None = None,
    ) -> None:
        self.name = name
        self.parent = parent
        self.abstract = abstract
        self.properties = tuple(properties)
        self.factory = factory
        self.child_type = f"child<{name}>"
        """How `qom-list` shows a child of this type."""
        self.all_properties: dict[str, Property] = {}
        self.interfaces = frozenset(interfaces)
        ancestry: set[str] = {name}
        if parent is not None:
            self.all_properties.update(parent.all_properties)
            self.interfaces |= parent.interfaces
            ancestry |= parent._ancestry
        self.all_properties.update((own.name, own) for own in self.properties)
        ancestry |= self.interfaces
        # Observed on QEMU 10.0.2: what implements several interfaces does not
        # count as implementing their common ancestor.
        if len(self.interfaces) == 1:
            ancestry.add("interface")
        elif self.interfaces:
            ancestry.discard("interface")
        self._ancestry: frozenset[str] = frozenset(ancestry)

    def is_a(self, name: str) -> bool:
        """Whether it is the type of that name, derives from it or implements it."""
        return name in self._ancestry


OBJECT = ObjectType(
    "object",
    None,
    abstract=True,
    properties=(Property("type", "string", get=lambda obj: obj.qom_type.name),),
)
"""The base type of all objects."""

INTERFACE = ObjectType("interface", None, abstract=True)
"""The base type of all interfaces."""

USER_CREATABLE = ObjectType("user-creatable", INTERFACE, abstract=True)
"""The interface of what `object-add` can make."""
