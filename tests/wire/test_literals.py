"""What string, number and keyword tokens stand for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.wire import literals
from memd.wire.literals import LiteralError, parse_keyword, parse_number, parse_string
from memd.wire.utf8 import is_character
from tests.wire import untimed


def test_keywords() -> None:
    assert (parse_keyword(b"null"), parse_keyword(b"true"), parse_keyword(b"false")) == (
        None,
        True,
        False,
    )
    with pytest.raises(LiteralError) as caught:
        parse_keyword(b"nul")
    assert caught.value.text == b"invalid keyword 'nul'"


@pytest.mark.parametrize(
    ("token", "value"),
    [
        (b"0", 0),
        (b"-0", 0),
        (b"-9223372036854775808", -(2**63)),
        (b"9223372036854775808", 2**63),
        (b"18446744073709551615", 2**64 - 1),
        (b"18446744073709551616", 2.0**64),
        (b"-9223372036854775809", -(2.0**63)),
        (b"99999999999999999999", 1e20),
        (b"1" + b"0" * 400, math.inf),
        (b"-1e400", -math.inf),
        (b"1e-400", 0.0),
        (b"1.0", 1.0),
        (b"1e5", 1e5),
        (b"1E5", 1e5),
    ],
)
def test_numbers(token: bytes, value: float) -> None:
    parsed = parse_number(token)
    assert (parsed, type(parsed)) == (value, type(value))


def test_negative_zero_keeps_its_sign_as_a_double() -> None:
    assert math.copysign(1, parse_number(b"-0.0")) == -1


@untimed
@given(st.integers(-(2**80), 2**80))
def test_integers_keep_their_value_where_64_bits_hold_it(number: int) -> None:
    parsed = parse_number(b"%d" % number)
    exact = -(2**63) <= number < 2**64
    assert (parsed, type(parsed)) == ((number, int) if exact else (float(number), float))


@untimed
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_doubles_keep_their_value(number: float) -> None:
    assert float(parse_number(repr(number).encode())) == number


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", ""),
        (b"a\x7f", "a\x7f"),
        (rb"\"\'\\\/", "\"'\\/"),
        (rb"\b\f\n\r\t", "\b\f\n\r\t"),
        (rb"\u0000\u00e9\u00E9\uFFFD", "\0éé\ufffd"),
        (rb"\ud83d\ude00\uD83D\uDE00", "😀😀"),
        (b"\xc3\xa9\\n\xc0\x80", "é\n\0"),
        (rb"\\u0041", "\\u0041"),
    ],
)
def test_strings(body: bytes, text: str) -> None:
    assert parse_string(b'"%s"' % body) == parse_string(b"'%s'" % body) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (rb"\z", b"invalid escape sequence in string"),
        (rb"\U0041", b"invalid escape sequence in string"),
        (b"\\\xc3\xa9", b"invalid escape sequence in string"),
        (b"\xc3", b"invalid UTF-8 sequence in string"),
        (b"\xc3\\n", b"invalid UTF-8 sequence in string"),
        (b"\xef\xbf\xbe", b"invalid UTF-8 sequence in string"),
        (rb"\ud800", rb"\ud800 is not a valid Unicode character"),
        (rb"\uDE00\ud83d", rb"\uDE00 is not a valid Unicode character"),
        (rb"\ud83d\udbff", rb"\ud83d is not a valid Unicode character"),
        (rb"\ud83d\n", rb"\ud83d is not a valid Unicode character"),
        (rb"\ud83d\u12", rb"\ud83d is not a valid Unicode character"),
        (rb"\udbff\udffe", rb"\udbff\udffe is not a valid Unicode character"),
        (rb"\uFFFE", rb"\uFFFE is not a valid Unicode character"),
        (rb"\ufdd0", rb"\ufdd0 is not a valid Unicode character"),
        (rb"\u12", rb'\u12" is not a valid Unicode character'),
        (rb"\u+123", rb"\u+123 is not a valid Unicode character"),
        (rb"\u1_23", rb"\u1_23 is not a valid Unicode character"),
        (rb"\u 123", rb"\u 123 is not a valid Unicode character"),
        (b"\\z\xc3", b"invalid escape sequence in string"),
        (b"\xc3\\z", b"invalid UTF-8 sequence in string"),
    ],
)
def test_refused_strings(body: bytes, text: bytes) -> None:
    with pytest.raises(LiteralError) as caught:
        parse_string(b'"%s"' % body)
    assert caught.value.text == text


pieces = st.sampled_from(
    [
        *[rb"\u", rb"\ud83d", rb"\ude00", rb"\uFFFE", rb"\u0041", rb"\n", rb"\'", rb"\"", rb"\\"],
        *[rb"\z", b"\xc0\x80", b"\xc3\xa9", b"\xc3", b"\x7f", b"a", b"'", b"/", b"12"],
    ]
)

# Escapes of Python's own, and bytes that stand for something meanwhile.
pythons = st.sampled_from(
    [
        rb"\a",
        rb"\v",
        rb"\x41",
        rb"\7",
        rb"\101",
        rb"\N{DASH}",
        rb"\u000e",
        rb"\U00000041",
        b"\x0e",
        b"\\\n",
        rb"\/",
    ]
)


@untimed
@given(st.lists(pieces).map(b"".join))
def test_the_short_way_says_what_the_long_one_says(body: bytes) -> None:
    """Single quotes, and what the short way does not take, go the long way."""

    def outcome(parse: Callable[[bytes], str], token: bytes) -> str | bytes:
        try:
            return parse(token)
        except LiteralError as error:
            return error.text

    token = b'"' + body + b'"'
    assert outcome(parse_string, token) == outcome(literals._parse_piecewise, token)


@untimed
@given(st.lists(pieces | pythons).map(b"".join))
def test_the_way_for_many_escapes_says_what_the_long_one_says(body: bytes) -> None:
    token = b"'" + body + b"'"
    text = literals._parse_dense(token)
    if text is not None:
        assert text == literals._parse_piecewise(token)


def test_many_escapes_go_the_way_for_them() -> None:
    for body, text in (
        (rb"\n\'\\\"", "\n'\\\""),
        (rb"\u4e2d\n\\u", "\u4e2d\n\\u"),
        (b"\xc3\xa9\\n", "é\n"),
    ):
        assert literals._parse_dense(b'"' + body + b'"') == text


@untimed
@given(st.text(), st.booleans())
def test_strings_mean_what_json_says(text: str, ascii_only: bool) -> None:
    token = json.dumps(text, ensure_ascii=ascii_only).encode("utf-8")
    if all(is_character(ord(char)) for char in text):
        assert parse_string(token) == text
    else:
        with pytest.raises(LiteralError):
            parse_string(token)
