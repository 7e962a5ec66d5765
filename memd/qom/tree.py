"""The object tree, and how paths lead into it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from memd.compat import Compat
from memd.errors import device_not_found
from memd.qom import builtin_objects
from memd.qom.builtin_objects import CONTAINER, MemoryRegion, SystemBus
from memd.qom.machine import MachineObject, machine_types
from memd.qom.object import LinkProperty, ObjectType, QObject
from memd.qom.objects import Objects

if TYPE_CHECKING:
    from memd.hostmem.host import Host
    from memd.hostmem.ledger import Ledger

Source = Callable[[dict[str, ObjectType], Compat], Iterable[ObjectType]]
"""Gives types for a tree, from those that it has and whose they are to be."""


LONGEST_PATH = 16_384
"""Characters of a path that may lead anywhere; beyond it leads nowhere."""


class MoreTypes(Protocol):
    """Types that are only known, beside those that there are objects of."""

    def find(self, name: str) -> ObjectType | None:
        """The type of that name."""

    def all(self) -> dict[str, ObjectType]:
        """All types by name, the tree's own included."""


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
        basic_types: gives the types that machines are made of; None for none, or once they
            are there.
        device_types: gives types that are made once they are asked for; None for none.
        more_types: types that are only known; None where there are none.
        prealloc: whether memory backends are preallocated unless told otherwise.
        shortage: a lack of huge pages on the host, in words; "" for none.
    """

    shortage = ""
    prealloc = False
    _catalogued = False
    basic_types: Source | None = None
    device_types: Source | None = None
    more_types: MoreTypes | None = None

    def __init__(self, compat: Compat = Compat.V10_0) -> None:
        self.compat = compat
        self._types: dict[str, ObjectType] = {}
        self._link_names: set[str] = set()
        self.root = QObject(CONTAINER, self)
        self.objects = Objects(self)
        self.chardevs = QObject(CONTAINER, self)
        self.machine = _add_builtin_objects(self)

    @cached_property
    def host(self) -> Host:
        """The kernel, as the objects ask it."""
        # Brings ctypes along, which a start need not pay for.
        from memd.hostmem.host import Host

        return Host()

    @cached_property
    def ledger(self) -> Ledger:
        """The huge pages that the objects' memory may claim."""
        from memd.hostmem.ledger import Ledger

        return Ledger()

    def replace_machine(self) -> None:
        """Have a new `/machine`, a machine `none`, in the place of the old one."""
        new, old = _new_machine(self), self.machine
        self.root.children["machine"] = new
        new.parent, new.name, old.parent = self.root, old.name, None
        self.machine = new

    # Types

    def add_type(self, type: ObjectType) -> None:
        """Make a type known; one of the same name is replaced."""
        self._types[type.name] = type
        for prop in type.properties:
            if isinstance(prop, LinkProperty):
                self._link_names.add(prop.name)

    def type_by_name(self, name: str) -> ObjectType | None:
        """The type of that name, or None."""
        found = self._types.get(name) or self.types().get(name)
        if found is None and self.more_types is not None:
            found = self.more_types.find(name)
        return found

    def all_types(self) -> dict[str, ObjectType]:
        """All types that clients are told of: a catalogue's besides the tree's own."""
        return self.types() if self.more_types is None else self.more_types.all()

    def basics(self) -> dict[str, ObjectType]:
        """The types by name that a start needs: those of machines are among them."""
        source, self.basic_types = self.basic_types, None
        for each in () if source is None else source(self._types, self.compat):
            self.add_type(each)
        return self._types

    def types(self) -> dict[str, ObjectType]:
        """The tree's own types by name, those without any object included."""
        self.basics()
        if not self._catalogued:
            # Asked for now and then, by clients that probe: not at start-up.
            from memd.qom.catalogue import catalogue

            self._catalogued = True
            for source in (catalogue, self.device_types):
                for each in () if source is None else source(self._types, self.compat):
                    self.add_type(each)
        return self._types

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
            listed = self.objects.children.get(path[9:])
            if listed is not None:
                return listed
        found, _ambiguous = self.lookup(path)
        if found is None:
            raise device_not_found(path)
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
        if len(path) > LONGEST_PATH:
            return None, False
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
            if everywhere or at is not self.objects:
                pending.extend(at.children.values())


def _walk(at: QObject, parts: list[str], type_name: str | None) -> QObject | None:
    for part in parts:
        onward = at.children.get(part)
        if onward is None:
            prop = at.qom_type.link(part)
            onward = None if prop is None else prop.target(at)
            if onward is None:
                return None
        at = onward
    return at if type_name is None or at.qom_type.is_a(type_name) else None


def _add_builtin_objects(tree: Tree) -> MachineObject:
    """Put the built-in objects and their types into a new tree; gives `/machine`."""
    types = (*builtin_objects.TYPES, *machine_types(tree.compat))
    for each in types:
        tree.add_type(each)
    machine = _new_machine(tree)
    root = tree.root
    root.add_child("backend", QObject(CONTAINER, tree))
    root.add_child("machine", machine)
    root.add_child("objects", tree.objects)
    root.add_child("chardevs", tree.chardevs)
    if tree.compat is not Compat.V10_0:
        root.add_child("audiodevs", QObject(CONTAINER, tree))
    return machine


def _new_machine(tree: Tree) -> MachineObject:
    """A machine `none`, with nothing plugged in."""
    machine = MachineObject(tree._types["none-machine"], tree)
    unattached = QObject(CONTAINER, tree)
    unattached.add_child("io[0]", MemoryRegion(tree, 0x10000))
    unattached.add_child("sysbus", SystemBus(tree._types["System"], tree, hotplug=False))
    unattached.add_child("system[0]", MemoryRegion(tree, 2**64 - 1))
    machine.add_child("peripheral", QObject(CONTAINER, tree))
    machine.add_child("peripheral-anon", QObject(CONTAINER, tree))
    machine.add_child("unattached", unattached)
    return machine
