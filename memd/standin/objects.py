"""Types of objects that clients make and that do nothing: what they were given can be read back."""

from __future__ import annotations

from typing import Any

from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.places import size_of
from memd.qom import OBJECT, ObjectType, Paths, Property, UserCreatable

_EMPTY: JSONObject = {"bool": False, "string": "", "str": ""}


_STAYS = "can-bus"
"""The type of objects that no QEMU deletes."""


class KnownObject(UserCreatable):
    """An object of a type that is only known.

    Attributes:
        values: what its properties were set to.
    """

    keeps_texts = True

    def __init__(self, qom_type: ObjectType, tree: Paths, id: str) -> None:
        super().__init__(qom_type, tree, id)
        self.values: JSONObject = {}

    def check_delete(self) -> None:
        if self.qom_type.name == _STAYS:
            raise QMPError(f"object '{self.name}' is in use, can not be deleted")

    @property
    def texts_size(self) -> int:
        return size_of(self.values)


def make_creatable(kind: ObjectType) -> None:
    """Have `object-add` make objects of a type that a catalogue brought."""
    for name, told in kind.all_properties.items():
        # One that its parent has of memd's own is about an object of memd's.
        if name not in OBJECT.all_properties and not told.type.startswith("child<"):
            kind.all_properties[name] = _kept(told)
    kind.factory = KnownObject


def value_unset(told: Property) -> JSON:
    """The value of a property of the catalogue's that nobody has set."""
    return told.default if told.default is not None else _EMPTY.get(told.type, 0)


def _kept(told: Property) -> Property:
    default = value_unset(told)
    if told.type.startswith("link<"):
        default = ""

    def setter(obj: Any, value: JSON) -> None:
        if obj.parent is not None:
            raise QMPError(f"memd does not act on '{told.name}' of a '{obj.qom_type.name}'")
        obj.values[told.name] = value

    return Property(
        told.name,
        told.type,
        get=lambda obj: obj.values.get(told.name, default),
        set=setter,
        default=told.default,
    )
