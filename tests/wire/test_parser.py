"""Tokens to values and errors: the grammar, its texts, the limits."""

from __future__ import annotations

from typing import Any

import pytest

from memd.compat import Compat
from memd.errors import MOST_TEXT, QMPError
from memd.wire import limits
from memd.wire.parser import KEYWORD, NUMBER, STRING, Parser

BOTH = pytest.mark.parametrize("compat", list(Compat), ids=[compat.value for compat in Compat])


def kind_of(token: bytes) -> int:
    first = token[:1]
    if first in b"{}[]:,":
        return token[0]
    if first in b"\"'":
        return STRING
    return KEYWORD if first.isalpha() else NUMBER


def parse(compat: Compat, *texts: str, max_tokens: int | None = None) -> list[Any]:
    """What a parser makes of tokens separated by spaces; errors as their texts.

    Each token stands at its own number, from 0; 11.1 tells it as `@NUMBER: `.
    """
    eager = compat is Compat.V11_1
    parser = Parser(compat, lambda start: f"@{start}: " if eager else "", max_tokens=max_tokens)
    for index, token in enumerate(" ".join(texts).encode().split()):
        parser.push(kind_of(token), token, index)
    return [item.desc if isinstance(item, QMPError) else item for item in parser.out]


def texts_of(parser: Parser) -> list[str]:
    """What it refused."""
    return [item.desc for item in parser.out if isinstance(item, QMPError)]


@BOTH
@pytest.mark.parametrize(
    ("tokens", "values"),
    [
        ("{ }", [{}]),
        ("[ ]", [[]]),
        ("1 'a' null", [1, "a", None]),
        ("{ 'a' : 1 , 'b' : [ true , { } ] }", [{"a": 1, "b": [True, {}]}]),
        ("[ [ ] , [ 1 ] , 2.5 ]", [[[], [1], 2.5]]),
        ("{ } { } [ ]", [{}, {}, []]),
        ("{ '' : { '' : '' } }", [{"": {"": ""}}]),
        ("{ 'a' : 1", []),
        ("[ [ ]", []),
    ],
)
def test_values(compat: Compat, tokens: str, values: list[Any]) -> None:
    assert parse(compat, tokens) == values


BAD_ESCAPE = "invalid escape sequence in string"

# What 10.0 tells, what 11.1 tells, where 11.1 finds the mistake (counted in tokens).
MISTAKES = [
    ("{ 'a' : }", "expecting value", "expecting value", 3),
    ("{ 'a' : 1 , }", "expecting value", "expecting key", 5),
    ("[ 1 , ]", "expecting value", "expecting value", 3),
    ("[ , ]", "expecting value", "expecting value", 1),
    ("{ , }", "expecting value", "expecting key", 1),
    ("}", "expecting value", "expecting value", 0),
    (",", "expecting value", "expecting value", 0),
    ("{ 'a' }", "missing : in object pair", "expecting ':'", 2),
    ("{ 'a' 1 }", "missing : in object pair", "expecting ':'", 2),
    ("{ 'a' : 1 'b' : 2 }", "expected separator in dict", "expected ',' or '}'", 4),
    ("[ 1 2 ]", "expected separator in list", "expected ',' or ']'", 2),
    ("[ 1 : 2 ]", "expected separator in list", "expected ',' or ']'", 2),
    ("{ 1 : 2 }", "key is not a string in object", "expecting key", 1),
    ("{ null : 2 }", "key is not a string in object", "expecting key", 1),
    ("{ { } : 2 }", "key is not a string in object", "expecting key", 1),
    ("{ [ 1 , ] : 2 }", "expecting value", "expecting key", 1),
    ("{ foo : 1 }", "invalid keyword 'foo'", "expecting key", 1),
    ("{ 'a' : foo }", "invalid keyword 'foo'", "invalid keyword 'foo'", 3),
    ("{ 'a' : 1 , 'a' : 2 }", "duplicate key", "duplicate key", 7),
    ("{ 'a' : 1 , 'a' : [ 2 ] }", "duplicate key", "duplicate key", 9),
    ("{ 'a' : 1 , 'a' : }", "expecting value", "expecting value", 7),
    ("[ '\\z' ]", BAD_ESCAPE, BAD_ESCAPE, 1),
]


@pytest.mark.parametrize(("tokens", "old", "new", "where"), MISTAKES)
def test_mistakes(tokens: str, old: str, new: str, where: int) -> None:
    good = ("{ 'good' : 1 }", [{"good": 1}])
    assert parse(Compat.V10_0, tokens, good[0]) == [f"JSON parse error, {old}", *good[1]]
    assert parse(Compat.V11_1, tokens, good[0]) == [f"@{where}: JSON parse error, {new}", *good[1]]


def test_10_0_judges_at_the_end_and_11_1_at_once() -> None:
    assert parse(Compat.V10_0, "{ 'a' : , , ,") == []
    assert parse(Compat.V11_1, "{ 'a' : , , ,") == ["@3: JSON parse error, expecting value"]


@pytest.mark.parametrize(
    ("tokens", "where"),
    [
        ("{ 'a' : [ } ]", [4]),
        ("[ }", [1]),
        ("{ ]", [1]),
        ("[ } ]", [1, 2]),
        ("[ [ } } ]", [2, 3, 4]),
    ],
)
def test_a_message_ends_where_both_counts_are_zero_or_one_is_negative(
    tokens: str, where: list[int]
) -> None:
    old = parse(Compat.V10_0, tokens, "1")
    assert old == ["JSON parse error, expecting value"] * len(where) + [1]
    *told, last = parse(Compat.V11_1, tokens, "1")
    assert [text.partition(":")[0] for text in told] == [f"@{index}" for index in where]
    assert last == 1


