"""The object tree, and how paths lead into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from memd.compat import Compat
from memd.errors import device_not_found
from memd.json_types import JSON
from memd.qom.object import QObject, UserCreatable
from memd.qom.property import LinkProperty
from memd.qom.quota import Charge, Quota
from memd.qom.standing import CONTAINER, furnish
from memd.qom.types import ObjectType
from memd.work import Completion

if TYPE_CHECKING:
    from memd.hostmem.paths import Roots

Source = Callable[[dict[str, ObjectType], Compat], Iterable[ObjectType]]
"""Gives types for a tree, from those that it has and whose they are to be."""


class Listener(Protocol):
    """Follows what becomes of the objects that clients make."""

    async def on_created(self, obj: UserCreatable, options: dict[str, JSON]) -> None:
        """An object is whole, and is going to be listed.

        Args:
            options: those of `object-add`.

        Raises:
            QMPError: it is not to be listed, and goes again.
        """

    def on_changing(self, obj: UserCreatable, value: JSON) -> AbstractContextManager[None]:
        """A listed object is going to change: within the context, unless it raises.

        Args:
            value: what a property is to have.

        Raises:
            QMPError: it can't be recorded, and so is not to change.
        """

    def on_deleting(self, obj: UserCreatable) -> None:
        """An object is going to be deleted; nothing of it is gone yet.

        Raises:
            QMPError: it has to stay.
        """

    async def on_deleted(self, obj: UserCreatable) -> None:
        """An object is gone, and so is what it held."""


class Creation:
    """An object that is being made: its id is taken, and it is not listed.

    Attributes:
        obj: the object.
        ended: once it is listed, or is not going to be.
        given_up: whether somebody has given it up.
    """

    __slots__ = ("ended", "given_up", "obj")

    def __init__(self, obj: UserCreatable) -> None:
        self.obj = obj
        self.ended = Completion()
        self.given_up = False


class Tree:
    """Objects under `/`, and the types that there are.

    What QEMU shows with `-machine none` stands from the start (observed on
    10.0.2 and 11.1.3); what clients make is put under `/objects`.

    Attributes:
        compat: whose tree it resembles.
        root: the object `/`.
        objects: the container `/objects`.
        chardevs: the container `/chardevs`.
        machine: the object `/machine`.
        listeners: follow what becomes of the objects that clients make.
        quota: how much clients may make.
        roots: what the files have to be below that clients name; None for
            anywhere.
    """

    __slots__ = (
        "_catalogued",
        "_charges",
        "_creations",
        "_link_names",
        "_listed",
        "_sources",
        "_types",
        "chardevs",
        "compat",
        "listeners",
        "machine",
        "objects",
        "quota",
        "root",
        "roots",
    )

    def __init__(self, compat: Compat = Compat.V10_0) -> None:
        self.compat = compat
        self.listeners: tuple[Listener, ...] = ()
        self.roots: Roots | None = None
        self._types: dict[str, ObjectType] = {}
        self._link_names: set[str] = set()
        self._catalogued = False
        self._sources: list[Source] = []
        # What is being made, by its id.
        self._creations: dict[str, Creation] = {}
        # What each object under /objects, and each that is being made, is counted as.
        self._charges: dict[str, Charge] = {}
        self.quota = Quota()
        self.root = QObject(CONTAINER, self)
        self.objects = QObject(CONTAINER, self)
        self.chardevs = QObject(CONTAINER, self)
        self.machine = furnish(self)
        self._listed: dict[str, QObject] = {}
        self.objects.children = self._listed

    # Types

    def add_type(self, type: ObjectType) -> None:
        """Make a type known; one of the same name is replaced."""
        self._types[type.name] = type
        for prop in type.properties:
            if isinstance(prop, LinkProperty):
                self._link_names.add(prop.name)

    def add_source(self, source: Source) -> None:
        """Note where more types come from, once they are asked for."""
        if source not in self._sources:
            self._sources.append(source)

    def type_by_name(self, name: str) -> ObjectType | None:
        """The type of that name, or None."""
        found = self._types.get(name)
        return self.types().get(name) if found is None else found

    def types(self) -> dict[str, ObjectType]:
        """All types by name, those without any object included."""
        if not self._catalogued:
            # Asked for now and then, by clients that probe: not at start-up.
            from memd.qom.catalogue import catalogue

            self._catalogued = True
            for source in (catalogue, *self._sources):
                for each in source(self._types, self.compat):
                    self.add_type(each)
        return self._types

    # What object-add and object-del do

    def reserve(self, obj: UserCreatable, owner: int | None = None) -> None:
        """Take an object's id, and what memory it is to have, while it is being made.

        Args:
            owner: the user for whom it is made; see `Quota.check`.

        Raises:
            QMPError: the id is taken, or there may be no more.
        """
        id, size = obj.name, obj.memory_size
        if id in self._listed or id in self._creations or id in CONTAINER.all_properties:
            raise self.objects.duplicate(id)
        self.quota.check(id, size, owner)
        self._creations[id] = Creation(obj)
        obj.charge = self._charges[id] = self.quota.charge(size, owner)

    def release(self, obj: UserCreatable) -> None:
        """The making of an object has ended; its id is free, unless it is listed."""
        creation = self._creations.pop(obj.name)
        if obj.parent is None:
            self._charges.pop(obj.name).end()
        creation.ended.set()

    def creation(self, id: str) -> Creation | None:
        """What is being made by that id."""
        return self._creations.get(id)

    def attach(self, obj: UserCreatable) -> None:
        """List a whole object as `/objects/<id>`.

        Raises:
            QMPError: another object is listed by that id.
        """
        self.objects.add_child(obj.name, obj)
        charge = self._charges.get(obj.name)
        if charge is None:
            # Nobody asked for it: it is there, whatever the limits.
            charge = obj.charge or self.quota.charge(obj.memory_size, None)
            self._charges[obj.name] = charge
        obj.charge = charge

    def detach(self, obj: UserCreatable) -> None:
        """Take a listed object out of `/objects`; its id is free at once."""
        self.objects.remove_child(obj.name)
        self._charges.pop(obj.name).end()

    def user_object(self, id: str) -> UserCreatable | None:
        """The object `/objects/<id>` that clients may delete, or None."""
        found = self._listed.get(id)
        return found if isinstance(found, UserCreatable) else None

    # Paths

    def path_of(self, obj: QObject) -> str:
        """An object's absolute path; "" for one that is not in the tree."""
        path = ""
        at = obj
        while at.parent is not None:
            path = f"/{at.name}{path}"
            at = at.parent
        if at is not self.root:
            return ""
        return path or "/"

    def resolve(self, path: str) -> QObject:
        """The object that a path, absolute or partial, leads to.

        Raises:
            QMPError: class DeviceNotFound, where it leads nowhere or to several.
        """
        # Nearly every path that clients send; an id holds no slash.
        if path[:9] == "/objects/":
            listed = self._listed.get(path[9:])
            if listed is not None:
                return listed
        found, _ambiguous = self.lookup(path)
        if found is None:
            raise device_not_found(f"Device '{path}' not found")
        return found

    def lookup(self, path: str, type_name: str | None = None) -> tuple[QObject | None, bool]:
        """The object of a type that a path leads to.

        An absolute path begins with a slash and goes down from the root; any
        other one may begin at every object. Slashes count once, those at the
        end do not count. A path goes on through children and links.

        Args:
            path: absolute or partial.
            type_name: look for objects of this type only.

        Returns:
            The object, or None where there is none or are several; and whether
            there are several.
        """
        parts = [part for part in path.split("/") if part]
        if path[:1] == "/":
            return _walk(self.root, parts, type_name), False
        found = None
        for start in self._starts(parts[0] if parts else ""):
            here = _walk(start, parts, type_name)
            if here is not None:
                # The same object found twice counts as two, too.
                if found is not None:
                    return None, True
                found = here
        return found, False

    def _starts(self, name: str) -> Iterator[QObject]:
        """The objects at which a partial path with this first part may begin."""
        # What clients made has an indexed child and links, nothing else below
        # it: as a rule the many objects there need not be asked.
        everywhere = not name or name[-1] == "]" or name in self._link_names
        pending = [self.root]
        while pending:
            at = pending.pop()
            yield at
            if at.children and (everywhere or at is not self.objects):
                pending.extend(at.children.values())


def _walk(at: QObject, parts: list[str], type_name: str | None) -> QObject | None:
    for part in parts:
        children = at.children
        onward = None if children is None else children.get(part)
        if onward is None:
            prop = at.qom_type.all_properties.get(part)
            onward = None if prop is None else prop.target(at)
            if onward is None:
                return None
        at = onward
    return at if type_name is None or at.qom_type.is_a(type_name) else None
