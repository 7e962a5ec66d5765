"""A loaded schema: its commands, events and types.

Built from the expressions of the schema files, under a set of defined names
that decides every `if`. Types are made when they are first asked for, so that
a daemon pays only for the commands that its clients use.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from memd.json_types import JSON
from memd.qapi.source import Expr
from memd.qapi.types import (
    BUILTINS,
    AlternateType,
    ArrayType,
    Branches,
    BuiltinType,
    Checker,
    EnumMember,
    EnumType,
    Member,
    ObjectType,
    Type,
)

KINDS = ("command", "event", "struct", "enum", "union", "alternate")
"""The definitions of the language, by their first key."""


class _Carrier:
    """What carries data: a command or an event."""

    kind = "event"

    def __init__(self, schema: Schema, name: str) -> None:
        self._schema = schema
        self.name = name

    @property
    def _expr(self) -> Expr:
        return self._schema.definitions[f"{self.kind} {self.name}"]

    @property
    def features(self) -> list[str]:
        """Its special and other features."""
        return self._schema.features_of(self._expr)


class Command(_Carrier):
    """A command: how it may be called, and with what."""

    kind = "command"

    @property
    def allow_oob(self) -> bool:
        """Whether it may be run out-of-band."""
        return bool(self._expr.get("allow-oob"))

    @property
    def allow_preconfig(self) -> bool:
        """Whether it may be run before x-exit-preconfig."""
        return bool(self._expr.get("allow-preconfig"))

    @property
    def generated(self) -> bool:
        """False where the command reads its arguments itself (`gen`)."""
        return bool(self._expr.get("gen", True))

    @property
    def arguments(self) -> ObjectType:
        """The arguments' type, without members where it takes none."""
        return self._schema.data_type(self._expr, f"{self.name}.arguments")

    @property
    def returns(self) -> Type | None:
        """The returned value's type; None for an empty object."""
        ref = self._expr.get("returns")
        return None if ref is None else self._schema.type(ref)


class QAPIEvent(_Carrier):
    """An event that the schema defines."""

    @property
    def data(self) -> ObjectType:
        """The data's type, without members where there is none."""
        return self._schema.data_type(self._expr, f"{self.name}.data")


def definitions(expressions: Iterable[Expr], defined: Collection[str]) -> dict[str, Expr]:
    """What a `Schema` is made of.

    Args:
        expressions: the definitions, directives taken out.
        defined: the names that `if` conditions hold for.
    """
    return {
        f"{kind} {expr[kind]}": expr
        for expr in expressions
        if "if" not in expr or _holds(expr["if"], defined)
        for kind in KINDS
        if kind in expr
    }


def _holds(condition: JSON, defined: Collection[str]) -> bool:
    """Whether an `if` condition holds: a name, or `not` with one."""
    if isinstance(condition, str):
        return condition in defined
    return condition["not"] not in defined


