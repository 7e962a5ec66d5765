"""The object tree, and how paths lead into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from memd.compat import Compat
from memd.errors import device_not_found
from memd.outcome import JSON, Blocking
from memd.qom.object import QObject, UserCreatable
from memd.qom.property import LinkProperty
from memd.qom.quota import Charge, Quota
from memd.qom.standing import CONTAINER, furnish
from memd.qom.types import ObjectType

if TYPE_CHECKING:
    from memd.hostmem.paths import Roots

GiveUp = Callable[[], Blocking]
"""Has the making of an object end soon; what it returns waits for that end."""

Source = Callable[[dict[str, ObjectType], Compat], Iterable[ObjectType]]
"""Gives types for a tree, from those that it has and whose they are to be."""


LetGo = Callable[["Blocking | None"], "Blocking | None"]
"""See `Keeper.strike`."""


class Keeper(Protocol):
    """Keeps what clients make beyond the daemon's end."""

    def keep(self, obj: UserCreatable, options: dict[str, JSON]) -> Blocking | None:
        """An object is whole, and is going to be listed; `options` are those of `object-add`.

        Returns:
            None, or a `Blocking` to be run before it is listed.

        Raises:
            QMPError: it can't be noted.
        """

    def changed(self, obj: QObject, change: Blocking | None) -> Blocking | None:
        """A property was set; or is set once `change` has been run.

        Returns:
            None, or what is to be run instead of `change`.

        Raises:
            QMPError: it can't be noted.
        """

    def strike(self, obj: UserCreatable) -> LetGo:
        """An object is going to be deleted; nothing of it is gone yet.

        Returns:
            to be called once its memory was let go, or with the `Blocking` that
            does so; gives None or what is to be run instead.

        Raises:
            QMPError: it can't be noted, and so the object stays.
        """


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
        keeper: keeps what clients make beyond the daemon's end; None where
            nobody does.
        quota: how much clients may make.
        roots: what the files have to be below that clients name; None for
            anywhere.
    """

    __slots__ = (
        "_catalogued",
        "_charges",
        "_link_names",
        "_listed",
        "_reserved",
        "_sources",
        "_types",
        "chardevs",
        "compat",
        "keeper",
        "machine",
        "objects",
        "quota",
        "root",
        "roots",
    )

    def __init__(self, compat: Compat = Compat.V10_0) -> None:
        self.compat = compat
        self.keeper: Keeper | None = None
        self.roots: Roots | None = None
        self._types: dict[str, ObjectType] = {}
        self._link_names: set[str] = set()
        self._catalogued = False
        self._sources: list[Source] = []
        # Ids of what is being made; what gives the making up, where it can be.
        self._reserved: dict[str, GiveUp | None] = {}
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

    def reserve(self, id: str, size: int = 0, owner: int | None = None) -> Charge:
        """Take an id for an object that is being made.

        Args:
            size: bytes of memory that it is to have.
            owner: the user for whom it is made; see `Quota.check`.

        Returns:
            what it is counted as.

        Raises:
            QMPError: it is taken, or there may be no more.
        """
        if id in self._listed or id in self._reserved or id in CONTAINER.all_properties:
            raise self.objects.duplicate(id)
        self.quota.check(id, size, owner)
        self._reserved[id] = None
        charge = self._charges[id] = self.quota.charge(size, owner)
        return charge

    def release(self, id: str) -> None:
        """Give a reserved id back; nothing happens where it isn't reserved."""
        if id in self._reserved:
            del self._reserved[id]
            self._charges.pop(id).end()

    def can_give_up(self, id: str, give_up: GiveUp) -> None:
        """Note how the making of a reserved id's object is given up."""
        self._reserved[id] = give_up

    def give_up(self, id: str) -> Blocking | None:
        """Give the making of an object up, as `object-del` does; the first one only.

        Returns:
            what waits for its end; None where nothing of that id is being made.
        """
        give_up = self._reserved.get(id)
        if give_up is None:
            return None
        self._reserved[id] = None
        return give_up()

    def attach(self, obj: UserCreatable) -> None:
        """List a whole object as `/objects/<id>`; its reservation ends.

        Raises:
            QMPError: another object is listed by that id.
        """
        self.objects.add_child(obj.name, obj)
        self._reserved.pop(obj.name, None)
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
