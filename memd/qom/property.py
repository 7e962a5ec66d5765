"""A property of an object: declared once, with all that a client can see of it."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Protocol

from memd.errors import QMPError, device_not_found
from memd.json_types import JSON, JSONObject
from memd.qapi.visit import Visit, bad_type, visit_any, visit_str
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


class Named(Protocol):
    """An object's type, by its name."""

    name: str


class Owner(Protocol):
    """The object that a property is of."""

    @property
    def qom_type(self) -> Named:
        """Its type."""

    @property
    def tree(self) -> Paths:
        """The tree that it stands in."""


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
        visit: checks and converts what a client sent.
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
        visit: Visit = visit_any,
        guard: Guard | None = None,
        description: str | None = None,
        default: JSON = None,
    ) -> None:
        self.name = name
        self.type = type
        self.getter = get
        self.setter = set
        self.visit = visit
        self.guard = guard
        self.description = description
        self.default = default

    def get(self, obj: Owner) -> JSON:
        """The property's value, as JSON.

        Raises:
            QMPError: the property can't be read.
        """
        getter = self.getter
        if getter is None:
            raise QMPError(f"Property '{obj.qom_type.name}.{self.name}' is not readable")
        return getter(obj)

    def set(self, obj: Owner, value: JSON) -> Command[None] | None:
        """Take a new value from a client.

        Returns:
            None, or a `Command` where the change takes long to bring about.

        Raises:
            QMPError: the property can't be written, or not now, or not to that.
        """
        setter = self.setter
        if setter is None:
            raise not_writable(obj, self.name)
        if self.guard is not None:
            self.guard(obj)
        return setter(obj, self.visit(value, self.name))

    def target(self, obj: Owner) -> Any:
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
    visit: Visit,
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
        guard: Guard | None = None,
        description: str | None = None,
    ) -> None:
        super().__init__(
            name,
            f"link<{target_type}>",
            get=self._path,
            set=None if set is None else self._point(set),
            visit=visit_str,
            guard=guard,
            description=description,
        )
        self.follow = follow
        self.target_type = target_type

    def target(self, obj: Owner) -> Any:
        """The object that is pointed at."""
        return self.follow(obj)

    def _path(self, obj: Owner) -> str:
        target = self.follow(obj)
        return "" if target is None else obj.tree.path_of(target)

    def _point(self, set_link: SetLink) -> Set:
        def setter(obj: Owner, path: str) -> None:
            set_link(obj, self._find(obj, path) if path else None)

        return setter

    def _find(self, obj: Owner, path: str) -> Any:
        tree = obj.tree
        target, ambiguous = tree.lookup(path, self.target_type)
        if target is not None:
            return target
        if ambiguous:
            raise QMPError(f"Path '{path}' does not uniquely identify an object")
        other, ambiguous = tree.lookup(path)
        if other is not None or ambiguous:
            raise bad_type(self.name, self.target_type)
        raise device_not_found(f"Device '{path}' not found")


def not_found(obj: Owner, name: str) -> QMPError:
    """The error for a property that an object does not have."""
    return QMPError(f"Property '{obj.qom_type.name}.{name}' not found")


def not_writable(obj: Owner, name: str) -> QMPError:
    """The error for a property that can't be set."""
    return QMPError(f"Property '{obj.qom_type.name}.{name}' is not writable")
