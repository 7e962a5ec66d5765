"""Checks of one definition by itself: its keys, their values' forms, its names.

What needs other definitions is checked in `memd.qapi.semantics`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from memd.qapi.names import complaint_about, folded
from memd.qapi.source import Definition, Place, Pragmas

_KEYS = {
    # kind: (mandatory beside the kind itself, optional)
    "enum": (("data",), ("prefix", "if", "features")),
    "struct": (("data",), ("base", "if", "features")),
    "union": (("base", "discriminator", "data"), ("if", "features")),
    "alternate": (("data",), ("if", "features")),
    "command": (
        (),
        (
            *("data", "boxed", "returns", "if", "features"),
            *("success-response", "gen", "allow-oob", "allow-preconfig", "coroutine"),
        ),
    ),
    "event": ((), ("data", "boxed", "if", "features")),
}
# Flags mean something only when they differ from the default.
_FLAGS = {
    "boxed": True,
    "gen": False,
    "success-response": False,
    "allow-oob": True,
    "allow-preconfig": True,
    "coroutine": True,
}
_USE = {"command": "command", "event": "event"}


def check_definition(definition: Definition, pragmas: Pragmas) -> None:
    """Checks the form of a definition.

    Raises:
        SchemaError: for the first mistake.
    """
    place, expr, kind = definition.place, definition.expr, definition.kind
    use = _USE.get(kind, "type")
    excepted = definition.name in pragmas.exceptions["command-name-exceptions"]
    _check_name(definition.name, use, place, excepted=excepted and kind == "command")
    mandatory, optional = _KEYS[kind]
    _check_keys(expr, kind, (kind, *mandatory), optional, place)
    for flag, wanted in _FLAGS.items():
        if flag in expr and expr[flag] is not wanted:
            raise place.error(f"flag '{flag}' may only be {str(wanted).lower()}")
    if expr.get("allow-oob") and expr.get("coroutine"):
        raise place.error("flags 'allow-oob' and 'coroutine' exclude each other")
    check_condition(expr, place, kind)
    _check_features(expr.get("features"), place)
    check: Callable[[Definition, Pragmas], None] = _CHECKS[kind]
    check(definition, pragmas)


def check_condition(expr: dict[str, Any], place: Place, what: str) -> None:
    """Checks an `if`: a name, or `all`, `any`, `not` over conditions."""
    if "if" not in expr:
        return
    pending = [expr["if"]]
    while pending:
        condition = pending.pop()
        if isinstance(condition, str):
            complaint = complaint_about(condition, "condition")
            if complaint:
                raise place.error(f"'if' condition '{condition}' of {what} {complaint}")
            continue
        if not isinstance(condition, dict) or len(condition) != 1:
            raise place.error(f"'if' of {what} is a name or one of all, any, not")
        operator, operand = next(iter(condition.items()))
        if operator == "not":
            pending.append(operand)
        elif operator in ("all", "any"):
            if not isinstance(operand, list) or not operand:
                raise place.error(f"'{operator}' in 'if' of {what} is an array of conditions")
            pending.extend(operand)
        else:
            raise place.error(f"'if' of {what} has unknown operator '{operator}'")


def _check_name(name: str, use: str, place: Place, *, excepted: bool = False) -> None:
    complaint = complaint_about(name, use, excepted=excepted)
    if complaint:
        raise place.error(f"name of {use} '{name}' {complaint}")


def _check_keys(
    expr: dict[str, Any], what: str, mandatory: Iterable[str], optional: Iterable[str], place: Place
) -> None:
    lacking = [key for key in mandatory if key not in expr]
    if lacking:
        raise place.error(f"{what} lacks key '{lacking[0]}'")
    unknown = sorted(set(expr) - {*mandatory, *optional})
    if unknown:
        raise place.error(f"{what} has unknown key '{unknown[0]}'")


def _check_features(features: object, place: Place) -> None:
    if features is None:
        return
    if not isinstance(features, list) or not features:
        raise place.error("'features' is an array with at least one member")
    seen: set[str] = set()
    for feature in features:
        if isinstance(feature, dict):
            _check_keys(feature, "feature", ("name",), ("if",), place)
            check_condition(feature, place, "feature")
            name = feature["name"]
        else:
            name = feature
        if not isinstance(name, str):
            raise place.error("a feature is a string or an object with a 'name'")
        _check_name(name, "feature", place)
        if name in seen:
            raise place.error(f"feature '{name}' is there twice")
        seen.add(name)


def _check_type(value: object, what: str, place: Place, *, array: bool = True) -> None:
    if isinstance(value, str):
        return
    if array and isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], str):
            return
        raise place.error(f"{what}: an array type is one type name in brackets")
    raise place.error(f"{what} is a type's name" + (" or an array type" if array else ""))


def _check_members(value: object, what: str, place: Place, excepted: bool) -> None:
    """The members of a struct, of a union's base, of a command or an event."""
    if not isinstance(value, dict):
        raise place.error(f"{what} is an object of members")
    seen: dict[str, str] = {}
    for key, member in value.items():
        name = key.removeprefix("*")
        _check_name(name, "member", place, excepted=excepted)
        other = seen.setdefault(folded(name), name)
        if other != name or list(value).count(name) + list(value).count(f"*{name}") > 1:
            raise place.error(f"member '{name}' clashes with member '{other}'")
        if isinstance(member, dict):
            _check_keys(member, f"member '{name}'", ("type",), ("if", "features"), place)
            check_condition(member, place, f"member '{name}'")
            _check_features(member.get("features"), place)
            member = member["type"]
        _check_type(member, f"type of member '{name}'", place)


