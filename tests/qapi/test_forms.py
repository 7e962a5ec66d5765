"""Mistakes in single definitions, each with the words that it gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from memd.qapi.source import SchemaError
from tests.qapi.files import check

GOOD = """
{ 'enum': 'E', 'data': [ 'a', { 'name': 'b', 'if': 'X', 'features': [ 'f' ] } ], 'prefix': 'P' }
{ 'struct': 'S', 'data': { '*m': 'str', 'n': { 'type': [ 'int' ], 'if': { 'not': 'X' } } } }
{ 'struct': 'T', 'base': 'S', 'data': {}, 'if': { 'not': 'X' } }
{ 'union': 'U', 'base': { 'e': 'E' }, 'discriminator': 'e', 'data': { 'a': 'S' } }
{ 'alternate': 'A', 'data': { 's': 'str', 'o': 'S', 'l': [ 'str' ] } }
{ 'command': 'c', 'data': 'U', 'boxed': true, 'returns': [ 'S' ], 'allow-oob': true,
  'allow-preconfig': true, 'features': [ 'f', { 'name': 'g', 'if': 'X' } ] }
{ 'command': 'd', 'gen': false }
{ 'event': 'V', 'data': { 'x': 'any' } }
"""

MISTAKES = [
    ("{ 'struct': 'S' }", "struct 'S': $: 'data' is a required property"),
    (
        "{ 'struct': 'S', 'data': {}, 'x': 'y' }",
        "struct 'S': $: Additional properties are not allowed ('x' was unexpected)",
    ),
    ("{ 'union': 'U', 'data': {} }", "union 'U': $: 'base' is a required property"),
    (
        "{ 'enum': 'E', 'data': [], 'base': 'B' }",
        "enum 'E': $: Additional properties are not allowed ('base' was unexpected)",
    ),
    (
        "{ 'event': 'V', 'returns': 'S' }",
        "event 'V': $: Additional properties are not allowed ('returns' was unexpected)",
    ),
    (
        "{ 'struct': 's', 'data': {} }",
        "struct 's': the name 's' is not written as those of its kind",
    ),
    ("{ 'command': 'a_b' }", "command 'a_b': the name 'a_b' is not written as those of its kind"),
    ("{ 'event': 'v' }", "event 'v': the name 'v' is not written as those of its kind"),
    (
        "{ 'struct': 'S', 'data': { 'a_b': 'int' } }",
        "struct 'S': the name 'a_b' is not in lower case with dashes",
    ),
    (
        "{ 'enum': 'E', 'data': [ 'a b' ] }",
        "enum 'E': the name 'a b' is not in lower case with dashes",
    ),
    ("{ 'command': 'c', 'gen': true }", "command 'c': gen: False was expected"),
    ("{ 'command': 'c', 'allow-oob': 'x' }", "command 'c': $['allow-oob']: True was expected"),
    (
        "{ 'command': 'c', 'allow-oob': true, 'coroutine': true }",
        "command 'c': $: Additional properties are not allowed ('coroutine' was unexpected)",
    ),
    ("{ 'command': 'c', 'boxed': true }", "command 'c': 'boxed' needs 'data' to be a type's name"),
    (
        "{ 'event': 'V', 'boxed': true, 'data': {} }",
        "event 'V': 'boxed' needs 'data' to be a type's name",
    ),
    ("{ 'event': 'V', 'if': [] }", "event 'V': if: [] is not valid under any of the given schemas"),
    (
        "{ 'event': 'V', 'if': { 'all': 'X' } }",
        "event 'V': if: {'all': 'X'} is not valid under any of the given schemas",
    ),
    (
        "{ 'event': 'V', 'if': { 'any': [] } }",
        "event 'V': if: {'any': []} is not valid under any of the given schemas",
    ),
    (
        "{ 'event': 'V', 'if': { 'xor': 'X' } }",
        "event 'V': if: {'xor': 'X'} is not valid under any of the given schemas",
    ),
    (
        "{ 'event': 'V', 'if': { 'not': { 'all': [ '9' ] } } }",
        "event 'V': if.not: {'all': ['9']} is not of type 'string'",
    ),
    (
        "{ 'event': 'V', 'features': [ true ] }",
        "event 'V': features[0]: True is not valid under any of the given schemas",
    ),
    (
        "{ 'event': 'V', 'features': [ 'f', 'f' ] }",
        "event 'V': features: ['f', 'f'] has non-unique elements",
    ),
    (
        "{ 'event': 'V', 'features': [ { 'name': 'f', 'x': 'y' } ] }",
        "event 'V': features[0]: Additional properties are not allowed ('x' was unexpected)",
    ),
    (
        "{ 'event': 'V', 'features': [ { 'if': 'X' } ] }",
        "event 'V': features[0]: 'name' is a required property",
    ),
    ("{ 'struct': 'S', 'data': 'T' }", "struct 'S': data: 'T' is not of type 'object'"),
    (
        "{ 'struct': 'S', 'data': { 'a': 'int', '*a': 'str' } }",
        "struct 'S': member 'a' is there twice",
    ),
    (
        "{ 'struct': 'S', 'data': { 'a': [ 'int', 'str' ] } }",
        "struct 'S': data.a: ['int', 'str'] is too long",
    ),
    (
        "{ 'struct': 'S', 'data': { 'a': true } }",
        "struct 'S': data.a: True is not valid under any of the given schemas",
    ),
    (
        "{ 'struct': 'S', 'data': { 'a': { 'type': 'int', 'x': 'y' } } }",
        "struct 'S': data.a: {'type': 'int', 'x': 'y'} is not valid under any of the given schemas",
    ),
    (
        "{ 'struct': 'S', 'data': { 'a': {} } }",
        "struct 'S': data.a: {} is not valid under any of the given schemas",
    ),
    (
        "{ 'struct': 'S', 'base': [ 'T' ], 'data': {} }",
        "struct 'S': base: ['T'] is not of type 'string'",
    ),
    (
        "{ 'struct': 'S', 'data': { 'a': { 'type': 'int', 'if': [] } } }",
        "struct 'S': data.a.if: [] is not valid under any of the given schemas",
    ),
    ("{ 'enum': 'E', 'data': {} }", "enum 'E': data: {} is not of type 'array'"),
    ("{ 'enum': 'E', 'data': [ 'a', 'a' ] }", "enum 'E': member 'a' is there twice"),
    (
        "{ 'enum': 'E', 'data': [], 'prefix': true }",
        "enum 'E': prefix: True is not of type 'string'",
    ),
    (
        "{ 'enum': 'E', 'data': [ true ] }",
        "enum 'E': data[0]: True is not valid under any of the given schemas",
    ),
    (
        "{ 'enum': 'E', 'data': [ { 'name': 'a', 'type': 'x' } ] }",
        "enum 'E': data[0]: Additional properties are not allowed ('type' was unexpected)",
    ),
    (
        "{ 'union': 'U', 'base': [], 'discriminator': 'e', 'data': {} }",
        "union 'U': base: [] is not valid under any of the given schemas",
    ),
    (
        "{ 'union': 'U', 'base': 'B', 'discriminator': [], 'data': {} }",
        "union 'U': discriminator: [] is not of type 'string'",
    ),
    (
        "{ 'union': 'U', 'base': 'B', 'discriminator': 'e', 'data': [] }",
        "union 'U': data: [] is not of type 'object'",
    ),
    (
        "{ 'union': 'U', 'base': 'B', 'discriminator': 'e', 'data': { 'a': [ 'S' ] } }",
        "union 'U': data.a: ['S'] is not valid under any of the given schemas",
    ),
    ("{ 'alternate': 'A', 'data': {} }", "alternate 'A': data: {} should be non-empty"),
    (
        "{ 'alternate': 'A', 'data': { 's': { 'type': 'str', 'features': [] } } }",
        "alternate 'A': data.s: {'type': 'str', 'features': []} is not valid",
    ),
    (
        "{ 'command': 'c', 'data': [ 'S' ] }",
        "command 'c': data: ['S'] is not valid under any of the given schemas",
    ),
    (
        "{ 'command': 'c', 'returns': {} }",
        "command 'c': returns: {} is not valid under any of the given schemas",
    ),
]


def test_good(directory: Path) -> None:
    check(directory, GOOD)


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_mistakes(directory: Path, text: str, message: str) -> None:
    with pytest.raises(SchemaError) as caught:
        check(directory, f"\n{text}")
    assert caught.value.line == 2
    assert caught.value.message.startswith(message)
