"""QEMU's form of values, member by member."""

from __future__ import annotations

import math
import sys
from types import FrameType
from typing import Any

import pytest

from memd.wire.printer import print_value


# Observed on QEMU 10.0.2 and 11.1.3, by echoed ids and by query-name.
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (2**64 - 1, "18446744073709551615"),
        (-(2**63), "-9223372036854775808"),
        (1.0, "1"),
        (-0.0, "-0"),
        (0.1, "0.10000000000000001"),
        (1e16, "10000000000000000"),
        (1e17, "1e+17"),
        (1e-5, "1.0000000000000001e-05"),
        (5e-324, "4.9406564584124654e-324"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        ("", '""'),
        ("\b\f\n\r\t\"\\/'", '"\\b\\f\\n\\r\\t\\"\\\\/\'"'),
        ("\0\x0b\x1f\x7f", '"\\u0000\\u000B\\u001F\\u007F"'),
        ("<>&=%", '"<>&=%"'),
        ("é€😀\U0010fffd", '"\\u00E9\\u20AC\\uD83D\\uDE00\\uDBFF\\uDFFD"'),
        ("\ufffd\ufffe\ufdd0\U0001ffff", '"' + "\\uFFFD" * 4 + '"'),
        ("a\udcffb", '"a\\uFFFDb"'),
        ("\udce2\udc82\udcac", '"\\u20AC"'),
        ("\ud800", '"\\uFFFD"'),
        ({}, "{}"),
        ([], "[]"),
        ([{}, [], [[]]], "[{}, [], [[]]]"),
        ({"a": [1, {"é": None}], "b": {}}, '{"a": [1, {"\\u00E9": null}], "b": {}}'),
        ((1, 2), "[1, 2]"),
    ],
)
def test_one_line(value: Any, text: str) -> None:
    assert print_value(value, pretty=False) == text


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        (1.5, ["1.5"]),
        ({}, ["{", "}"]),
        ([], ["[", "]"]),
        ({"return": {}}, ["{", '    "return": {', "    }", "}"]),
        (
            {"id": [1, [], {"a": {}}, ["x\n", None]]},
            [
                *["{", '    "id": [', "        1,", "        [", "        ],", "        {"],
                *['            "a": {', "            }", "        },", "        ["],
                *['            "x\\n",', "            null", "        ]", "    ]", "}"],
            ],
        ),
    ],
)
def test_pretty(value: Any, lines: list[str]) -> None:
    assert print_value(value, pretty=True) == "\r\n".join(lines)


def test_any_depth() -> None:
    value: Any = []
    for _ in range(5000):
        value = [value]
    assert print_value(value, pretty=False) == "[" * 5001 + "]" * 5001


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), [b"bytes"], {"a": object()}])
def test_what_is_no_json(value: Any) -> None:
    with pytest.raises(TypeError, match="no JSON value"):
        print_value(value, pretty=False)


PLAIN = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escaped(char: str) -> str:
    """How a character is written."""
    if char in PLAIN or " " <= char <= "~":
        return PLAIN.get(char, char)
    code = ord(char)
    if 0xD800 <= code <= 0xDFFF or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE:
        char = "\ufffd"
    units = char.encode("utf-16-be").hex().upper()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def test_every_character_and_none_has_a_call_of_its_own() -> None:
    text = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF)
    calls = 0

    def count(frame: FrameType, event: str, arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        printed = print_value(text, False)
    finally:
        sys.setprofile(None)
    assert printed == '"' + "".join(map(escaped, text)) + '"'
    assert calls < len(text) / 100


def test_each_noncharacter_is_replaced() -> None:
    ends = (plane << 16 | low for plane in range(17) for low in (0xFFFE, 0xFFFF))
    for code in (*range(0xFDD0, 0xFDF0), *ends):
        assert print_value(f"é{chr(code)}", False) == '"\\u00E9\\uFFFD"'


def test_what_looks_like_an_escape_is_text() -> None:
    for text in ("\\uFDD0é", "\\\\b\b\\\f\\f\x7f", '\\"\n\\u000Aé'):
        assert print_value(text, False) == '"' + "".join(map(escaped, text)) + '"'
