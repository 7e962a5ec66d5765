"""memd-qmp-ref(7): everything that the schema defines is in it."""

from __future__ import annotations

import pytest

from memd.man.reference import condition, reference, type_name
from memd.man.roff import escaped
from memd.qapi.parser import parse_file
from memd.qapi.reader import schema_file


def test_every_definition_is_there() -> None:
    source = reference().source()
    for definition in parse_file(schema_file()):
        name = definition.name
        heading = name if definition.kind == "command" else f"{name} ({definition.kind})"
        assert f'.SS "{escaped(heading)}"\n' in source
        for member in definition.doc.members if definition.doc else ():
            assert f"\\fB{escaped(member)}" in source


def test_a_command() -> None:
    source = reference().source()
    part = source.partition(f'.SS "{escaped("x-memdev-read")}"\n')[2].partition(".SS")[0]
    assert escaped("Reads the memory of a backend, at most 16 MiB at once.") in part
    assert "\\fBoffset: size\\fR" in part
    assert "\\fBReturns: MemdevData\\fR\nthe bytes" in part


@pytest.mark.parametrize(
    ("ref", "text"),
    [("str", "str"), (["int"], "array of int"), ({"type": ["E"], "if": "X"}, "array of E")],
)
def test_types(ref: object, text: str) -> None:
    assert type_name(ref) == text


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        ("A", "A"),
        ({"not": "A"}, "not A"),
    ],
)
def test_conditions(expr: object, text: str) -> None:
    assert condition(expr) == text
