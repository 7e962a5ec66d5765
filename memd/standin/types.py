"""The catalogue's types, for clients that ask what there is.

Those of which memd has objects keep their own; the others have the names, the
types and the defaults of properties that the recorded QEMU told.
"""

from __future__ import annotations

from memd.json_types import JSONObject
from memd.qom import INTERFACE, OBJECT, ObjectType, Property, Tree
from memd.standin.catalogue import Catalogue

_INCOMPLETE = ("virtio-blk-pci-base", "virtio-blk-pci-non-transitional")
"""Types that memd has for their names alone, as are those of CPUs."""


class CatalogueTypes:
    """The types of a catalogue beside a tree's own; each is made when it is asked for.

    Args:
        catalogue: what they are of.
        tree: what it has itself is not made again.
    """

    def __init__(self, catalogue: Catalogue, tree: Tree) -> None:
        self._catalogue = catalogue
        self._tree = tree
        self._made: dict[str, ObjectType] = {}
        self._properties: dict[int, Property] = {}

    def find(self, name: str) -> ObjectType | None:
        """The type of that name, if the catalogue has it."""
        return self._make(name) if name in self._told else None

    def all(self) -> dict[str, ObjectType]:
        """The tree's own types and the catalogue's, by name."""
        found = {name: each for name, each in self._tree.types().items() if name not in _INCOMPLETE}
        for name in self._told:
            found.setdefault(name, self._make(name))
        return found

    @property
    def _told(self) -> JSONObject:
        """What the catalogue says of each type, by name."""
        told: JSONObject = self._catalogue.section("types")
        return told

    def _property(self, number: int) -> Property:
        found = self._properties.get(number)
        if found is None:
            row = self._catalogue.section("rows")[number]
            default = row[2] if len(row) == 3 else None
            found = self._properties[number] = Property(row[0], row[1], default=default)
        return found

    def _make(self, name: str) -> ObjectType:
        found = self._made.get(name)
        if found is None:
            found = self._own(name)
            if found is None:
                each = self._told[name]
                found = ObjectType(
                    name,
                    None if each["parent"] is None else self._make(each["parent"]),
                    abstract=each["abstract"],
                    properties=[self._property(number) for number in each["added"]],
                    interfaces=each["interfaces"],
                )
                for gone in each["removed"] or ():
                    found.all_properties.pop(gone, None)
                if "user-creatable" in found.interfaces and not found.abstract:
                    from memd.standin.objects import make_creatable
                    from memd.standin.tunable import make_tunable

                    make_creatable(found)
                    make_tunable(found)
            self._made[name] = found
        return found

    def _own(self, name: str) -> ObjectType | None:
        if name in _INCOMPLETE or name.endswith("-cpu"):
            return None
        return {"object": OBJECT, "interface": INTERFACE}.get(name) or self._tree.types().get(name)


def type_of_alias(catalogue: Catalogue, driver: str) -> str:
    """The type of device that a name stands for, which may be an alias."""
    listed = catalogue.section("devices")
    if driver in listed:
        return driver
    return next((name for name, each in listed.items() if each["alias"] == driver), driver)


def inner_names(driver: str) -> tuple[str, ...]:
    """The names that the inner half of a virtio device may have, none for other devices."""
    for end in ("-pci-non-transitional", "-pci-transitional", "-pci"):
        if driver.endswith(end):
            name = driver.removesuffix(end)
            return (f"{name}-device", name)
    return ()
