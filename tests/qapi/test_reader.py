from __future__ import annotations

from pathlib import Path

import pytest

from memd.compat import Compat
from memd.qapi.parser import parse_file
from memd.qapi.reader import defined_names, load_schema, read_expressions
from memd.qapi.source import SchemaError
from tests.qapi.files import MAIN, subjects


@pytest.mark.parametrize("path", [MAIN, *subjects()], ids=lambda path: path.name)
def test_what_is_read_with_its_documentation_is_the_same(path: Path) -> None:
    whole = [definition.expr for definition in parse_file(str(path))]
    assert read_expressions(str(path)) == whole


@pytest.mark.parametrize(
    "text", ["{ 'event': 'A' ", "'x'", '{ "event": "A" }', "{ 'event': 'A' } # a remark"]
)
def test_mistakes_are_told_with_their_place(directory: Path, text: str) -> None:
    path = directory / "s.json"
    path.write_text(f"\n{text}")
    with pytest.raises(SchemaError) as caught:
        read_expressions(str(path))
    assert str(caught.value).startswith(f"{path}:2: ")


def test_no_file(directory: Path) -> None:
    with pytest.raises(SchemaError):
        read_expressions(str(directory / "none.json"))


def test_one_schema_for_each_version() -> None:
    assert load_schema() is load_schema(Compat.V10_0)
    assert load_schema(Compat.V11_1) is load_schema(Compat.V11_1)
    assert load_schema() is not load_schema(Compat.V11_1)


def test_defined_names() -> None:
    assert defined_names(Compat.V10_0) == {"COMPAT_10_0"}
    assert defined_names(Compat.V11_1) == {"COMPAT_11_1"}


def test_what_is_for_tests_is_apart() -> None:
    ordinary, whole = load_schema(), load_schema(test=True)
    assert "x-test-faults" not in ordinary.commands
    assert "x-test-faults" in whole.commands
    assert whole is load_schema(test=True)
    assert set(ordinary.commands) < set(whole.commands)
