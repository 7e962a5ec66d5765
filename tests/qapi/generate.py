"""Makes arguments up from a schema: good ones, and ones with mistakes."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

from memd.qapi.types import AlternateType, ArrayType, BuiltinType, EnumType, ObjectType, Type

STRINGS = ["", "x", "on", "auto", "9bad", "1M", "a b", "nul\0l", "é€", "default", "\x7f"]
INTEGERS = [
    *[0, 1, -1, 2, 7, 127, 128, 255, 256, -128, -129, 4096, 65535, 65536],
    *[(1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 53) + 1],
    *[(1 << 63) - 1, 1 << 63, (1 << 64) - 1, -(1 << 63), -(1 << 31) - 1],
]
JUNK: list[Any] = [
    *[None, True, False, 0, 1, -1, 1.0, 2.5, -0.0, 1e300],
    *["", "x", "on", "64M", "1", [], [None], [0], [1.0], ["x"], [[]], {}, {"a": 1}, {"a": {}}],
    *[(1 << 64) - 1, -(1 << 63), 1 << 63],
]
NAMES = ["foo", "bar", "Size", "id ", "", "x-y", "qom_type", "a", "b", "é", "size2", "nul\0l"]


class Generator:
    """Makes values up.

    Args:
        random_: where every choice comes from.
        mistakes: how likely each value and each object is to get one, 0 to 1.
        never: strings that are never made up, values of enums among them.
    """

    def __init__(
        self, random_: random.Random, mistakes: float = 0.08, never: Collection[str] = ()
    ) -> None:
        self.random = random_
        self.mistakes = mistakes
        self.never = never

    def chance(self, share: float) -> bool:
        # The smallest number stands for what happens usually, for shrinking's sake.
        return self.random.random() >= 1 - share

    def value(self, type_: Type, depth: int = 0) -> Any:
        """A value of a type, or what somebody takes for one."""
        if self.chance(self.mistakes):
            return self.random.choice(JUNK)
        if isinstance(type_, BuiltinType):
            return self.builtin(type_)
        if isinstance(type_, EnumType):
            names = [member.name for member in type_.members if member.name not in self.never]
            return self.random.choice(STRINGS if self.chance(self.mistakes) else names)
        if isinstance(type_, ArrayType):
            return [self.value(type_.element, depth + 1) for _ in range(self.random.randrange(4))]
        if isinstance(type_, AlternateType):
            alternatives = list(type_.alternatives.values())
            index = self.random.randrange(len(alternatives)) if depth < 3 else 0
            return self.value(alternatives[-1 - index], depth)
        return self.object(type_, depth)

    def builtin(self, type_: BuiltinType) -> Any:
        kind = type_.json_type
        if kind == "string":
            return self.random.choice(STRINGS)
        if kind == "boolean":
            return self.chance(0.5)
        if kind == "null":
            return None
        if kind == "number":
            return self.random.choice([0, 1, -1, 1.5, 1e300])
        if kind == "value":
            return self.random.choice(JUNK)
        if self.mistakes:
            return self.random.choice(INTEGERS)
        return self.random.choice([0, 1, 2, 127])

    def object(self, type_: ObjectType, depth: int = 0) -> dict[str, Any]:
        """An object; where it has branches, mostly with the members of the right one."""
        members = list(type_.members)
        made: dict[str, Any] = {}
        if type_.tag is not None:
            made[type_.tag.name] = case = self.value(type_.tag.type)
            branch = type_.branches.get(case) if isinstance(case, str) else None
            if branch is None and type_.branches and self.mistakes:
                branch = self.random.choice(list(type_.branches.values()))
            members += branch.members if branch else []
        for member in members:
            wanted = self.chance(0.35 if member.optional else 1 - self.mistakes)
            if wanted and member.name not in made:
                made[member.name] = self.value(member.type, depth + 1)
        if type_.tag is not None and self.chance(self.mistakes):
            del made[type_.tag.name]
        for _ in range(self.random.randrange(1, 4) if self.chance(self.mistakes * 2) else 0):
            made[self.random.choice(NAMES)] = self.random.choice(JUNK)
        items = list(made.items())
        self.random.shuffle(items)
        return dict(items)
