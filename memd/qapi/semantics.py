"""Checks of definitions against each other, and against their documentation.

`check_file` is the whole check of a schema: what it accepts, everything else in
this room takes without a further look.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from memd.qapi.expr import check_definition
from memd.qapi.names import folded
from memd.qapi.parser import Parsed, parse_file
from memd.qapi.source import Definition, Pragmas
from memd.qapi.types import BUILTINS

# What JSON values of a type look like, as far as an alternate must tell.
_SHAPES = {
    "string": "string",
    "int": "number",
    "number": "number",
    "boolean": "boolean",
    "null": "null",
}


def check_file(path: str) -> Parsed:
    """Reads and checks a schema file and all that it includes.

    Raises:
        SchemaError: for the first mistake.
    """
    parsed = parse_file(path)
    for definition in parsed.definitions:
        check_definition(definition, parsed.pragmas)
    _Checker(parsed).run()
    return parsed


class _Checker:
    def __init__(self, parsed: Parsed) -> None:
        self._definitions = parsed.definitions
        self._pragmas: Pragmas = parsed.pragmas
        self._types: dict[str, Definition] = {}

    def run(self) -> None:
        self._check_names()
        for definition in self._definitions:
            self._check_references(definition)
        for definition in self._definitions:
            if definition.kind in ("struct", "union"):
                self._check_circle(definition)
        for definition in self._definitions:
            if definition.kind == "union":
                self._check_union(definition)
            elif definition.kind == "alternate":
                self._check_alternate(definition)
            elif definition.kind in ("command", "event"):
                self._check_data(definition)
            elif definition.kind == "struct":
                self._members(definition)
            self._check_doc(definition)

    def _check_names(self) -> None:
        seen: dict[str, Definition] = {}
        for definition in self._definitions:
            name = definition.name
            if name in BUILTINS:
                raise definition.place.error(f"'{name}' is a type of the language")
            earlier = seen.setdefault(folded(name), definition)
            if earlier is not definition:
                where = f"{earlier.place.file}:{earlier.place.line}"
                raise definition.place.error(f"'{name}' is already defined at {where}")
            if definition.kind not in ("command", "event"):
                self._types[name] = definition

    def _check_references(self, definition: Definition) -> None:
        for what, ref in _references(definition):
            if ref not in BUILTINS and ref not in self._types:
                raise definition.place.error(f"{what} uses unknown type '{ref}'")

    def _kind(self, ref: Any) -> str:
        if isinstance(ref, list):
            return "array"
        return "builtin" if ref in BUILTINS else self._types[ref].kind

    def _check_circle(self, definition: Definition) -> None:
        """A type cannot be its own base or branch."""
        on_way = [definition.name]
        pending = [iter(self._parts(definition))]
        while pending:
            part = next(pending[-1], None)
            if part is None:
                pending.pop()
                on_way.pop()
            elif part == definition.name:
                raise definition.place.error("contains itself")
            elif part not in on_way:
                on_way.append(part)
                pending.append(iter(self._parts(self._types[part])))

    def _parts(self, definition: Definition) -> list[str]:
        parts: list[str] = []
        if definition.kind in ("struct", "union"):
            base = definition.expr.get("base")
            if isinstance(base, str):
                if self._kind(base) != "struct":
                    raise definition.place.error(f"base '{base}' is not a struct")
                parts.append(base)
            if definition.kind == "union":
                for branch, ref in _typed(definition.expr["data"]):
                    if self._kind(ref) not in ("struct", "union"):
                        raise definition.place.error(
                            f"branch '{branch}' is not of a struct or union type"
                        )
                    parts.append(ref)
        return parts

    def _members(self, definition: Definition) -> dict[str, Any]:
        """The members of a struct, or of a union without its branches."""
        base = definition.expr.get("base")
        inherited: dict[str, Any] = {}
        if isinstance(base, str):
            inherited = self._members(self._types[base])
        own = base if isinstance(base, dict) else {}
        if definition.kind == "struct":
            own = definition.expr["data"]
        return self._joined(definition, inherited, own)

    def _joined(
        self, definition: Definition, first: dict[str, Any], second: dict[str, Any]
    ) -> dict[str, Any]:
        names = {folded(key.removeprefix("*")): key.removeprefix("*") for key in first}
        for key in second:
            name = key.removeprefix("*")
            if folded(name) in names:
                other = names[folded(name)]
                raise definition.place.error(f"member '{name}' clashes with member '{other}'")
        return {**first, **second}

    def _check_union(self, definition: Definition) -> None:
        place = definition.place
        members = self._members(definition)
        tag = definition.expr["discriminator"]
        if f"*{tag}" in members:
            raise place.error(f"discriminator '{tag}' is an optional member")
        if tag not in members:
            raise place.error(f"discriminator '{tag}' is not a member of the base")
        ref = _type_of(members[tag])
        if isinstance(members[tag], dict) and "if" in members[tag]:
            raise place.error(f"discriminator '{tag}' is a member with a condition")
        if self._kind(ref) != "enum":
            raise place.error(f"discriminator '{tag}' is not of an enum type")
        cases = {_enum_name(item) for item in self._types[ref].expr["data"]}
        for branch, branch_ref in _typed(definition.expr["data"]):
            if branch not in cases:
                raise place.error(f"branch '{branch}' is not a value of enum '{ref}'")
            inner = self._types[branch_ref]
            self._joined(definition, members, self._members(inner))

    def _check_alternate(self, definition: Definition) -> None:
        taken: dict[str, str] = {}
        for name, ref in _typed(definition.expr["data"]):
            for shape in self._shapes(definition, name, ref):
                other = taken.setdefault(shape, name)
                if other != name:
                    raise definition.place.error(
                        f"alternative '{name}' can't be told from '{other}'"
                    )

    def _shapes(self, definition: Definition, name: str, ref: Any) -> Iterable[str]:
        """What an alternative takes up, as JSON or as text on a command line."""
        kind = self._kind(ref)
        if kind == "array":
            return ("array",)
        if kind in ("struct", "union"):
            return ("object",)
        if kind == "alternate" or ref == "any":
            raise definition.place.error(f"alternative '{name}' can't be of type '{ref}'")
        if kind == "enum":
            shapes = {"string"}
            for value in (_enum_name(item) for item in self._types[ref].expr["data"]):
                if value in ("on", "off"):
                    shapes.add("boolean")
                if value[0].isdigit():
                    shapes.add("number")
            return sorted(shapes)
        shape = _SHAPES[BUILTINS[ref]]
        # Text may be anything, so a command line could not tell them apart.
        return ("string", "number", "boolean") if shape == "string" else (shape,)

    def _check_data(self, definition: Definition) -> None:
        place, expr = definition.place, definition.expr
        data = expr.get("data")
        if isinstance(data, str):
            allowed = ("struct", "union") if expr.get("boxed") else ("struct",)
            if self._kind(data) not in allowed:
                hint = "" if expr.get("boxed") else ", or a union with 'boxed'"
                raise place.error(f"'data' must be of a struct type{hint}, '{data}' is not")
        returns = expr.get("returns")
        if (
            returns is None
            or definition.name in self._pragmas.exceptions["command-returns-exceptions"]
        ):
            return
        element = returns[0] if isinstance(returns, list) else returns
        if self._kind(element) not in ("struct", "union"):
            raise place.error(f"'returns' must be of objects, '{element}' is not")

    def _check_doc(self, definition: Definition) -> None:
        place, doc = definition.place, definition.doc
        if doc is None:
            if self._pragmas.doc_required:
                raise place.error("documentation comment is missing")
            return
        if "Since" not in doc.sections:
            raise place.error("documentation lacks 'Since:'")
        if not doc.body:
            raise place.error("documentation does not say what it is")
        if "Returns" in doc.sections and "returns" not in definition.expr:
            raise place.error("documentation has 'Returns:' where nothing is returned")
        if "Returns" not in doc.sections and "returns" in definition.expr:
            raise place.error("documentation lacks 'Returns:'")
        members = set(_own_members(definition))
        for name in doc.members:
            if name not in members:
                raise place.error(f"documented member '{name}' does not exist")
        if definition.name not in self._pragmas.exceptions["documentation-exceptions"]:
            for name in _own_members(definition):
                if not doc.members.get(name):
                    raise place.error(f"member '{name}' is not documented")
        features = set(_features(definition))
        for name in doc.features:
            if name not in features:
                raise place.error(f"documented feature '{name}' does not exist")
        for name in sorted(features - set(doc.features)):
            raise place.error(f"feature '{name}' is not documented")


def _type_of(member: Any) -> Any:
    return member["type"] if isinstance(member, dict) else member


def _typed(data: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name.removeprefix("*"), _type_of(member)) for name, member in data.items()]


def _enum_name(item: Any) -> str:
    name: str = item["name"] if isinstance(item, dict) else item
    return name


def _references(definition: Definition) -> Iterator[tuple[str, str]]:
    """Every type that a definition names, with what names it."""
    expr = definition.expr
    if definition.kind == "enum":
        return
    for key in ("base", "data", "returns"):
        value = expr.get(key)
        named = _typed(value) if isinstance(value, dict) else [(key, value)] if value else []
        for name, ref in named:
            yield f"'{name}'", ref[0] if isinstance(ref, list) else ref


def _own_members(definition: Definition) -> list[str]:
    """What a definition's documentation describes by name."""
    expr = definition.expr
    if definition.kind == "enum":
        return [_enum_name(item) for item in expr["data"]]
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
                yield _enum_name(feature)
