"""What holds for the schema files: names, what they refer to, and their documentation.

memd reads its own files only, and takes what `check_file` accepts without a further
look.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from memd.json_types import JSONObject
from memd.qapi.parser import parse_file
from memd.qapi.reader import read
from memd.qapi.source import Definition, SchemaError
from memd.qapi.types import BUILTINS
from tests.qapi.forms import check_form

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_LOWER = re.compile(r"[a-z0-9][a-z0-9-]*")
_CAMEL = re.compile(r"[A-Z][A-Za-z0-9]*")
_UPPER = re.compile(r"[A-Z][A-Z0-9_]*")

_OBJECTS = ("struct", "union")


def check_file(path: str) -> list[Definition]:
    """What a schema file and those that it includes define, checked.

    Raises:
        SchemaError: for the first mistake.
    """
    definitions = parse_file(path)
    for definition in definitions:
        check_form(definition)
    _Checker(definitions, pragmas(path)).run()
    return definitions


def pragmas(path: str) -> JSONObject:
    """The pragmas of a schema file and of those that it includes, by name.

    "doc-required" says whether every definition needs documentation, the others
    name what a rule leaves alone.

    Raises:
        SchemaError: for one that does not exist, or has another value.
    """
    rules = ("command-name", "command-returns", "documentation", "member-name")
    found: JSONObject = {f"{rule}-exceptions": [] for rule in rules} | {"doc-required": False}
    for file, line, expr in read(path, set()):
        settings = expr.get("pragma", {})
        if "pragma" in expr and (len(expr) != 1 or not isinstance(settings, dict)):
            raise SchemaError(file, line, "'pragma' is an object and stands alone")
        for name, value in settings.items():
            if type(value) is not type(found.get(name)):
                raise SchemaError(file, line, f"there is no pragma '{name}' with such a value")
            found[name] = found[name] + value if isinstance(value, list) else value
    return found


class _Checker:
    def __init__(self, definitions: list[Definition], pragmas: JSONObject) -> None:
        self._definitions = definitions
        self._pragmas = pragmas
        self._types: dict[str, Definition] = {}

    def run(self) -> None:
        seen: dict[str, Definition] = {}
        for definition in self._definitions:
            name = definition.name
            earlier = seen.setdefault(name, definition)
            if name in BUILTINS or earlier is not definition:
                where = f"{earlier.file}:{earlier.line}" if name in seen else "by the language"
                raise definition.error(f"'{name}' is already defined at {where}")
            if definition.kind not in ("command", "event"):
                self._types[name] = definition
        for definition in self._definitions:
            self._check_style(definition)
            self._check_references(definition)
        for definition in self._definitions:
            self._members(definition)
        for definition in self._definitions:
            if definition.kind == "union":
                self._check_union(definition)
            elif definition.kind == "alternate":
                self._check_alternate(definition)
            elif definition.kind in ("command", "event"):
                self._check_data(definition)
            self._check_doc(definition)

    def _check_style(self, definition: Definition) -> None:
        """Raise `SchemaError` where a name is none, or written in another way than its like."""
        kind, name = definition.kind, definition.name
        if kind in ("command", "event"):
            pattern = _UPPER if kind == "event" else _LOWER
            if name in self._pragmas["command-name-exceptions"]:
                pattern = _NAME
        else:
            pattern = _CAMEL
        if not pattern.fullmatch(name):
            raise definition.error(f"the name '{name}' is not written as those of its kind")
        pattern = _NAME if name in self._pragmas["member-name-exceptions"] else _LOWER
        members = _own_members(definition)
        names = [*members, *_features(definition)]
        if kind in ("union", "alternate"):
            names += definition.expr["data"]
        for each in names:
            if not pattern.fullmatch(each):
                raise definition.error(f"the name '{each}' is not in lower case with dashes")
            if members.count(each) > 1:
                raise definition.error(f"member '{each}' is there twice")

    def _check_references(self, definition: Definition) -> None:
        for what, ref in _references(definition):
            if ref not in BUILTINS and ref not in self._types:
                raise definition.error(f"'{what}' uses unknown type '{ref}'")

    def _kind(self, ref: Any) -> str:
        if isinstance(ref, list):
            return "array"
        return "builtin" if ref in BUILTINS else self._types[ref].kind

    def _members(self, definition: Definition, above: tuple[str, ...] = ()) -> JSONObject:
        """The members of a definition apart from its branches', an inherited one's first.

        Args:
            above: the types that it is base or branch of.
        """
        if definition.name in above:
            raise definition.error("contains itself")
        above = (*above, definition.name)
        expr, found = definition.expr, {}
        base = expr.get("base", {})
        if isinstance(base, str):
            if self._kind(base) != "struct":
                raise definition.error(f"base '{base}' is not a struct")
            found = self._members(self._types[base], above)
        own = [base] if isinstance(base, dict) else []
        if definition.kind == "struct":
            own.append(expr["data"])
        for each in own:
            for key, member in each.items():
                name = key.removeprefix("*")
                if {name, f"*{name}"} & found.keys():
                    raise definition.error(f"member '{name}' is there twice")
                found[key] = member
        if definition.kind == "union":
            for branch, ref in _typed(expr["data"]):
                if self._kind(ref) not in _OBJECTS:
                    raise definition.error(f"branch '{branch}' is not of a struct or union type")
                for key in self._members(self._types[ref], above):
                    name = key.removeprefix("*")
                    if {name, f"*{name}"} & found.keys():
                        raise definition.error(f"member '{name}' is in branch '{branch}' again")
        return found

    def _check_union(self, definition: Definition) -> None:
        members, tag = self._members(definition), definition.expr["discriminator"]
        member = members.get(tag)
        ref = _type_of(member)
        conditional = isinstance(member, dict) and "if" in member
        if member is None or conditional or self._kind(ref) != "enum":
            raise definition.error(
                f"discriminator '{tag}' is not a member of the base, always there, of an enum type"
            )
        cases = _own_members(self._types[ref])
        for branch in definition.expr["data"]:
            if branch not in cases:
                raise definition.error(f"branch '{branch}' is not a value of enum '{ref}'")

    def _check_alternate(self, definition: Definition) -> None:
        taken: dict[str, str] = {}
        for name, ref in _typed(definition.expr["data"]):
            kind = self._kind(ref)
            shape = "object" if kind in _OBJECTS else "string" if kind == "enum" else kind
            if kind == "builtin":
                shape = BUILTINS[ref].replace("int", "number")
            if shape in ("alternate", "value"):
                raise definition.error(f"alternative '{name}' can't be of type '{ref}'")
            if shape in taken:
                raise definition.error(f"alternative '{name}' can't be told from '{taken[shape]}'")
            taken[shape] = name

    def _check_data(self, definition: Definition) -> None:
        expr = definition.expr
        data, returns = expr.get("data", {}), expr.get("returns")
        if isinstance(data, str):
            allowed = _OBJECTS if expr.get("boxed") else ("struct",)
            if self._kind(data) not in allowed:
                raise definition.error(f"'data' is not of type {' or '.join(allowed)}")
        elif expr.get("boxed"):
            raise definition.error("'boxed' needs 'data' to be a type's name")
        if returns and definition.name not in self._pragmas["command-returns-exceptions"]:
            element = returns[0] if isinstance(returns, list) else returns
            if self._kind(element) not in _OBJECTS:
                raise definition.error(f"'returns' must be of objects, '{element}' is not")

    def _check_doc(self, definition: Definition) -> None:
        doc = definition.doc
        if doc is None:
            if self._pragmas["doc-required"]:
                raise definition.error("documentation comment is missing")
            return
        if not doc.body or "Since" not in doc.sections:
            raise definition.error("documentation does not say what it is, or since when")
        if ("Returns" in doc.sections) != ("returns" in definition.expr):
            raise definition.error("documentation has 'Returns:' and nothing is, or the reverse")
        told = {name for name, text in doc.members.items() if text}
        there = set(_own_members(definition))
        if definition.name in self._pragmas["documentation-exceptions"]:
            there &= told
        for what, documented, found in (
            ("member", told, there),
            ("feature", set(doc.features), set(_features(definition))),
        ):
            for name in sorted(documented ^ found):
                raise definition.error(f"{what} '{name}' is not documented, or does not exist")


def _type_of(member: Any) -> Any:
    return member["type"] if isinstance(member, dict) else member


def _typed(data: JSONObject) -> list[tuple[str, Any]]:
    return [(name.removeprefix("*"), _type_of(member)) for name, member in data.items()]


def _references(definition: Definition) -> Iterator[tuple[str, str]]:
    """Every type that a definition names, with what names it."""
    if definition.kind == "enum":
        return
    for key in ("base", "data", "returns"):
        value = definition.expr.get(key, {})
        named = _typed(value) if isinstance(value, dict) else [(key, value)]
        for name, ref in named:
            yield name, ref[0] if isinstance(ref, list) else ref


def _own_members(definition: Definition) -> list[str]:
    """The names that a definition's documentation describes."""
    expr = definition.expr
    if definition.kind == "enum":
        return [each["name"] if isinstance(each, dict) else each for each in expr["data"]]
    source = expr["base"] if definition.kind == "union" else expr.get("data")
    return [name for name, _ in _typed(source)] if isinstance(source, dict) else []


def _features(definition: Definition) -> Iterator[str]:
    """The features of a definition, of its members and its values."""
    expr = definition.expr
    holders: list[Any] = [expr]
    for source in (expr.get("data"), expr.get("base")):
        holders += source.values() if isinstance(source, dict) else source or []
    for holder in holders:
        if isinstance(holder, dict):
            for feature in holder.get("features", ()):
                yield feature["name"] if isinstance(feature, dict) else feature
