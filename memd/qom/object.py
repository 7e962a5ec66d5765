"""Objects, their types, and the properties of these: each is declared once, with all that a
client can see of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, Protocol

from memd.errors import QMPError, bad_type, device_not_found
from memd.json_types import JSON, JSONObject
from memd.qapi.visit import Visit, visit_any, visit_bool, visit_str
from memd.work import Command

Get = Callable[[Any], JSON]
Set = Callable[[Any, JSON], Command[None] | None]
Guard = Callable[[Any], None]
Follow = Callable[[Any], Any]
SetLink = Callable[[Any, Any], None]


class Paths(Protocol):
    """The methods of the tree that objects use."""

    def path_of(self, obj: Any) -> str:
        """An object's absolute path; "" for one that is not in the tree."""

    def lookup(self, path: str, type_name: str | None = None) -> tuple[Any, bool]:
        """The object of a type that a path leads to, or None; whether there are several."""

    def type_by_name(self, name: str) -> ObjectType | None:
        """The type of that name, or None."""


_NO_CHILDREN: dict[str, QObject] = {}


class QObject:
    """An object: a type, and a place in the tree.

    Attributes:
        qom_type: its type.
        tree: the tree that it stands in, or is meant for.
        parent: the object whose child it is, or None.
        name: the child's name in its parent; "" while it has none.
        children: child objects by name, put there by `add_child`.
    """

    __slots__ = ("children", "name", "parent", "qom_type", "tree")

    def __init__(self, qom_type: ObjectType, tree: Paths) -> None:
        self.qom_type = qom_type
        self.tree = tree
        self.parent: QObject | None = None
        self.name = ""
        self.children = _NO_CHILDREN

    def add_child(self, name: str, child: QObject) -> None:
        """Put an object below this one.

        Raises:
            QMPError: the name is taken, by a child or a property.
        """
        if name in self.children or name in self.qom_type.all_properties:
            raise self.duplicate(name)
        if self.children is _NO_CHILDREN:
            self.children = {}
        self.children[name] = child
        child.parent = self
        child.name = name

    def remove_child(self, name: str) -> None:
        """Take the child of that name out of the tree.

        Raises:
            KeyError: there is none.
        """
        self.children.pop(name).parent = None

    def duplicate(self, name: str) -> QMPError:
        """The error for a child whose name is taken."""
        return QMPError(
            f"attempt to add duplicate property '{name}' to object (type '{self.qom_type.name}')"
        )

    def get_property(self, name: str) -> JSON:
        """A property's value, as JSON; a child's is its path.

        Raises:
            QMPError: there is no such property, or it can't be read.
        """
        prop = self.qom_type.all_properties.get(name)
        if prop is not None:
            return prop.get(self)
        if name in self.children:
            return self.tree.path_of(self.children[name])
        raise not_found(self.qom_type, name)

    def set_property(self, name: str, value: JSON) -> Command[None] | None:
        """Set a property to what a client sent.

        Returns:
            None, or a `Command` where the change takes long to bring about.

        Raises:
            QMPError: there is no such property, or it refuses.
        """
        prop = self.qom_type.all_properties.get(name)
        if prop is not None:
            return prop.set(self, value)
        if name in self.children:
            raise not_writable(self.qom_type, name)
        raise not_found(self.qom_type, name)

    def refresh(self) -> None:
        """Update what is derived from the properties, which may have changed."""


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

    def visit(self, name: str, value: JSON) -> JSON:
        """What a client sends as the value of a property, checked; raises `QMPError`."""
        return self.all_properties[name].visit(value, name)

    def link(self, name: str) -> Property | None:
        """The property of that name, if a path may go on through it."""
        return self.all_properties.get(name)

    def is_a(self, name: str) -> bool:
        """Whether it is the type of that name, derives from it or implements it."""
        return name in self._ancestry


_VISITS = {"bool": visit_bool, "string": visit_str}


