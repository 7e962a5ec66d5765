"""Mistakes between definitions and in pragmas, each with the words that it gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from memd.qapi.source import SchemaError
from tests.qapi.files import check
from tests.qapi.rules import pragmas

E = "{ 'enum': 'E', 'data': [ 'a', 'b' ] }\n"
S = "{ 'struct': 'S', 'data': { 'x': 'int' } }\n"
DOC = "{ 'pragma': { 'doc-required': true } }\n"

MISTAKES = [
    ("{ 'struct': 'S', 'data': { 'a': 'T' } }", "struct 'S': 'a' uses unknown type 'T'"),
    ("{ 'struct': 'S', 'data': { 'a': [ 'T' ] } }", "struct 'S': 'a' uses unknown type 'T'"),
    ("{ 'struct': 'S', 'base': 'T', 'data': {} }", "struct 'S': 'base' uses unknown type 'T'"),
    ("{ 'command': 'c', 'returns': 'T' }", "command 'c': 'returns' uses unknown type 'T'"),
    ("{ 'command': 'c', 'data': 'T' }", "command 'c': 'data' uses unknown type 'T'"),
    (S + "{ 'enum': 'S', 'data': [] }", "enum 'S': 'S' is already defined at s.json:1"),
    ("{ 'event': 'A' }\n{ 'event': 'A' }", "event 'A': 'A' is already defined at s.json:1"),
    (E + "{ 'struct': 'S', 'base': 'E', 'data': {} }", "struct 'S': base 'E' is not a struct"),
    ("{ 'struct': 'S', 'base': 'S', 'data': {} }", "struct 'S': contains itself"),
    (
        "{ 'struct': 'S', 'base': 'T', 'data': {} }\n{ 'struct': 'T', 'base': 'S', 'data': {} }",
        "struct 'S': contains itself",
    ),
    (
        E + "{ 'union': 'U', 'base': { 'e': 'E' }, 'discriminator': 'e', 'data': { 'a': 'U' } }",
        "union 'U': contains itself",
    ),
    (
        S + "{ 'struct': 'T', 'base': 'S', 'data': { '*x': 'str' } }",
        "struct 'T': member 'x' is there twice",
    ),
    (
        E + "{ 'union': 'U', 'base': { '*e': 'E' }, 'discriminator': 'e', 'data': {} }",
        "union 'U': discriminator 'e' is not a member of the base, always there, of an enum type",
    ),
    (
        E + "{ 'union': 'U', 'base': { 'e': 'E' }, 'discriminator': 'f', 'data': {} }",
        "union 'U': discriminator 'f' is not a member of the base, always there, of an enum type",
    ),
    (
        E + "{ 'union': 'U', 'base': { 'e': { 'type': 'E', 'if': 'X' } }, "
        "'discriminator': 'e', 'data': {} }",
        "union 'U': discriminator 'e' is not a member of the base, always there, of an enum type",
    ),
    (
        "{ 'union': 'U', 'base': { 'e': 'str' }, 'discriminator': 'e', 'data': {} }",
        "union 'U': discriminator 'e' is not a member of the base, always there, of an enum type",
    ),
    (
        E
        + S
        + "{ 'union': 'U', 'base': { 'e': 'E' }, 'discriminator': 'e', 'data': { 'c': 'S' } }",
        "union 'U': branch 'c' is not a value of enum 'E'",
    ),
    (
        E + "{ 'union': 'U', 'base': { 'e': 'E' }, 'discriminator': 'e', 'data': { 'a': 'int' } }",
        "union 'U': branch 'a' is not of a struct or union type",
    ),
    (
        E
        + S
        + "{ 'union': 'U', 'base': { 'e': 'E', 'x': 'str' }, 'discriminator': 'e', "
        + "'data': { 'a': 'S' } }",
        "union 'U': member 'x' is in branch 'a' again",
    ),
    (
        "{ 'alternate': 'A', 'data': { 'a': 'int', 'b': 'number' } }",
        "alternate 'A': alternative 'b' can't be told from 'a'",
    ),
    (
        S + "{ 'alternate': 'A', 'data': { 'a': 'S', 'b': 'S' } }",
        "alternate 'A': alternative 'b' can't be told from 'a'",
    ),
    (
        "{ 'alternate': 'A', 'data': { 'a': 'any' } }",
        "alternate 'A': alternative 'a' can't be of type 'any'",
    ),
    (E + "{ 'command': 'c', 'data': 'E' }", "command 'c': 'data' is not of type struct"),
    (
        E + "{ 'union': 'U', 'base': { 'e': 'E' }, 'discriminator': 'e', 'data': {} }\n"
        "{ 'event': 'V', 'data': 'U' }",
        "event 'V': 'data' is not of type struct",
    ),
    (
        E + "{ 'event': 'V', 'data': 'E', 'boxed': true }",
        "event 'V': 'data' is not of type struct or union",
    ),
    (
        "{ 'command': 'c', 'returns': [ 'str' ] }",
        "command 'c': 'returns' must be of objects, 'str' is not",
    ),
    (DOC + "{ 'event': 'V' }", "event 'V': documentation comment is missing"),
    (
        "##\n# @V:\n#\n# X.\n##\n{ 'event': 'V' }",
        "event 'V': documentation does not say what it is, or since when",
    ),
    (
        "##\n# @V:\n#\n# Since: 1\n##\n{ 'event': 'V' }",
        "event 'V': documentation does not say what it is, or since when",
    ),
    (
        "##\n# @V:\n#\n# X.\n#\n# Returns: y\n#\n# Since: 1\n##\n{ 'event': 'V' }",
        "event 'V': documentation has 'Returns:' and nothing is, or the reverse",
    ),
    (
        S + "##\n# @c:\n#\n# X.\n#\n# Since: 1\n##\n{ 'command': 'c', 'returns': 'S' }",
        "command 'c': documentation has 'Returns:' and nothing is, or the reverse",
    ),
    (
        "##\n# @V:\n#\n# X.\n#\n# @y: z\n#\n# Since: 1\n##\n{ 'event': 'V' }",
        "event 'V': member 'y' is not documented, or does not exist",
    ),
    (
        "##\n# @V:\n#\n# X.\n#\n# @y:\n#\n# Since: 1\n##\n"
        "{ 'event': 'V', 'data': { '*y': 'int' } }",
        "event 'V': member 'y' is not documented, or does not exist",
    ),
    (
        "##\n# @E:\n#\n# X.\n#\n# @a: z\n#\n# Since: 1\n##\n" + E,
        "enum 'E': member 'b' is not documented, or does not exist",
    ),
    (
        "##\n# @V:\n#\n# X.\n#\n# Features:\n#\n# @f: z\n#\n# Since: 1\n##\n{ 'event': 'V' }",
        "event 'V': feature 'f' is not documented, or does not exist",
    ),
    (
        "##\n# @V:\n#\n# X.\n#\n# @x: y\n#\n# Since: 1\n##\n"
        "{ 'event': 'V', 'data': { 'x': { 'type': 'int', 'features': [ 'f' ] } } }",
        "event 'V': feature 'f' is not documented, or does not exist",
    ),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_mistakes(directory: Path, text: str, message: str) -> None:
    with pytest.raises(SchemaError) as caught:
        check(directory, text)
    assert caught.value.message.replace(f"{directory}/", "") == message
    # The place is that of the definition which is told of.
    kind, _, rest = message.partition(" '")
    name = rest.partition("'")[0]
    lines = (directory / "s.json").read_text().split("\n")
    assert f"'{kind}': '{name}'" in lines[caught.value.line - 1]


@pytest.mark.parametrize(
    "text",
    [
        # A member may be of the type that it is in, in an array or not.
        "{ 'struct': 'S', 'data': { '*x': 'S', 'y': [ 'S' ] } }",
        # The same member in several branches.
        E + S + "{ 'union': 'U', 'base': { 'e': 'E' }, 'discriminator': 'e', "
        "'data': { 'a': 'S', 'b': 'S' } }",
        # A branch with branches.
        E + "{ 'struct': 'B', 'data': { 'e': 'E' } }\n"
        "{ 'union': 'V', 'base': { 'f': 'E' }, 'discriminator': 'f', 'data': {} }\n"
        "{ 'union': 'U', 'base': 'B', 'discriminator': 'e', 'data': { 'b': 'V' } }",
        "{ 'pragma': { 'command-returns-exceptions': [ 'c' ] } }\n"
        "{ 'command': 'c', 'returns': 'int' }",
        "{ 'pragma': { 'documentation-exceptions': [ 'V' ] } }\n"
        "##\n# @V:\n#\n# X.\n#\n# Since: 1\n##\n{ 'event': 'V', 'data': { 'y': 'int' } }",
        "{ 'alternate': 'A', 'data': { 'a': 'null', 'b': 'bool', 'c': 'int', 'd': [ 'int' ] } }",
    ],
)
def test_good(directory: Path, text: str) -> None:
    check(directory, text)


def test_pragmas(directory: Path) -> None:
    (directory / "p.json").write_text(
        "{ 'pragma': { 'doc-required': true, 'command-name-exceptions': ['a'] } }"
    )
    path = directory / "main.json"
    path.write_text("{ 'include': 'p.json' }\n{ 'pragma': { 'command-name-exceptions': ['b'] } }")
    found = pragmas(str(path))
    assert found["doc-required"]
    assert found["command-name-exceptions"] == ["a", "b"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("[]", "'pragma' is an object and stands alone"),
        ("{}, 'event': 'A'", "'pragma' is an object and stands alone"),
        ("{ 'x': true }", "there is no pragma 'x' with such a value"),
        ("{ 'doc-required': 'x' }", "there is no pragma 'doc-required' with such a value"),
    ],
)
def test_mistakes_in_pragmas(directory: Path, settings: str, message: str) -> None:
    with pytest.raises(SchemaError) as caught:
        check(directory, f"\n{{ 'pragma': {settings} }}")
    assert (caught.value.line, caught.value.message) == (2, message)
