"""encode: the fast way and the exact one say the same, and what is said can be read again."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.compat import Compat
from memd.wire import Decoder, encode
from memd.wire.encoder import _may_hold_double
from memd.wire.printer import print_value
from memd.wire.utf8 import is_character
from tests.wire import untimed

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(["1.5", " 2.5", "a e+5", "10.0.2", "\x7f", "\\u00e9", "é", "/dev/shm/x.y"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"return": {}}, b'{"return": {}}\r\n'),
        ({"return": [], "id": "a"}, b'{"return": [], "id": "a"}\r\n'),
        ({"return": {"version": "10.0.2"}}, b'{"return": {"version": "10.0.2"}}\r\n'),
        ({"id": 1.0, "return": " 1.5"}, b'{"id": 1, "return": " 1.5"}\r\n'),
        ({"id": "\xe9\x1f\x7f"}, b'{"id": "\\u00E9\\u001F\\u007F"}\r\n'),
        ({"id": math.inf}, b'{"id": inf}\r\n'),
        ([1e22, 1e-7], b"[1e+22, 9.9999999999999995e-08]\r\n"),
        (2.5, b"2.5\r\n"),
    ],
)
def test_lines(value: Any, line: bytes) -> None:
    assert encode(value) == line


def test_pretty() -> None:
    expected = b'{\r\n    "return": {\r\n    },\r\n    "id": 1\r\n}\r\n'
    assert encode({"return": {}, "id": 1}, pretty=True) == expected


def test_nesting_beyond_recursion() -> None:
    value: Any = 1
    for _ in range(3000):
        value = {"a": [value]}
    assert encode(value) == b'{"a": [' * 3000 + b"1" + b"]}" * 3000 + b"\r\n"


@pytest.mark.parametrize("value", [{"a": b""}, object(), [{1}]])
def test_what_is_no_json(value: Any) -> None:
    with pytest.raises(TypeError):
        encode(value)


@untimed
@given(values)
def test_the_fast_way_says_what_the_exact_one_says(value: Any) -> None:
    assert encode(value) == print_value(value, pretty=False).encode("ascii") + b"\r\n"


def only_characters(value: Any) -> bool:
    if isinstance(value, str):
        return all(is_character(ord(char)) for char in value)
    if isinstance(value, dict):
        return all(only_characters(key) and only_characters(value[key]) for key in value)
    if isinstance(value, list):
        return all(map(only_characters, value))
    # An infinity is written as QEMU does, and nobody reads that.
    return not isinstance(value, float) or math.isfinite(value)


@untimed
@given(values.filter(only_characters), st.booleans(), st.sampled_from(list(Compat)))
def test_round_trip(value: Any, pretty: bool, compat: Compat) -> None:
    line = encode(value, pretty)
    assert line.endswith(b"\r\n")
    assert line.isascii()
    assert Decoder(compat).feed(line) == [value]
    assert json.loads(line) == value


@untimed
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_is_found(number: float) -> None:
    for value in (number, [number], [1, number], {"a": number}, [[number]]):
        assert _may_hold_double(json.dumps(value))


@pytest.mark.parametrize("value", [10, [1, 2], {"size": 4096}, "a.b", "10.0.2", ["x e+5", "v1.2"]])
def test_no_double_is_found(value: Any) -> None:
    assert not _may_hold_double(json.dumps(value))