class Property:
    """One property of a type.

    A value from a client goes through `guard`, `visit` and `setter`, in this
    order; each of them may refuse it by raising `QMPError`.

    Attributes:
        name: as clients spell it.
        type: as `qom-list` shows it: "bool", "int", "link<thread-context>".
        getter: gives the value from the object; None where it can't be read.
        setter: stores a converted value; None where it can't be written. It
            returns a `Command` where the kernel may take long over it, which
            happens only once the object is whole.
        visit: checks and converts what a client sent; by default what the type tells.
        guard: refuses a change whatever the value is, as some properties do
            before they look at it and others (in their setter) after.
        description: as `qom-list-properties` shows it, or None.
        default: the value at the start as it is shown there, or None.
    """

    __slots__ = ("default", "description", "getter", "guard", "name", "setter", "type", "visit")

    def __init__(
        self,
        name: str,
        type: str,
        *,
        get: Get | None = None,
        set: Set | None = None,
        visit: Visit | None = None,
        guard: Guard | None = None,
        description: str | None = None,
        default: JSON = None,
    ) -> None:
        self.name = name
        self.type = type
        self.getter = get
        self.setter = set
        self.visit = visit or _VISITS.get(type, visit_any)
        self.guard = guard
        self.description = description
        self.default = default

    def get(self, obj: QObject) -> JSON:
        """The property's value, as JSON.

        Raises:
            QMPError: the property can't be read.
        """
        getter = self.getter
        if getter is None:
            raise QMPError(f"Property '{obj.qom_type.name}.{self.name}' is not readable")
        return getter(obj)

    def set(self, obj: QObject, value: JSON) -> Command[None] | None:
        """Take a new value from a client.

        Returns:
            None, or a `Command` where the change takes long to bring about.

        Raises:
            QMPError: the property can't be written, or not now, or not to that.
        """
        setter = self.setter
        if setter is None:
            raise not_writable(obj.qom_type, self.name)
        if self.guard is not None:
            self.guard(obj)
        return setter(obj, self.visit(value, self.name))

    def target(self, obj: QObject) -> Any:
        """The object to which a path goes on through this property, if any."""
        return None

    def info(self) -> JSONObject:
        """Its QAPI `ObjectPropertyInfo`, without an object."""
        info: JSONObject = {"name": self.name, "type": self.type}
        if self.description is not None:
            info["description"] = self.description
        if self.default is not None:
            info["default-value"] = self.default
        return info


def attribute(
    name: str,
    type: str,
    visit: Visit | None = None,
    *,
    of: str = "",
    get: Get | None = None,
    set: Set | None = None,
    guard: Guard | None = None,
    check: Callable[[Any, Any], None] | None = None,
    description: str | None = None,
) -> Property:
    """A property that is an attribute of its object: `mem-path` is `mem_path`.

    Args:
        of: the attribute, where it has another name.
        get: gives the value, where it is not the attribute's.
        set: takes a value, where it does not just become the attribute's.
        check: raises `QMPError` for an object that can't take a value.
    """
    attr = of or name.replace("-", "_")

    def assign(obj: Any, value: JSON) -> None:
        if check is not None:
            check(obj, value)
        setattr(obj, attr, value)

    return Property(
        name,
        type,
        visit=visit,
        get=get or attrgetter(attr),
        set=set or assign,
        guard=guard,
        description=description,
    )


class LinkProperty(Property):
    """A property that points at an object elsewhere in the tree.

    Clients read and write it as a path, "" for none. A link whose target has
    left the tree reads as "" too, yet paths still lead through it (observed on
    QEMU 10.0.2).

    Attributes:
        follow: the object that is pointed at, or None.
        target_type: the type, or interface, that a target has to be of.
    """

    __slots__ = ("follow", "target_type")

    def __init__(
        self,
        name: str,
        target_type: str,
        *,
        follow: Follow,
        set: SetLink | None = None,
        description: str | None = None,
    ) -> None:
        super().__init__(
            name,
            f"link<{target_type}>",
            get=self._path,
            set=None if set is None else self._point(set),
            visit=visit_str,
            description=description,
        )
        self.follow = follow
        self.target_type = target_type

    def target(self, obj: QObject) -> Any:
        """The object that is pointed at."""
        return self.follow(obj)

    def _path(self, obj: QObject) -> str:
        target = self.follow(obj)
        return "" if target is None else obj.tree.path_of(target)

    def _point(self, set_link: SetLink) -> Set:
        def setter(obj: QObject, path: str) -> None:
            set_link(obj, self._find(obj, path) if path else None)

        return setter

    def _find(self, obj: QObject, path: str) -> Any:
        tree = obj.tree
        target, ambiguous = tree.lookup(path, self.target_type)
        if target is not None:
            return target
        if ambiguous:
            raise QMPError(f"Path '{path}' does not uniquely identify an object")
        other, ambiguous = tree.lookup(path)
        if other is not None or ambiguous:
            raise bad_type(self.name, self.target_type)
        raise device_not_found(path)


def not_found(kind: ObjectType, name: str) -> QMPError:
    """The error for a property that objects of a type do not have."""
    return QMPError(f"Property '{kind.name}.{name}' not found")


def not_writable(kind: ObjectType, name: str) -> QMPError:
    """The error for a property that can't be set."""
    return QMPError(f"Property '{kind.name}.{name}' is not writable")


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
