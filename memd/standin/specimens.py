"""Values that a schema allows, and the ways that lead to each member of a command's arguments.

Recording a catalogue needs them to ask a QEMU about a member deep inside, a
test to ask two servers the same, and an answer that is made up is one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

from memd.json_types import JSON, JSONObject
from memd.named_tuple import NamedTuple
from memd.qapi.schema import Command
from memd.qapi.types import (
    AlternateType,
    ArrayType,
    BuiltinType,
    EnumType,
    Member,
    ObjectType,
    Type,
)

Wrap = Callable[[JSON], JSONObject]
"""From an object's value to a command's arguments that have it in its place."""

_PLAIN: JSONObject = {"str": "x", "number": 1.0, "bool": False, "null": None, "any": {}}
_DEPTH = 40


def least(type_: Type, depth: int = 0) -> JSON:
    """The smallest value that a type allows: what is mandatory, and no more."""
    if isinstance(type_, BuiltinType):
        return 1 if type_.json_type == "int" else _PLAIN[type_.name]
    if isinstance(type_, EnumType):
        return type_.members[0].name
    if isinstance(type_, ArrayType):
        return []
    if isinstance(type_, AlternateType):
        # What is not an object ends the descent: these types refer to themselves.
        found = sorted(type_.alternatives.values(), key=lambda each: isinstance(each, ObjectType))
        return least(found[0], depth)
    return least_object(type_, depth)


def least_object(type_: ObjectType, depth: int = 0, case: str | None = None) -> JSONObject:
    """The smallest object of a type.

    Args:
        case: a union's branch; its tag's first value if it is None.

    Raises:
        RecursionError: it needs itself.
    """
    if depth > _DEPTH:
        raise RecursionError(type_.name)
    found = {m.name: least(m.type, depth + 1) for m in type_.members if not m.optional}
    if type_.tag is not None:
        if case is not None:
            found[type_.tag.name] = case
        branch = type_.branches.get(found.get(type_.tag.name, ""))
        if branch is not None:
            found.update(least_object(branch, depth + 1))
    return found


class Way(NamedTuple):
    """A member somewhere in a command's arguments.

    Attributes:
        owner: the type that has it; a union's branch by the branch's type.
        member: the member.
        type: what is at the end of the way: the member's type, or that of its
            elements.
        wrap: from a value of the owner's to the command's arguments.
        siblings: the least value of the owner's.
        listed: whether it is at an element of an array.
    """

    owner: ObjectType
    member: Member
    type: Type
    wrap: Wrap
    siblings: JSONObject
    listed: bool

    def arguments(self, value: JSON) -> JSONObject:
        """The command's arguments with a value at the end of the way."""
        put = [value] if self.listed else value
        return self.wrap({**self.siblings, self.member.name: put})

    def without(self) -> JSONObject:
        """The command's arguments without the member."""
        left = {name: value for name, value in self.siblings.items() if name != self.member.name}
        return self.wrap(left)


def ways(command: Command) -> Iterator[Way]:
    """Every member of a command's arguments, each type's once, the nearest first."""
    seen: set[str] = set()
    todo: list[tuple[ObjectType, Wrap, JSONObject]] = []

    def visit(type_: ObjectType, wrap: Wrap, siblings: JSONObject) -> None:
        if type_.name not in seen:
            seen.add(type_.name)
            todo.append((type_, wrap, siblings))

    arguments = command.arguments
    visit(arguments, lambda value: value, least_object(arguments))
    for type_, wrap, siblings in todo:
        for member in type_.members:
            way = Way(type_, member, member.type, wrap, siblings, listed=False)
            yield way
            inner = member.type
            if isinstance(inner, ArrayType):
                way = Way(type_, member, inner.element, wrap, siblings, listed=True)
                yield way
            for each in _objects(way.type):
                visit(each, way.arguments, least_object(each))
        if type_.tag is not None:
            for case, branch in type_.branches.items():
                visit(branch, wrap, {**siblings, **least_object(type_, case=case)})


def _objects(type_: Type) -> list[ObjectType]:
    """The objects that a value of a type can be."""
    if isinstance(type_, ObjectType):
        return [type_]
    if isinstance(type_, AlternateType):
        return [each for each in type_.alternatives.values() if isinstance(each, ObjectType)]
    return []


class Sampler:
    """Makes up values, the same from the same seed.

    Args:
        seed: any text.
    """

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._counter = 0

    def value(self, type_: Type, depth: int = 0) -> JSON:
        """A value of a type."""
        if isinstance(type_, BuiltinType):
            return self._builtin(type_)
        if isinstance(type_, EnumType):
            return type_.members[self._number(len(type_.members))].name
        if isinstance(type_, ArrayType):
            count = self._number(3) if depth < 3 else 0
            return [self.value(type_.element, depth + 1) for _ in range(count)]
        if isinstance(type_, AlternateType):
            alternatives = list(type_.alternatives.values())
            if depth > 3:
                return least(type_)
            return self.value(alternatives[self._number(len(alternatives))], depth + 1)
        return self._object(type_, depth)

    def _object(self, type_: ObjectType, depth: int) -> JSONObject:
        found = {}
        for member in type_.members:
            if not member.optional or (depth < 3 and self._number(2)):
                found[member.name] = self.value(member.type, depth + 1)
        if type_.tag is not None:
            branch = type_.branches.get(found.get(type_.tag.name, ""))
            if branch is not None:
                found.update(self._object(branch, depth + 1))
        return found

    def _builtin(self, type_: BuiltinType) -> JSON:
        if type_.json_type == "int":
            # Fits into the narrowest one.
            return self._number(128)
        if type_.name == "str":
            return f"sample{self._number(1000)}"
        if type_.name == "number":
            return self._number(1000) / 8
        return bool(self._number(2)) if type_.name == "bool" else _PLAIN[type_.name]

    def _number(self, below: int) -> int:
        self._counter += 1
        digest = hashlib.blake2b(f"{self._seed}/{self._counter}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") % below
