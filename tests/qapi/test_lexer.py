from __future__ import annotations

import pytest

from memd.qapi.lexer import tokens
from memd.qapi.source import SchemaError


def kinds(text: str) -> list[tuple[str, str, int]]:
    return [(token.kind, token.text, token.line) for token in tokens(text, "f")]


def test_tokens() -> None:
    assert kinds("{ 'a': [ true ],\n  'b': false } # rest\n") == [
        ("{", "{", 1),
        ("string", "a", 1),
        (":", ":", 1),
        ("[", "[", 1),
        ("word", "true", 1),
        ("]", "]", 1),
        (",", ",", 1),
        ("string", "b", 2),
        (":", ":", 2),
        ("word", "false", 2),
        ("}", "}", 2),
        ("", "", 3),
    ]


def test_documentation() -> None:
    assert kinds("#\n##\n# one\n#\n##\n'x' ## no\n") == [
        ("doc", "# one\n#", 2),
        ("string", "x", 6),
        ("", "", 7),
    ]


def test_empty() -> None:
    assert kinds("") == [("", "", 1)]
    assert kinds("##\n##") == [("doc", "", 1), ("", "", 2)]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("\n'a", 2, "string is not closed on its line"),
        ("'a\n'", 1, "string is not closed on its line"),
        ('"a"', 1, "strings stand in single quotes"),
        ("'a\\n'", 1, "a string holds printable ASCII and no backslash"),
        ("'é'", 1, "a string holds printable ASCII and no backslash"),
        ("\t'a'", 1, "tabs are not used; indent by spaces"),
        ("nul", 1, "unknown word 'nul'"),
        ("1", 1, "stray '1'"),
        ("##\n# a\n", 1, "documentation comment is not closed by '##'"),
        ("##\n# a\nb\n##", 1, "documentation comment is not closed by '##'"),
    ],
)
def test_mistakes(text: str, line: int, message: str) -> None:
    with pytest.raises(SchemaError) as caught:
        kinds(text)
    assert str(caught.value) == f"f:{line}: {message}"
