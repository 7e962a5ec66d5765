from __future__ import annotations

from typing import Any

import pytest

from memd.qapi.schema import Schema, definitions
from memd.qapi.types import AlternateType, ArrayType, BuiltinType, EnumType, ObjectType
from tests.qapi.files import schema_of

EXPRESSIONS: list[dict[str, Any]] = [
    {"enum": "E", "data": ["a", {"name": "b", "features": ["f"]}, {"name": "c", "if": "NO"}]},
    {"struct": "B", "data": {"e": "E", "*x": {"type": ["S"], "features": ["g"]}}},
    {"struct": "S", "data": {"n": {"type": "int", "if": "NO"}, "m": "size", "*s": "S"}},
    {"struct": "T", "base": "S", "data": {"t": "A"}, "features": ["f", {"name": "g", "if": "NO"}]},
    {
        "union": "U",
        "base": "B",
        "discriminator": "e",
        "data": {"a": "S", "b": {"type": "T", "if": "NO"}},
    },
    {"alternate": "A", "data": {"s": "str", "o": {"type": "S", "if": {"not": "YES"}}}},
    {"command": "c", "data": "U", "boxed": True, "returns": ["S"], "allow-oob": True},
    {"command": "d", "data": {"*x": "bool"}, "gen": False, "if": {"not": "NO"}},
    {"command": "e", "if": "NO"},
    {"event": "V", "data": "S", "features": ["f"]},
    {"event": "W"},
]


@pytest.fixture
def schema() -> Schema:
    return schema_of(EXPRESSIONS, "YES")


def test_what_there_is(schema: Schema) -> None:
    assert list(schema.commands) == ["c", "d"]
    assert list(schema.events) == ["V", "W"]
    assert schema.type_names == ["E", "B", "S", "T", "U", "A"]
    assert list(schema_of(EXPRESSIONS, "NO").commands) == ["c", "e"]


def test_commands(schema: Schema) -> None:
    c, d = schema.commands.values()
    assert (c.allow_oob, c.generated, c.allow_preconfig) == (True, True, False)
    assert (d.allow_oob, d.generated) == (False, False)
    assert c.arguments is schema.type("U")
    assert c.returns is schema.type(["S"])
    assert d.returns is None
    assert [member.name for member in d.arguments.members] == ["x"]
    assert d.arguments.name == "d.arguments"


def test_events(schema: Schema) -> None:
    assert schema.events["V"].data is schema.type("S")
    assert schema.events["V"].features == ["f"]
    assert schema.events["W"].data.members == []


def test_enum(schema: Schema) -> None:
    enum = schema.type("E")
    assert isinstance(enum, EnumType)
    assert [(member.name, member.features) for member in enum.members] == [("a", []), ("b", ["f"])]


def test_struct(schema: Schema) -> None:
    struct = schema.type("T")
    assert isinstance(struct, ObjectType)
    assert struct.features == ["f"]
    # A base's members come first.
    assert [(member.name, member.optional) for member in struct.members] == [
        *[("m", False), ("s", True), ("t", False)],
    ]
    assert struct.members[1].type is schema.type("S")
    assert struct.tag is None


def test_union(schema: Schema) -> None:
    union = schema.type("U")
    assert isinstance(union, ObjectType)
    assert [member.name for member in union.members] == ["e", "x"]
    assert union.tag is union.members[0]
    assert union.members[1].features == ["g"]
    assert union.branches == {"a": schema.type("S")}


def test_alternate(schema: Schema) -> None:
    alternate = schema.type("A")
    assert isinstance(alternate, AlternateType)
    assert list(alternate.alternatives) == ["s"]
    other = schema_of(EXPRESSIONS).type("A")
    assert isinstance(other, AlternateType)
    assert list(other.alternatives) == ["s", "o"]


def test_arrays_and_built_in_types(schema: Schema) -> None:
    array = schema.type(["uint16"])
    assert isinstance(array, ArrayType)
    assert array.name == "[uint16]"
    assert array is schema.type(["uint16"])
    element = array.element
    assert isinstance(element, BuiltinType)
    assert element.json_type == "int"


@pytest.mark.parametrize("ref", ["X", "c", "V", ["X"]])
def test_unknown_types(schema: Schema, ref: Any) -> None:
    with pytest.raises(KeyError):
        schema.type(ref)


def test_checkers(schema: Schema) -> None:
    assert schema.checker("c") is schema.checker("c")
    with pytest.raises(KeyError):
        schema.checker("e")


def test_only_an_object_type_is_one(schema: Schema) -> None:
    for name in ("E", "A"):
        with pytest.raises(KeyError):
            schema.object_type(name)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("YES", True),
        ("NO", False),
        ({"not": "NO"}, True),
    ],
)
def test_conditions(condition: Any, holds: bool) -> None:
    assert (definitions([{"enum": "E", "if": condition}], {"YES"}) != {}) is holds
