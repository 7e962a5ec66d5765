"""The argument checks, made from the schema's types.

A type becomes a `Visit` that goes through the members in the schema's order and
complains as QEMU does: missing and mistyped members alike in that order, then
what is unexpected. In front of a command's visit stands a quick check that goes
through the arguments that were sent instead, most of which were not; it knows
what is right but not what to say, and leaves everything else to the visit.
"""

from __future__ import annotations

from collections.abc import Mapping

from memd.errors import QMPError, bad_type, missing, unexpected
from memd.json_types import JSON, JSONObject
from memd.qapi.hash_order import first_unexpected, object_order
from memd.qapi.types import (
    AlternateType,
    ArrayType,
    BuiltinType,
    Checker,
    EnumType,
    Member,
    ObjectType,
    Type,
)
from memd.qapi.visit import (
    BUILTIN_VISITS,
    Visit,
    last_name,
    visit_bool,
    visit_enum,
    visit_list,
    visit_str,
)

# How JSON writes the values of a built-in type.
_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "int": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


class Visits:
    """Makes visits, each type's once.

    Subclasses read what is written otherwise, such as on a command line.

    Attributes:
        scalars: the visits of the language's own types, by name.
        string: that of a type that is not among them, and of an enum's value.
    """

    scalars: Mapping[str, Visit] = BUILTIN_VISITS
    string: Visit = staticmethod(visit_str)

    def __init__(self) -> None:
        self._made: dict[str, Visit] = {}

    def of(self, type_: Type) -> Visit:
        """The visit of a type."""
        visit = self._made.get(type_.name)
        if visit is None:
            visit = self._made[type_.name] = self._make(type_)
        return visit

    def array(self, type_: ArrayType) -> Visit:
        """The visit of an array."""
        return visit_list(self.of(type_.element))

    def python_types(self, type_: Type) -> tuple[type, ...]:
        """How the values of an alternate's alternative arrive."""
        if isinstance(type_, ObjectType):
            return (dict,)
        if isinstance(type_, ArrayType):
            return (list,)
        return _PYTHON_TYPES[type_.json_type] if isinstance(type_, BuiltinType) else (str,)

    def _make(self, type_: Type) -> Visit:
        if isinstance(type_, BuiltinType):
            return self.scalars.get(type_.name, self.string)
        if isinstance(type_, EnumType):
            return visit_enum((member.name for member in type_.members), self.string)
        if isinstance(type_, ArrayType):
            return self.array(type_)
        if isinstance(type_, AlternateType):
            return self._alternate(type_)
        return ObjectVisit(type_, self)

    def _alternate(self, type_: AlternateType) -> Visit:
        """Takes the alternative that is written as the value is."""

        def visit(value: JSON, path: str) -> JSON:
            for alternative in type_.alternatives.values():
                if type(value) in self.python_types(alternative):
                    return self.of(alternative)(value, path)
            raise bad_type(last_name(path), type_.name)

        return visit


class ObjectVisit:
    """Goes through an object's members in the schema's order.

    The visits of the members are made at the first call, which lets types
    refer to themselves, and leaves out the branches that nobody uses.
    """

    __slots__ = ("_branches", "_members", "_tag", "_type", "_visits")

    def __init__(self, type_: ObjectType, visits: Visits) -> None:
        self._type = type_
        self._visits = visits
        self._members: list[tuple[str, bool, Visit]] | None = None
        self._tag = type_.tag.name if type_.tag else None
        self._branches: dict[str, ObjectVisit] = {}

    def __call__(self, value: JSON, path: str) -> JSON:
        """Visits an object, as every `Visit` does."""
        if type(value) is not dict:
            raise bad_type(path, "object")
        result: JSONObject = {}
        prefix = f"{path}." if path else ""
        self.visit_members(value, prefix, result)
        if len(result) != len(value):
            left = first_unexpected(object_order(value), result)
            raise unexpected(f"{prefix}{left}")
        return result

    def visit_members(self, value: JSONObject, prefix: str, result: JSONObject) -> None:
        """Visits those of `value` that are members into `result`.

        Args:
            prefix: what stands before the members' names in errors.
        """
        members = self._members
        if members is None:
            of = self._visits.of
            members = self._members = [(m.name, m.optional, of(m.type)) for m in self._type.members]
        for name, optional, visit in members:
            if name in value:
                result[name] = visit(value[name], prefix + name)
            elif not optional:
                raise missing(prefix + name)
        if self._tag is not None:
            branch = self.branch(result[self._tag])
            if branch is not None:
                branch.visit_members(value, prefix, result)

    def branch(self, case: str) -> ObjectVisit | None:
        """The members that come with a value of the tag, if there are any."""
        found = self._branches.get(case)
        if found is None and case in self._type.branches:
            found = self._branches[case] = ObjectVisit(self._type.branches[case], self._visits)
        return found


def check_object(type_: ObjectType, value: JSON) -> JSONObject:
    """Checks an object against its type; raises `QMPError` as the check of a command does."""
    checked: JSONObject = ObjectVisit(type_, Visits())(value, "")
    return checked


def make_checker(arguments: ObjectType) -> Checker:
    """The check of a command's arguments."""
    visits = Visits()
    if arguments.tag is not None:
        return _union_checker(arguments, arguments.tag.name, visits)
    return _quick(arguments.members, ObjectVisit(arguments, visits), visits)


def _quick(members: list[Member], exact: Visit, visits: Visits, tag: str = "") -> Checker:
    """The quick check of members without branches, before the `exact` one.

    Args:
        tag: a member that is known to be right.
    """
    plain: dict[str, type] = {}
    converting: dict[str, Visit] = {}
    for member in members:
        visit = visits.of(member.type)
        if visit is visit_str or member.name == tag:
            plain[member.name] = str
        elif visit is visit_bool:
            plain[member.name] = bool
        else:
            converting[member.name] = visit
    required = tuple(member.name for member in members if not member.optional)
    plain_type = plain.get

    def check(arguments: JSONObject) -> JSONObject:
        changed = None
        try:
            for name, value in arguments.items():
                if plain_type(name) is not type(value):
                    converted = converting[name](value, name)
                    if converted is not value:
                        changed = changed or {}
                        changed[name] = converted
        except (KeyError, QMPError):
            return exact(arguments, "")  # type: ignore[no-any-return]
        for name in required:
            if name not in arguments:
                return exact(arguments, "")  # type: ignore[no-any-return]
        return {**arguments, **changed} if changed else arguments

    return check


def _union_checker(type_: ObjectType, tag: str, visits: Visits) -> Checker:
    """The quick check of a union: one of a struct for each branch that is used."""
    exact = ObjectVisit(type_, visits)
    checkers: dict[JSON, Checker] = {}

    def check(arguments: JSONObject) -> JSONObject:
        try:
            checker = checkers[arguments[tag]]
        except (KeyError, TypeError):
            checked: JSONObject = exact(arguments, "")
            case = checked[tag]
            branch = type_.branches.get(case)
            if branch is None or branch.tag is None:
                members = type_.members + (branch.members if branch else [])
                checkers[case] = _quick(members, exact, visits, tag)
            return checked
        return checker(arguments)

    return check
