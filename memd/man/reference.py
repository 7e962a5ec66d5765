"""memd-qmp-ref(7): commands, events and types, from the schema and its documentation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from memd.json_types import JSONObject
from memd.man.roff import Page
from memd.qapi.doc import Doc
from memd.qapi.parser import parse_file
from memd.qapi.reader import schema_file
from memd.qapi.source import Definition

_KINDS = (
    ("COMMANDS", ("command",)),
    ("EVENTS", ("event",)),
    ("TYPES", ("enum", "struct", "union", "alternate")),
)

_ABOUT = """\
What memd serves over QMP. Members marked "optional" may be left out. Where a
definition depends on the release that memd stands in for (see --compat in
memd(8)), a condition says so."""


def reference() -> Page:
    """The page."""
    page = Page("memd-qmp-ref", 7, "the QMP commands, events and types of memd")
    page.heading("DESCRIPTION", _ABOUT)
    definitions = parse_file(schema_file())
    for heading, kinds in _KINDS:
        page.heading(heading)
        for each in sorted(definitions, key=lambda definition: definition.name):
            if each.kind in kinds:
                _describe(page, each)
    page.heading("SEE ALSO", "memd(8), memctl(1)")
    return page


def _describe(page: Page, definition: Definition) -> None:
    doc, expr = definition.doc or Doc(), definition.expr
    page.subheading(
        definition.name
        if definition.kind == "command"
        else f"{definition.name} ({definition.kind})"
    )
    if doc.body:
        page.paragraph(doc.body)
    for name, what in _members(definition):
        page.tagged(f"{name}{what}", doc.members.get(name, ""))
    returns = expr.get("returns")
    if returns is not None:
        page.tagged(f"Returns: {type_name(returns)}", doc.sections.get("Returns", ""))
    if "Errors" in doc.sections:
        page.tagged("Errors:", doc.sections["Errors"])
    for name, text in doc.features.items():
        page.tagged(f"Feature {name}", text)
    flags = [flag for flag in ("allow-oob", "allow-preconfig") if expr.get(flag)]
    if flags:
        page.paragraph(f"Flags: {', '.join(flags)}.")
    if "if" in expr:
        page.paragraph(f"If {condition(expr['if'])}.")
    if "Since" in doc.sections:
        page.paragraph(f"Since: {doc.sections['Since']}")


def _members(definition: Definition) -> Iterator[tuple[str, str]]:
    """Each member's name, and what stands behind it: its type, its condition."""
    kind, expr = definition.kind, definition.expr
    data = expr.get("data", {})
    if kind == "enum":
        for item in data:
            item = item if isinstance(item, dict) else {"name": item}
            yield item["name"], _if(item)
        return
    base = expr.get("base")
    if isinstance(base, str):
        yield "", f"the members of {base}"
    elif base:
        yield from _fields(base)
    if isinstance(data, str):
        yield "", f"the members of {data}"
    elif kind == "union":
        for name, branch in data.items():
            what = f"with {expr['discriminator']} = {name}: the members of {type_name(branch)}"
            yield "", f"{what}{_if(branch)}"
    else:
        yield from _fields(data)


def _fields(data: JSONObject) -> Iterator[tuple[str, str]]:
    for name, field in data.items():
        optional = ", optional" if name.startswith("*") else ""
        yield name.removeprefix("*"), f": {type_name(field)}{optional}{_if(field)}"


def _if(item: Any) -> str:
    return f" (if {condition(item['if'])})" if isinstance(item, dict) and "if" in item else ""


def type_name(ref: Any) -> str:
    """The name of a type that is referred to: `[str]` is "array of str"."""
    if isinstance(ref, dict):
        ref = ref["type"]
    return f"array of {ref[0]}" if isinstance(ref, list) else str(ref)


def condition(expr: Any) -> str:
    """An `if` condition in words."""
    return expr if isinstance(expr, str) else f"not {expr['not']}"
