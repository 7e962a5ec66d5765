from __future__ import annotations

from pathlib import Path

import pytest

from memd.qapi.parser import parse_file
from memd.qapi.source import Definition, SchemaError


def parse(directory: Path, text: str, **others: str) -> list[Definition]:
    for name, content in others.items():
        (directory / f"{name}.json").write_text(content)
    path = directory / "main.json"
    path.write_text(text)
    return parse_file(str(path))


def complaint(directory: Path, text: str, **others: str) -> str:
    with pytest.raises(SchemaError) as caught:
        parse(directory, text, **others)
    return str(caught.value).replace(f"{directory}/", "")


def test_definitions(directory: Path) -> None:
    first, second = parse(
        directory,
        "##\n# = Text\n##\n\n##\n# @A:\n#\n# A.\n##\n"
        "{ 'struct': 'A', 'data': { '*x': ['int'] } }\n\n"
        "{ 'command': 'b', 'gen': false, 'data': {}, 'features': [] }\n",
    )
    assert (first.kind, first.name) == ("struct", "A")
    assert first.expr == {"struct": "A", "data": {"*x": ["int"]}}
    assert first.line == 10
    assert first.doc is not None
    assert first.doc.body == "A."
    assert (second.kind, second.name, second.doc) == ("command", "b", None)
    assert second.expr["gen"] is False
    assert second.line == 12


def test_includes_once_and_from_its_own_directory(directory: Path) -> None:
    (directory / "sub").mkdir()
    (directory / "sub" / "c.json").write_text("{ 'event': 'C' }")
    definitions = parse(
        directory,
        "{ 'include': 'a.json' }\n{ 'include': 'sub/b.json' }\n{ 'event': 'M' }",
        a="{ 'include': 'sub/../a2.json' }\n{ 'event': 'A' }",
        a2="{ 'event': 'A2' }",
        **{"sub/b": "{ 'include': '../a.json' }\n{ 'include': 'c.json' }"},
    )
    assert [definition.name for definition in definitions] == ["A2", "A", "C", "M"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", "main.json:1: expected an object, a definition or directive"),
        ("'a'", "main.json:1: expected an object, a definition or directive"),
        ("\n{", "main.json:2: Expecting property name enclosed in double quotes"),
        ("{ 'a' }", "main.json:1: Expecting ':' delimiter"),
        ("{ 'a': }", "main.json:1: Expecting value"),
        ("{ 'a': 'b' 'c': 'd' }", "main.json:1: Expecting ',' delimiter"),
        ("{ 'a': [ 'b' 'c' ] }", "main.json:1: Expecting ',' delimiter"),
        ("{ 'a':", "main.json:1: Expecting value"),
        ("{ 'a':##\n", "main.json:1: # stands in comments only"),
        ("{ 'a': 'b',\n 'a': 'c' }", "main.json:1: an object has a key twice"),
        ("{ 'a': 'b' ", "main.json:1: Expecting ',' delimiter"),
        (
            "{ 'a': 'b' }",
            "main.json:1: expected one name of command, event, struct, enum, union, alternate",
        ),
        (
            "{ 'struct': 'A', 'event': 'B' }",
            "main.json:1: expected one name of command, event, struct, enum, union, alternate",
        ),
        (
            "{ 'struct': [] }",
            "main.json:1: expected one name of command, event, struct, enum, union, alternate",
        ),
        ("{ 'include': 'x', 'y': 'z' }", "main.json:1: 'include' is a string and stands alone"),
        ("{ 'include': true }", "main.json:1: 'include' is a string and stands alone"),
        ("\n{ 'include': 'no' }", "no:1: can't be read: No such file or directory"),
        ("{ 'include': 'latin.json' }", "latin.json:1: can't be read: not ASCII"),
        (
            "##\n# @A:\n##\n\n##\n# text\n##\n{ 'event': 'A' }",
            "main.json:8: documentation of 'A' without it",
        ),
        ("##\n# @A:\n##\n{ 'event': 'B' }", "main.json:4: event 'B': its documentation is of 'A'"),
        (
            "##\n# @A:\n#\n# @b: c\n# d\n##\n{ 'event': 'A' }",
            "main.json:1: the text of 'b' goes on indented",
        ),
    ],
)
def test_mistakes(directory: Path, text: str, expected: str) -> None:
    (directory / "latin.json").write_bytes(b"# \xe9")
    assert complaint(directory, text, b="{ 'include': 'main.json' }") == expected


def test_a_comma_at_the_end(directory: Path) -> None:
    """The json module's words, which are others since Python 3.13."""
    assert complaint(directory, "{ 'a': [ 'b', ] }").startswith("main.json:1: ")


def test_no_file(directory: Path) -> None:
    with pytest.raises(SchemaError) as caught:
        parse_file(str(directory / "none.json"))
    assert caught.value.message.endswith("No such file or directory")