class Schema:
    """All that a schema defines, under a set of defined names.

    Args:
        definitions: the expressions, each by its kind and its name ("command stop").
        defined: the names that `if` conditions hold for.

    Attributes:
        definitions: as they were given.
        commands: by name, in the schema's order.
        events: by name, in the schema's order.
        type_names: the defined types, in the schema's order.
    """

    def __init__(self, definitions: Mapping[str, Expr], defined: Collection[str]) -> None:
        self.definitions = definitions
        self.defined = frozenset(defined)
        self.commands: dict[str, Command] = {}
        self.events: dict[str, QAPIEvent] = {}
        self._kinds: dict[str, str] = {}
        self._types: dict[str, Type] = {}
        self._checkers: dict[str, Checker] = {}
        for key in definitions:
            kind, _, name = key.partition(" ")
            if kind == "command":
                self.commands[name] = Command(self, name)
            elif kind == "event":
                self.events[name] = QAPIEvent(self, name)
            else:
                self._kinds[name] = kind

    @property
    def type_names(self) -> list[str]:
        """The names of the defined types, in the schema's order."""
        return list(self._kinds)

    def checker(self, command: str) -> Checker:
        """The check of a command's arguments.

        It returns the arguments with their values as QEMU would hold them
        (negative sizes wrapped); optional members that are absent stay so. It
        raises `QMPError` with QEMU's text for the mistake that QEMU would name.
        A command with `gen: false` takes any arguments, and reads them itself.

        Raises:
            KeyError: for an unknown command.
        """
        try:
            return self._checkers[command]
        except KeyError:
            pass
        from memd.qapi.check import make_checker

        known = self.commands[command]
        check = make_checker(known.arguments) if known.generated else lambda arguments: arguments
        self._checkers[command] = check
        return check

    def type(self, ref: JSON) -> Type:
        """The type that a name, or a name in an array, refers to.

        Raises:
            KeyError: if there is none.
        """
        if isinstance(ref, list):
            key = f"[{ref[0]}]"
            if key not in self._types:
                self._types[key] = ArrayType(self.type(ref[0]))
            return self._types[key]
        found = self._types.get(ref)
        if found is None:
            found = BuiltinType(ref) if ref in BUILTINS else self._define(ref)
            self._types[ref] = found
        return found

    def features_of(self, expr: Expr) -> list[str]:
        """The special and other features that a definition has."""
        return [each["name"] for each in self._named(expr.get("features", ()))]

    def data_type(self, expr: Expr, name: str) -> ObjectType:
        """The type of what a command or an event carries."""
        data = expr.get("data", {})
        if isinstance(data, str):
            return self.object_type(data)
        implicit = ObjectType(name, [])
        implicit.members = self._members(data)
        return implicit

    def object_type(self, name: str) -> ObjectType:
        """The object type of that name; raises `KeyError` where there is none."""
        found = self.type(name)
        if not isinstance(found, ObjectType):
            raise KeyError(name)
        return found

    def _named(self, items: Iterable[JSON]) -> Iterator[Expr]:
        """Those of features, or of an enum's values, that are there."""
        for item in items:
            each = {"name": item} if isinstance(item, str) else item
            if "if" not in each or _holds(each["if"], self.defined):
                yield each

    def _typed(self, items: Expr) -> Iterator[tuple[str, Expr]]:
        """Those of members, branches or alternatives that are there."""
        for key, item in items.items():
            each = item if isinstance(item, dict) else {"type": item}
            if "if" not in each or _holds(each["if"], self.defined):
                yield key, each

    def _define(self, name: str) -> Type:
        kind = self._kinds[name]
        expr = self.definitions[f"{kind} {name}"]
        features = self.features_of(expr)
        if kind == "enum":
            values = [
                EnumMember(each["name"], self.features_of(each))
                for each in self._named(expr["data"])
            ]
            return EnumType(name, values, features)
        if kind == "alternate":
            alternate = self._types[name] = AlternateType(name, features)
            for case, branch in self._typed(expr["data"]):
                alternate.alternatives[case] = self.type(branch["type"])
            return alternate
        # Known by its name before its members are, which may refer to it.
        result = self._types[name] = ObjectType(name, features)
        base = expr.get("base")
        if isinstance(base, str):
            result.members += self.object_type(base).members
        elif base is not None:
            result.members += self._members(base)
        if kind == "struct":
            result.members += self._members(expr["data"])
            return result
        tag = expr["discriminator"]
        result.tag = next(member for member in result.members if member.name == tag)
        names = {case: branch["type"] for case, branch in self._typed(expr["data"])}
        result.branches = Branches(names, self.object_type)
        return result

    def _members(self, data: Expr) -> list[Member]:
        members = []
        for key, each in self._typed(data):
            optional = key.startswith("*")
            type_ = self.type(each["type"])
            members.append(Member(key[optional:], type_, optional, self.features_of(each)))
        return members
