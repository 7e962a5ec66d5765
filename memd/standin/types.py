"""The catalogue's types, for clients that ask what there is.

Those of which memd has objects keep their own; the others have the names, the
types and the defaults of properties that the recorded QEMU told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from memd.compat import Compat
from memd.qom.property import Property
from memd.qom.tree import Source
from memd.qom.types import INTERFACE, OBJECT, ObjectType
from memd.standin.catalogue import Catalogue


def source_of(catalogue: Catalogue) -> Source:
    """Gives a tree the types of a catalogue that it has not."""

    def source(known: dict[str, ObjectType], compat: Compat) -> Iterable[ObjectType]:
        return _types(catalogue, known)

    return source


def _types(catalogue: Catalogue, known: dict[str, ObjectType]) -> Iterator[ObjectType]:
    section = catalogue.section("types")
    rows = [
        Property(row[0], row[1], default=row[2] if len(row) == 3 else None)
        for row in section["rows"]
    ]
    told = section["types"]
    interfaces: dict[str, list[str]] = {}
    for name, each in told.items():
        for implementer in each.get("implementers", ()):
            interfaces.setdefault(implementer, []).append(name)
    made = {"object": OBJECT, "interface": INTERFACE, **known}

    def make(name: str) -> ObjectType:
        found = made.get(name)
        if found is None:
            each = told[name]
            found = made[name] = ObjectType(
                name,
                None if each["parent"] is None else make(each["parent"]),
                abstract=each["abstract"],
                properties=[rows[number] for number in each["added"]],
                interfaces=interfaces.get(name, ()),
            )
            for gone in each["removed"] or ():
                found.all_properties.pop(gone, None)
        return found

    for name in told:
        found = make(name)
        if name not in known and name not in ("object", "interface"):
            yield found
