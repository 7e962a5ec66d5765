"""QEMU's idea of valid text, and what it shows for the rest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.wire.utf8 import decode, decode_for_display, is_character
from tests.wire import untimed

# Bytes, and what QEMU 10.0.2 and 11.1.3 show for them; where that holds a U+FFFD for
# other than EF BF BD, they are refused in a string.
SHOWN = [
    (b"abc\x7f", "abc\x7f"),
    (b"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "é€😀"),
    (b"\xc0\x80", "\0"),
    (b"a\xc0\x80b\xc0\x80", "a\0b\0"),
    (b"\xef\xbf\xbd", "\ufffd"),
    (b"\xef\xb7\x8f\xef\xb7\xb0", "\ufdcf\ufdf0"),
    (b"\xf4\x8f\xbf\xbd", "\U0010fffd"),
]
REFUSED = [
    (b"\x80", "\ufffd"),
    (b"\x80\x81", "\ufffd\ufffd"),
    (b"\xc3", "\ufffd"),
    (b"\xc3A", "\ufffdA"),
    (b"\xc3\xc3\xa9", "\ufffdé"),
    (b"\xe2\x82", "\ufffd"),
    (b"\xe2\x82A", "\ufffdA"),
    (b"\xe2\x82\xc3\xa9", "\ufffdé"),
    (b"\xf0\x9f\x98", "\ufffd"),
    (b"\xc1\x81", "\ufffd"),
    (b"\xc0\x81", "\ufffd"),
    (b"\xe0\x80\x80", "\ufffd"),
    (b"\xe2\xc0\x80", "\ufffd\0"),
    (b"\xed\xa0\x80", "\ufffd"),
    (b"\xed\xbf\xbf", "\ufffd"),
    (b"\xef\xb7\x90", "\ufffd"),
    (b"\xef\xb7\xaf", "\ufffd"),
    (b"\xef\xbf\xbe", "\ufffd"),
    (b"\xef\xbf\xbf", "\ufffd"),
    (b"\xf0\x9f\xbf\xbe", "\ufffd"),
    (b"\xf4\x8f\xbf\xbf", "\ufffd"),
    (b"\xf4\x90\x80\x80", "\ufffd"),
    (b"\xf7\xbf\xbf\xbf", "\ufffd"),
    (b"\xf8\x88\x80\x80\x80", "\ufffd"),
    (b"\xf8\x88\x80\x80\x80\x80", "\ufffd\ufffd"),
    (b"\xfb\xbf\xbf\xbf\xbf", "\ufffd"),
    (b"\xfc\x84\x80\x80\x80\x80", "\ufffd"),
    (b"\xfd\xbf\xbf\xbf\xbf\xbf\xbf", "\ufffd\ufffd"),
    (b"\xfe\xff", "\ufffd\ufffd"),
]


@pytest.mark.parametrize(("data", "shown"), SHOWN)
def test_valid(data: bytes, shown: str) -> None:
    assert decode(data) == decode_for_display(data) == shown


@pytest.mark.parametrize(("data", "shown"), REFUSED)
def test_refused(data: bytes, shown: str) -> None:
    assert decode(data) is None
    assert decode_for_display(data) == shown
    assert decode_for_display(b"a" + data + b"b") == f"a{shown}b"


@untimed
@given(st.text())
def test_text_of_characters_is_valid(text: str) -> None:
    data = text.encode("utf-8")
    valid = all(is_character(ord(char)) for char in text)
    assert decode(data) == (text if valid else None)
    shown = "".join(char if is_character(ord(char)) else "\ufffd" for char in text)
    assert decode_for_display(data) == shown


@untimed
@given(st.binary())
def test_any_bytes_can_be_shown(data: bytes) -> None:
    shown = decode_for_display(data)
    assert all(is_character(ord(char)) for char in shown)
    assert decode(data) in (None, shown)
