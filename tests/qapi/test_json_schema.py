from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from memd.compat import Compat
from memd.qapi.doc import parse_doc
from memd.qapi.json_schema import json_schema
from memd.qapi.reader import load_schema
from tests.qapi.files import schema_of, whole_schema

EXPRESSIONS: list[dict[str, Any]] = [
    {"command": "c", "data": "U", "boxed": True, "returns": ["S"]},
    {"command": "d", "data": {"x": "any", "*y": "A"}, "features": ["deprecated"]},
    {"command": "e", "data": {"x": "str"}, "gen": False, "allow-oob": True},
    {"event": "V", "data": {"n": {"type": ["uint16"], "features": ["unstable"]}}},
    {"enum": "E", "data": ["a", "b"]},
    {"struct": "S", "data": {"*s": "S", "i": "int", "z": "size", "n": "number"}},
    {"union": "U", "base": {"e": "E"}, "discriminator": "e", "data": {"b": "S"}},
    {"union": "W", "base": {"f": "E"}, "discriminator": "f", "data": {"a": "U"}},
    {"alternate": "A", "data": {"i": "int8", "s": ["str"], "n": "null"}},
]


@pytest.fixture(scope="module")
def defs() -> dict[str, Any]:
    defs: dict[str, Any] = json_schema(schema_of(EXPRESSIONS))["$defs"]
    return defs


def plain(schema: dict[str, Any]) -> dict[str, Any]:
    """Without remarks."""
    return {
        key: plain(value) if isinstance(value, dict) else value
        for key, value in schema.items()
        if key != "$comment"
    }


def test_struct(defs: dict[str, Any]) -> None:
    assert plain(defs["S"]) == {
        "type": "object",
        "properties": {
            "s": {"$ref": "#/$defs/S"},
            "i": {"type": "integer", "minimum": -(1 << 63), "maximum": (1 << 63) - 1},
            "z": {"type": "integer", "minimum": -(1 << 63), "maximum": (1 << 64) - 1},
            "n": {"type": "number"},
        },
        "required": ["i", "z", "n"],
        "additionalProperties": False,
    }
    assert "1.0 is not an integer" in defs["S"]["properties"]["i"]["$comment"]
    assert "wrap around" in defs["S"]["properties"]["z"]["$comment"]


def test_enum(defs: dict[str, Any]) -> None:
    assert defs["E"] == {"type": "string", "enum": ["a", "b"]}


def test_union(defs: dict[str, Any]) -> None:
    def choice(case: str) -> dict[str, Any]:
        return {
            "if": {"properties": {"e": {"const": case}}, "required": ["e"]},
            "then": {"$ref": f"#/$defs/U.{case}"},
        }

    assert defs["U"] == {
        "type": "object",
        "properties": {"e": {"$ref": "#/$defs/E"}},
        "required": ["e"],
        "allOf": [choice("a"), choice("b")],
    }
    assert defs["U.a"] == {
        "type": "object",
        "properties": {"e": {"$ref": "#/$defs/E"}},
        "required": ["e"],
        "additionalProperties": False,
    }
    assert list(defs["U.b"]["properties"]) == ["e", "s", "i", "z", "n"]
    assert defs["U.b"]["required"] == ["e", "i", "z", "n"]


def test_branches_of_branches(defs: dict[str, Any]) -> None:
    assert [choice["then"] for choice in defs["W"]["allOf"]] == [
        {"$ref": "#/$defs/W.a"},
        {"$ref": "#/$defs/W.b"},
    ]
    assert [choice["then"] for choice in defs["W.a"]["allOf"]] == [
        {"$ref": "#/$defs/W.a.a"},
        {"$ref": "#/$defs/W.a.b"},
    ]
    assert list(defs["W.a.b"]["properties"]) == ["f", "e", "s", "i", "z", "n"]


def test_alternate(defs: dict[str, Any]) -> None:
    assert plain(defs["A"])["anyOf"][1:] == [
        {"type": "array", "items": {"type": "string"}},
        {"type": "null"},
    ]
    assert plain(defs["A"]["anyOf"][0]) == {"type": "integer", "minimum": -128, "maximum": 127}


def test_commands_and_events(defs: dict[str, Any]) -> None:
    assert defs["c.arguments"] == {"$ref": "#/$defs/U"}
    assert defs["c.returns"] == {"type": "array", "items": {"$ref": "#/$defs/S"}}
    assert defs["d.arguments"]["properties"] == {"x": {}, "y": {"$ref": "#/$defs/A"}}
    assert defs["d.arguments"]["deprecated"] is True
    assert defs["d.returns"] == {"type": "object", "properties": {}, "additionalProperties": False}
    assert defs["e.arguments"]["additionalProperties"] is True
    assert plain(defs["V.data"]["properties"]["n"]["items"]) == {
        "type": "integer",
        "minimum": 0,
        "maximum": 65535,
    }
    assert defs["V.data"]["properties"]["n"]["$comment"] == "features: unstable"
    assert defs["message.request"]["properties"]["exec-oob"]["enum"] == ["e"]


def test_documentation_becomes_descriptions() -> None:
    docs = {
        "S": parse_doc("# @S:\n#\n# An @S.\n#\n# @i: of\n#     two lines"),
        "U": parse_doc("# @U:\n#\n# A union.\n#\n# @e: the tag"),
    }
    told = json_schema(schema_of(EXPRESSIONS), docs)["$defs"]
    assert told["S"]["description"] == "An S."
    assert told["S"]["properties"]["i"]["description"] == "of two lines"
    assert told["U"]["description"] == "A union."
    assert told["U.b"]["properties"]["e"]["description"] == "the tag"
    assert told["U.b"]["properties"]["i"]["description"] == "of two lines"


@pytest.mark.parametrize("compat", list(Compat))
def test_is_a_json_schema_without_loose_ends(compat: Compat) -> None:
    served, whole = (json_schema(load(compat)) for load in (load_schema, whole_schema))
    for document in (served, whole):
        for ref in references(document):
            assert ref.removeprefix("#/$defs/") in document["$defs"]
    Draft202012Validator.check_schema(whole)
    # The other one needs no look that takes a second: its messages alone differ, in names.
    known = whole["$defs"]
    differing = {name for name, value in served["$defs"].items() if known.get(name) != value}
    assert differing == {"message.request", "message.event"}
    for name in differing:
        Draft202012Validator.check_schema(served["$defs"][name])


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [ref for part in value.values() for ref in references(part)]
    if isinstance(value, list):
        return [ref for part in value for ref in references(part)]
    return []
