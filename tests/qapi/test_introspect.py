"""The form of query-qmp-schema's value; tests/differential holds it against QEMU's."""

from __future__ import annotations

from typing import Any

import pytest

from memd.compat import Compat
from memd.qapi.introspect import introspect
from memd.qapi.reader import load_schema
from memd.qapi.validator import Validator
from tests.qapi.files import schema_of, whole_schema

EXPRESSIONS: list[dict[str, Any]] = [
    {"command": "c", "data": "U", "boxed": True, "returns": ["S"], "allow-oob": True},
    {"command": "d", "features": ["unstable"]},
    {"event": "V", "data": {"a": "A", "*n": ["uint16"]}, "features": ["f"]},
    {"enum": "E", "data": ["a", {"name": "b", "features": ["deprecated"]}, "c"]},
    {"struct": "S", "data": {"*s": {"type": "S", "features": ["g"]}, "i": "size"}},
    {"union": "U", "base": {"e": "E"}, "discriminator": "e", "data": {"b": "S"}},
    {"alternate": "A", "data": {"i": "int", "s": ["str"]}},
]


def entries(told: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {entry["name"]: entry for entry in told}
    assert len(found) == len(told)
    return found


def test_form() -> None:
    told = introspect(schema_of(EXPRESSIONS))
    assert told == [
        {
            "name": "c",
            "meta-type": "command",
            "arg-type": "0",
            "ret-type": "[1]",
            "allow-oob": True,
        },
        {
            "name": "d",
            "meta-type": "command",
            "arg-type": "2",
            "ret-type": "2",
            "features": ["unstable"],
        },
        {"name": "V", "meta-type": "event", "arg-type": "3", "features": ["f"]},
        {
            "name": "0",
            "meta-type": "object",
            "members": [{"name": "e", "type": "4"}],
            "tag": "e",
            "variants": [
                {"case": "b", "type": "1"},
                {"case": "a", "type": "2"},
                {"case": "c", "type": "2"},
            ],
        },
        {
            "name": "1",
            "meta-type": "object",
            "members": [
                {"name": "s", "type": "1", "default": None, "features": ["g"]},
                {"name": "i", "type": "int"},
            ],
        },
        {"name": "[1]", "meta-type": "array", "element-type": "1"},
        {"name": "2", "meta-type": "object", "members": []},
        {
            "name": "3",
            "meta-type": "object",
            "members": [
                {"name": "a", "type": "5"},
                {"name": "n", "type": "[int]", "default": None},
            ],
        },
        {
            "name": "4",
            "meta-type": "enum",
            "members": [{"name": "a"}, {"name": "b", "features": ["deprecated"]}, {"name": "c"}],
            "values": ["a", "b", "c"],
        },
        {"name": "int", "meta-type": "builtin", "json-type": "int"},
        {
            "name": "5",
            "meta-type": "alternate",
            "members": [{"type": "int"}, {"type": "[str]"}],
        },
        {"name": "[int]", "meta-type": "array", "element-type": "int"},
        {"name": "str", "meta-type": "builtin", "json-type": "string"},
        {"name": "[str]", "meta-type": "array", "element-type": "str"},
    ]


@pytest.mark.parametrize("compat", list(Compat))
@pytest.mark.parametrize("load", [load_schema, whole_schema])
def test_every_type_is_told_of_once(compat: Compat, load: Any) -> None:
    schema = load(compat)
    told = entries(introspect(schema))
    referred: set[str] = set()
    for entry in told.values():
        referred |= {entry[key] for key in ("arg-type", "ret-type", "element-type") if key in entry}
        parts = [*entry.get("members", ()), *entry.get("variants", ())]
        referred |= {part["type"] for part in parts if "type" in part}
    callable_ = {*schema.commands, *schema.events}
    assert referred | callable_ == set(told)
    assert not referred & callable_


@pytest.mark.parametrize("compat", list(Compat))
def test_is_of_the_type_that_it_tells(compat: Compat) -> None:
    schema = load_schema(compat)
    assert not Validator(schema).violations(introspect(schema), "query-qmp-schema.returns")