@BOTH
def test_a_lexical_error_drops_the_message(compat: Compat) -> None:
    parser = Parser(compat, lambda _: "")
    parser.push(kind_of(b"["), b"[", 0)
    parser.stray(b"%", 1)
    assert parser.tokens == 0
    parser.push(NUMBER, b"1", 2)
    error, value = parser.out
    assert isinstance(error, QMPError)
    assert error.desc == "JSON parse error, stray '%'"
    assert value == 1


def test_11_1_tells_no_lexical_error_where_it_told_another() -> None:
    for compat, told in ((Compat.V10_0, "stray '%'"), (Compat.V11_1, "expecting value")):
        parser = Parser(compat, lambda _: "")
        parser.push(kind_of(b"["), b"[", 0)
        parser.push(kind_of(b","), b",", 1)
        parser.stray(b"%", 2)
        assert texts_of(parser) == [f"JSON parse error, {told}"]


def test_texts_are_cut() -> None:
    """At 1023 bytes, all but that of a stray token in 10.0, which QEMU does not cut."""
    keyword, stray = b"a" * 2000, b'"' + "é".encode() * 1000 + b"\x01"
    for compat in Compat:
        parser = Parser(compat, lambda _: "")
        parser.push(KEYWORD, keyword, 0)
        parser.stray(stray, 1)
        texts = [text.removeprefix("JSON parse error, ") for text in texts_of(parser)]
        assert texts[0] == f"invalid keyword '{'a' * 1006}"
        if compat is Compat.V10_0:
            assert texts[1] == f"stray '\"{'é' * 1000}\x01'"
        else:
            # Eight characters of one byte, 507 of two, and half a one.
            assert texts[1] == f"stray '\"{'é' * 507}\ufffd"


def test_the_text_that_10_0_does_not_cut_has_its_limit() -> None:
    parser = Parser(Compat.V10_0, lambda _: "")
    parser.stray(b'"' + b"\xff" * 100_000, 0)
    begin = "JSON parse error, stray '\""
    assert texts_of(parser) == [begin + "\ufffd" * (MOST_TEXT - len(begin))]


@BOTH
def test_a_stray_token_is_cut_at_nul(compat: Compat) -> None:
    parser = Parser(compat, lambda _: "")
    parser.stray(b'"a\0', 0)
    assert texts_of(parser) == ["JSON parse error, stray '\"a'"]


def nested(depth: int) -> str:
    return "[ " * depth + "] " * depth


@BOTH
def test_nesting_limit(compat: Compat) -> None:
    assert limits.MAX_NESTING == 1024
    (value,) = parse(compat, nested(1024))
    for _ in range(1023):
        (value,) = value
    assert value == []
    mixed = "{ 'a' : [ " * 512
    assert parse(compat, mixed, "] } " * 512) != [limits.NESTING_EXCEEDED]
    told, *rest = parse(compat, mixed, "[ ", "] ", "] } " * 512, "true")
    assert told == limits.NESTING_EXCEEDED
    if compat is Compat.V10_0:
        # What follows is a new top level: here a lot of closers.
        assert rest == ["JSON parse error, expecting value"] * 1025 + [True]
    else:
        assert rest == [True]


@BOTH
def test_nesting_goes_on_as_a_new_top_level_in_10_0_alone(compat: Compat) -> None:
    rest = parse(compat, "[ " * 1026, "1 ] 2")[1:]
    assert rest == ([[1], 2] if compat is Compat.V10_0 else [])


@BOTH
def test_token_count_limit(compat: Compat) -> None:
    assert parse(compat, "[ 1 , 2 ] 3", max_tokens=6) == [[1, 2], 3]
    # The closing bracket is one too many; the message ends with it.
    assert parse(compat, "[ 1 , 2 , 3 ] 4", max_tokens=6) == [limits.TOKEN_COUNT_EXCEEDED, 4]


@BOTH
def test_token_size_limit(compat: Compat) -> None:
    most = limits.MAX_TOKEN_BYTES
    assert most == 67_108_863
    text = "a" * (most - 4)
    assert parse(compat, f"[ '{text}' ] 3") == [[text], 3]
    # The closing bracket is one too many; the message ends with it.
    assert parse(compat, f"[ '{text}a' ] 3") == [limits.TOKEN_SIZE_EXCEEDED, 3]
    assert parse(compat, f"'{text}aaa' 3") == [limits.TOKEN_SIZE_EXCEEDED, 3]
    told, *rest = parse(compat, f"[ '{text}aa' , 5 ] 3")
    assert told == limits.TOKEN_SIZE_EXCEEDED
    stray = "JSON parse error, expecting value"
    assert rest == ([stray, 5, stray, 3] if compat is Compat.V10_0 else [3])


def test_limits_hold_after_a_mistake() -> None:
    """10.0 tells the limit instead of the mistake, 11.1 has told the mistake."""
    stray = "JSON parse error, expecting value"
    most = limits.MAX_TOKEN_COUNT
    assert most == 2_097_152
    old = parse(Compat.V10_0, "[ , ] 4 [", ", " * most, ", ] 5")
    assert old == [stray, 4, limits.TOKEN_COUNT_EXCEEDED, stray, stray, 5]
    assert parse(Compat.V11_1, "[ , , , , , ] 4", max_tokens=4) == [f"@1: {stray}", 4]
