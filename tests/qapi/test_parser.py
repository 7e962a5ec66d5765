from __future__ import annotations

from pathlib import Path

import pytest

from memd.qapi.parser import Parsed, parse_file
from memd.qapi.source import SchemaError


def parse(directory: Path, text: str, **others: str) -> Parsed:
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
    parsed = parse(
        directory,
        "##\n# = Text\n##\n\n##\n# @A:\n#\n# A.\n##\n"
        "{ 'struct': 'A', 'data': { '*x': ['int'] } }\n\n"
        "{ 'command': 'b', 'gen': false, 'data': {}, 'features': [] }\n",
    )
    first, second = parsed.definitions
    assert (first.kind, first.name) == ("struct", "A")
    assert first.expr == {"struct": "A", "data": {"*x": ["int"]}}
    assert first.place.line == 10
    assert first.doc is not None
    assert first.doc.body == "A."
    assert (second.kind, second.name, second.doc) == ("command", "b", None)
    assert second.expr["gen"] is False
    assert second.place.line == 12


def test_includes_once_and_from_its_own_directory(directory: Path) -> None:
    (directory / "sub").mkdir()
    (directory / "sub" / "c.json").write_text("{ 'event': 'C' }")
    parsed = parse(
        directory,
        "{ 'include': 'a.json' }\n{ 'include': 'sub/b.json' }\n{ 'event': 'M' }",
        a="{ 'include': 'sub/../a2.json' }\n{ 'event': 'A' }",
        a2="{ 'event': 'A2' }",
        **{"sub/b": "{ 'include': '../a.json' }\n{ 'include': 'c.json' }"},
    )
    assert [definition.name for definition in parsed.definitions] == ["A2", "A", "C", "M"]
    assert [Path(file).name for file in parsed.files] == [
        *["main.json", "a.json", "a2.json", "b.json", "c.json"]
    ]


def test_pragmas(directory: Path) -> None:
    parsed = parse(
        directory,
        "{ 'include': 'p.json' }\n{ 'pragma': { 'command-name-exceptions': ['b'] } }",
        p="{ 'pragma': { 'doc-required': true, 'command-name-exceptions': ['a'] } }",
    )
    assert parsed.pragmas.doc_required
    assert parsed.pragmas.exceptions["command-name-exceptions"] == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", "main.json:1: expected an object, a definition or directive"),
        ("'a'", "main.json:1: expected an object, a definition or directive"),
        ("\n{", "main.json:2: expected a string as key, or '}'"),
        ("{ 'a' }", "main.json:1: expected ':'"),
        ("{ 'a': }", "main.json:1: expected '{', '[', a string or a boolean"),
        ("{ 'a': 'b' 'c': 'd' }", "main.json:1: expected ',' or '}'"),
        ("{ 'a': [ 'b' 'c' ] }", "main.json:1: expected ',' or ']'"),
        ("{ 'a':", "main.json:1: expected '{', '[', a string or a boolean"),
        ("{ 'a':##\n", "main.json:2: expected '{', '[', a string or a boolean"),
        ("{ 'a': [ 'b', ] }", "main.json:1: expected '{', '[', a string or a boolean"),
        ("{ 'a': 'b',\n 'a': 'c' }", "main.json:2: duplicate key 'a'"),
        ("{ 'a': 'b' ", "main.json:1: expected ',' or '}'"),
        (
            "{ 'a': 'b' }",
            "main.json:1: expected one of enum, struct, union, alternate, command, event, "
            "include, pragma",
        ),
        (
            "{ 'struct': 'A', 'event': 'B' }",
            "main.json:1: expected one of enum, struct, union, alternate, command, event, "
            "include, pragma",
        ),
        ("{ 'struct': [] }", "main.json:1: 'struct' must be a string"),
        ("{ 'include': 'x', 'y': 'z' }", "main.json:1: 'include' is a string and stands alone"),
        ("{ 'include': true }", "main.json:1: 'include' is a string and stands alone"),
        ("{ 'include': 'main.json' }", "main.json:1: 'main.json' includes itself"),
        ("{ 'include': 'b.json' }", "b.json:1: 'main.json' includes itself"),
        ("\n{ 'include': 'no' }", "main.json:2: can't read 'no': No such file or directory"),
        ("{ 'include': 'latin.json' }", "main.json:1: can't read 'latin.json': not UTF-8"),
        ("{ 'pragma': [] }", "main.json:1: 'pragma' is an object and stands alone"),
        ("{ 'pragma': { 'x': true } }", "main.json:1: unknown pragma 'x'"),
        (
            "{ 'pragma': { 'doc-required': 'x' } }",
            "main.json:1: pragma 'doc-required' is a boolean",
        ),
        (
            "{ 'pragma': { 'member-name-exceptions': [ true ] } }",
            "main.json:1: pragma 'member-name-exceptions' is an array of strings",
        ),
        ("##\n# @A:\n##\n", "main.json:1: documentation of 'A' without it"),
        (
            "##\n# @A:\n##\n\n##\n# text\n##\n{ 'event': 'A' }",
            "main.json:1: documentation of 'A' without it",
        ),
        (
            "##\n# @A:\n##\n{ 'event': 'B' }",
            "main.json:4: event 'B': its documentation is of 'A'",
        ),
        (
            "##\n# @A:\n##\n{ 'pragma': {} }",
            "main.json:4: documentation of 'A' before a directive",
        ),
        (
            "##\n# @A:\n#\n# @b: c\n# d\n##\n{ 'event': 'A' }",
            "main.json:5: the text of 'b' goes on indented",
        ),
    ],
)
def test_mistakes(directory: Path, text: str, expected: str) -> None:
    (directory / "latin.json").write_bytes(b"# \xe9")
    assert complaint(directory, text, b="{ 'include': 'main.json' }") == expected


def test_no_file(directory: Path) -> None:
    with pytest.raises(SchemaError) as caught:
        parse_file(str(directory / "none.json"))
    assert caught.value.message.endswith("No such file or directory")
