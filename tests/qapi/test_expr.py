"""Mistakes in single definitions, each with the words that it gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from memd.qapi.semantics import check_file
from memd.qapi.source import SchemaError

GOOD = """
{ 'enum': 'E', 'data': [ 'a', { 'name': 'b', 'if': 'X', 'features': [ 'f' ] } ], 'prefix': 'P' }
{ 'struct': 'S', 'data': { '*m': 'str', 'n': { 'type': [ 'int' ], 'if': { 'not': 'X' } } } }
{ 'struct': 'T', 'base': 'S', 'data': {}, 'if': { 'all': [ 'X', { 'any': [ 'Y', 'Z' ] } ] } }
{ 'union': 'U', 'base': { 'e': 'E' }, 'discriminator': 'e', 'data': { 'a': 'S' } }
{ 'alternate': 'A', 'data': { 's': 'str', 'o': 'S', 'l': [ 'str' ] } }
{ 'command': 'c', 'data': 'U', 'boxed': true, 'returns': [ 'S' ], 'allow-oob': true,
  'allow-preconfig': true, 'features': [ 'f', { 'name': 'g', 'if': 'X' } ] }
{ 'command': 'd', 'gen': false, 'success-response': false, 'coroutine': true }
{ 'event': 'V', 'data': { 'x': 'any' } }
"""

MISTAKES = [
    # keys
    ("{ 'struct': 'S' }", "struct 'S': struct lacks key 'data'"),
    ("{ 'struct': 'S', 'data': {}, 'x': 'y' }", "struct 'S': struct has unknown key 'x'"),
    ("{ 'union': 'U', 'data': {} }", "union 'U': union lacks key 'base'"),
    ("{ 'enum': 'E', 'data': [], 'base': 'B' }", "enum 'E': enum has unknown key 'base'"),
    ("{ 'event': 'V', 'returns': 'S' }", "event 'V': event has unknown key 'returns'"),
    # names
    (
        "{ 'struct': 's', 'data': {} }",
        "struct 's': name of type 's' is not in CamelCase",
    ),
    (
        "{ 'command': 'a_b' }",
        "command 'a_b': name of command 'a_b' is not in lower case with dashes",
    ),
    ("{ 'event': 'v' }", "event 'v': name of event 'v' is not in UPPER_CASE"),
    (
        "{ 'struct': 'S', 'data': { 'a_b': 'int' } }",
        "struct 'S': name of member 'a_b' is not in lower case with dashes",
    ),
    (
        "{ 'enum': 'E', 'data': [ 'a b' ] }",
        "enum 'E': name of enum member 'a b' is not a name",
    ),
    # flags
    ("{ 'command': 'c', 'gen': true }", "command 'c': flag 'gen' may only be false"),
    ("{ 'command': 'c', 'allow-oob': 'x' }", "command 'c': flag 'allow-oob' may only be true"),
    (
        "{ 'command': 'c', 'allow-oob': true, 'coroutine': true }",
        "command 'c': flags 'allow-oob' and 'coroutine' exclude each other",
    ),
    ("{ 'command': 'c', 'boxed': true }", "command 'c': 'boxed' needs 'data' to be a type's name"),
    (
        "{ 'event': 'V', 'boxed': true, 'data': {} }",
        "event 'V': 'boxed' needs 'data' to be a type's name",
    ),
    # conditions
    (
        "{ 'event': 'V', 'if': [] }",
        "event 'V': 'if' of event is a name or one of all, any, not",
    ),
    (
        "{ 'event': 'V', 'if': { 'all': 'X' } }",
        "event 'V': 'all' in 'if' of event is an array of conditions",
    ),
    (
        "{ 'event': 'V', 'if': { 'any': [] } }",
        "event 'V': 'any' in 'if' of event is an array of conditions",
    ),
    (
        "{ 'event': 'V', 'if': { 'xor': 'X' } }",
        "event 'V': 'if' of event has unknown operator 'xor'",
    ),
    (
        "{ 'event': 'V', 'if': { 'not': { 'all': [ '9' ] } } }",
        "event 'V': 'if' condition '9' of event is not a name",
    ),
    # features
    (
        "{ 'event': 'V', 'features': [] }",
        "event 'V': 'features' is an array with at least one member",
    ),
    (
        "{ 'event': 'V', 'features': [ true ] }",
        "event 'V': a feature is a string or an object with a 'name'",
    ),
    ("{ 'event': 'V', 'features': [ 'f', 'f' ] }", "event 'V': feature 'f' is there twice"),
    (
        "{ 'event': 'V', 'features': [ { 'name': 'f', 'x': 'y' } ] }",
        "event 'V': feature has unknown key 'x'",
    ),
    ("{ 'event': 'V', 'features': [ { 'if': 'X' } ] }", "event 'V': feature lacks key 'name'"),
    # members
    ("{ 'struct': 'S', 'data': 'T' }", "struct 'S': 'data' of a struct is an object of members"),
    (
        "{ 'struct': 'S', 'data': { 'a': 'int', '*a': 'str' } }",
        "struct 'S': member 'a' clashes with member 'a'",
    ),
    (
        "{ 'struct': 'S', 'data': { 'a': [ 'int', 'str' ] } }",
        "struct 'S': type of member 'a': an array type is one type name in brackets",
    ),
    (
        "{ 'struct': 'S', 'data': { 'a': true } }",
        "struct 'S': type of member 'a' is a type's name or an array type",
    ),
    (
        "{ 'struct': 'S', 'data': { 'a': { 'type': 'int', 'x': 'y' } } }",
        "struct 'S': member 'a' has unknown key 'x'",
    ),
    ("{ 'struct': 'S', 'data': { 'a': {} } }", "struct 'S': member 'a' lacks key 'type'"),
    (
        "{ 'struct': 'S', 'base': [ 'T' ], 'data': {} }",
        "struct 'S': 'base' of a struct is a type's name",
    ),
    (
        "{ 'struct': 'S', 'data': { 'a': { 'type': 'int', 'features': [] } } }",
        "struct 'S': 'features' is an array with at least one member",
    ),
    (
        "{ 'struct': 'S', 'data': { 'a': { 'type': 'int', 'if': [] } } }",
        "struct 'S': 'if' of member 'a' is a name or one of all, any, not",
    ),
    # enums
    ("{ 'enum': 'E', 'data': {} }", "enum 'E': 'data' of an enum is an array"),
    ("{ 'enum': 'E', 'data': [ 'a', 'a' ] }", "enum 'E': enum member 'a' clashes with 'a'"),
    ("{ 'enum': 'E', 'data': [], 'prefix': true }", "enum 'E': 'prefix' is a string"),
    (
        "{ 'enum': 'E', 'data': [ true ] }",
        "enum 'E': an enum member is a string or an object with a 'name'",
    ),
    (
        "{ 'enum': 'E', 'data': [ { 'name': 'a', 'type': 'x' } ] }",
        "enum 'E': enum member has unknown key 'type'",
    ),
    # unions and alternates
    (
        "{ 'union': 'U', 'base': [], 'discriminator': 'e', 'data': {} }",
        "union 'U': 'base' of a union is a type's name",
    ),
    (
        "{ 'union': 'U', 'base': 'B', 'discriminator': [], 'data': {} }",
        "union 'U': 'discriminator' is a member's name",
    ),
    (
        "{ 'union': 'U', 'base': 'B', 'discriminator': 'e', 'data': [] }",
        "union 'U': 'data' is an object",
    ),
    (
        "{ 'union': 'U', 'base': 'B', 'discriminator': 'e', 'data': { 'a': [ 'S' ] } }",
        "union 'U': type of branch 'a' is a type's name",
    ),
    ("{ 'alternate': 'A', 'data': {} }", "alternate 'A': 'data' of an alternate has at least one"),
    (
        "{ 'alternate': 'A', 'data': { 's': { 'type': 'str', 'features': [] } } }",
        "alternate 'A': alternative 's' has unknown key 'features'",
    ),
    # commands
    (
        "{ 'command': 'c', 'data': [ 'S' ] }",
        "command 'c': 'data' is a type's name",
    ),
    (
        "{ 'command': 'c', 'returns': {} }",
        "command 'c': 'returns' is a type's name or an array type",
    ),
]


def check(directory: Path, text: str) -> None:
    path = directory / "s.json"
    path.write_text(text)
    check_file(str(path))


def test_good(directory: Path) -> None:
    check(directory, GOOD)


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_mistakes(directory: Path, text: str, message: str) -> None:
    with pytest.raises(SchemaError) as caught:
        check(directory, f"\n{text}")
    assert caught.value.line == 2
    assert caught.value.message.startswith(message)


def test_underscores_may_be_the_only_difference_of_no_two_members(directory: Path) -> None:
    with pytest.raises(SchemaError, match=r"member 'a_b' clashes with member 'a-b'"):
        check(
            directory,
            "{ 'pragma': { 'member-name-exceptions': [ 'S' ] } }\n"
            "{ 'struct': 'S', 'data': { 'a-b': 'int', 'a_b': 'int' } }",
        )