def _check_enum(definition: Definition, pragmas: Pragmas) -> None:
    place, expr = definition.place, definition.expr
    excepted = definition.name in pragmas.exceptions["member-name-exceptions"]
    if not isinstance(expr["data"], list):
        raise place.error("'data' of an enum is an array")
    if "prefix" in expr and not isinstance(expr["prefix"], str):
        raise place.error("'prefix' is a string")
    seen: dict[str, str] = {}
    for value in expr["data"]:
        if isinstance(value, dict):
            _check_keys(value, "enum member", ("name",), ("if", "features"), place)
            check_condition(value, place, "enum member")
            _check_features(value.get("features"), place)
            value = value["name"]
        if not isinstance(value, str):
            raise place.error("an enum member is a string or an object with a 'name'")
        _check_name(value, "enum member", place, excepted=excepted)
        other = seen.setdefault(folded(value), value)
        if other != value or sum(_enum_name(item) == value for item in expr["data"]) > 1:
            raise place.error(f"enum member '{value}' clashes with '{other}'")


def _enum_name(item: object) -> object:
    return item.get("name") if isinstance(item, dict) else item


def _check_struct(definition: Definition, pragmas: Pragmas) -> None:
    place, expr = definition.place, definition.expr
    excepted = definition.name in pragmas.exceptions["member-name-exceptions"]
    _check_members(expr["data"], "'data' of a struct", place, excepted)
    if "base" in expr:
        _check_type(expr["base"], "'base' of a struct", place, array=False)


def _check_union(definition: Definition, pragmas: Pragmas) -> None:
    place, expr = definition.place, definition.expr
    excepted = definition.name in pragmas.exceptions["member-name-exceptions"]
    base = expr["base"]
    if isinstance(base, dict):
        _check_members(base, "'base' of a union", place, excepted)
    else:
        _check_type(base, "'base' of a union", place, array=False)
    if not isinstance(expr["discriminator"], str):
        raise place.error("'discriminator' is a member's name")
    _check_branches(expr["data"], "branch", place, excepted)


def _check_alternate(definition: Definition, pragmas: Pragmas) -> None:
    place, expr = definition.place, definition.expr
    excepted = definition.name in pragmas.exceptions["member-name-exceptions"]
    if not expr["data"]:
        raise place.error("'data' of an alternate has at least one alternative")
    _check_branches(expr["data"], "alternative", place, excepted, array=True)


def _check_branches(
    value: object, what: str, place: Place, excepted: bool, *, array: bool = False
) -> None:
    if not isinstance(value, dict):
        raise place.error("'data' is an object")
    for name, branch in value.items():
        _check_name(name, "branch", place, excepted=excepted)
        if isinstance(branch, dict):
            _check_keys(branch, f"{what} '{name}'", ("type",), ("if",), place)
            check_condition(branch, place, f"{what} '{name}'")
            branch = branch["type"]
        _check_type(branch, f"type of {what} '{name}'", place, array=array)


def _check_command(definition: Definition, pragmas: Pragmas) -> None:
    place, expr = definition.place, definition.expr
    _check_data(definition, pragmas)
    if "returns" in expr:
        _check_type(expr["returns"], "'returns'", place)


def _check_data(definition: Definition, pragmas: Pragmas) -> None:
    place, expr = definition.place, definition.expr
    data = expr.get("data")
    if expr.get("boxed"):
        if not isinstance(data, str):
            raise place.error("'boxed' needs 'data' to be a type's name")
    elif isinstance(data, dict):
        excepted = definition.name in pragmas.exceptions["member-name-exceptions"]
        _check_members(data, "'data'", place, excepted)
    elif data is not None:
        _check_type(data, "'data'", place, array=False)


_CHECKS: dict[str, Callable[[Definition, Pragmas], None]] = {
    "enum": _check_enum,
    "struct": _check_struct,
    "union": _check_union,
    "alternate": _check_alternate,
    "command": _check_command,
    "event": _check_data,
}
