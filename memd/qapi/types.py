"""The types that a schema's commands and events are made of.

They are plain data, made by `Schema` when they are first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from memd.json_types import JSONObject
from memd.named_tuple import NamedTuple

Checker = Callable[[JSONObject], JSONObject]
"""Checks a command's arguments; returns them as QEMU would hold them."""

BUILTINS = {
    "str": "string",
    "number": "number",
    **dict.fromkeys(("int", "int8", "int16", "int32", "int64"), "int"),
    **dict.fromkeys(("uint8", "uint16", "uint32", "uint64", "size"), "int"),
    "bool": "boolean",
    "null": "null",
    "any": "value",
}
"""The types that need no definition, and what JSON calls their values."""


class BuiltinType:
    """A type of the language itself."""

    __slots__ = ("json_type", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.json_type = BUILTINS[name]


class EnumMember(NamedTuple):
    """One value of an enum."""

    name: str
    features: list[str]


class EnumType(NamedTuple):
    """A string out of a list."""

    name: str
    members: list[EnumMember]
    features: list[str]


class ArrayType:
    """An array of one element type; its name is that type's, in brackets."""

    __slots__ = ("element", "name")

    def __init__(self, element: Type) -> None:
        self.name: str = f"[{element.name}]"
        self.element = element


class Member(NamedTuple):
    """A member of an object type."""

    name: str
    type: Type
    optional: bool
    features: list[str]


class ObjectType:
    """A struct, a union, or what a command takes without naming it.

    Attributes:
        members: a base's first, then its own; a union's are its base's.
        tag: the member that selects the branch, or None for a struct.
        branches: a union's branches, by the tag's value; values that are not
            in it select nothing more.
    """

    __slots__ = ("branches", "features", "members", "name", "tag")

    def __init__(self, name: str, features: list[str]) -> None:
        self.name = name
        self.features = features
        self.members: list[Member] = []
        self.tag: Member | None = None
        self.branches: Mapping[str, ObjectType] = {}


class Branches(Mapping[str, ObjectType]):
    """A union's branches, each of which is made when it is looked up.

    Args:
        names: of their types, by the tag's value.
        find: makes a type, or finds the one that was made.
    """

    def __init__(self, names: Mapping[str, str], find: Callable[[str], ObjectType]) -> None:
        self._names = names
        self._find = find

    def __getitem__(self, case: str) -> ObjectType:
        return self._find(self._names[case])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class AlternateType:
    """One of several types that differ in how JSON writes them."""

    __slots__ = ("alternatives", "features", "name")

    def __init__(self, name: str, features: list[str]) -> None:
        self.name = name
        self.features = features
        self.alternatives: dict[str, Type] = {}


Type = BuiltinType | EnumType | ArrayType | ObjectType | AlternateType
