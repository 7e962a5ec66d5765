"""What a string, number or keyword token stands for."""

from __future__ import annotations

from _json import scanstring

from memd.wire.utf8 import INVALID, decode, is_character

INT64_MIN = -(2**63)
UINT64_MAX = 2**64 - 1

_ESCAPES = {
    ord(char): text
    for char, text in (
        ('"', '"'),
        ("'", "'"),
        ("\\", "\\"),
        ("/", "/"),
        ("b", "\b"),
        ("f", "\f"),
        ("n", "\n"),
        ("r", "\r"),
        ("t", "\t"),
    )
}
_HEX_DIGITS = frozenset(b"0123456789abcdefABCDEF")
_DOUBLE_QUOTE = ord('"')
_INVALID_UTF8 = b"invalid UTF-8 sequence in string"
_KEYWORDS = {b"null": None, b"true": True, b"false": False}


class LiteralError(Exception):
    """A token of the right shape that stands for nothing.

    Attributes:
        text: what the client is told, still in bytes since it may quote the input.
    """

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        super().__init__(text)
        self.text = text


_LONG = 65536
"""Bytes from which on the copies of a string are worth a thought."""


def parse_keyword(token: bytes) -> bool | None:
    """`null`, `true` or `false`; raises `LiteralError` for any other word."""
    try:
        return _KEYWORDS[token]
    except KeyError:
        raise LiteralError(b"invalid keyword '%s'" % token) from None


def parse_number(token: bytes) -> int | float:
    """An int where int64 or else uint64 holds it, a double otherwise.

    A double beyond the range is an infinity, as with C's strtod.
    """
    if b"." in token or b"e" in token or b"E" in token:
        return float(token)
    # Fewer than 20 characters always fit; int() of very many more would be slow.
    if len(token) <= 20:
        value = int(token)
        if INT64_MIN <= value <= UINT64_MAX:
            return value
    return float(token)


def parse_string(token: bytes) -> str:
    """The text of a string token, quotes included; raises `LiteralError`."""
    if b"\\" not in token:
        if len(token) > _LONG and token.isascii():
            # One copy less of what may be megabytes.
            return str(memoryview(token)[1:-1], "ascii")
        text = decode(token)
        if text is None:
            raise LiteralError(_INVALID_UTF8)
        return text[1:-1]
    if token[0] == _DOUBLE_QUOTE:
        text = _parse_ordinary(token)
        if text is not None:
            return text
    return _parse_piecewise(token)


def _parse_ordinary(token: bytes) -> str | None:
    """What JSON takes the string for; None where QEMU may take it for something else.

    A message may be a string of 64 MiB full of escapes: one by one they would take
    ten seconds, in which no other client is answered.
    """
    text = decode(token)
    if text is None:
        return None
    try:
        value, _ = scanstring(text, 1)
    except ValueError:
        return None
    return None if INVALID.search(value) else value


def _parse_piecewise(token: bytes) -> str:
    """The text of a string that has escapes, by QEMU's rules; the first mistake is told."""
    parts = []
    last = len(token) - 1
    start = 1
    while True:
        backslash = token.find(b"\\", start, last)
        text = decode(token[start : last if backslash < 0 else backslash])
        if text is None:
            raise LiteralError(_INVALID_UTF8)
        parts.append(text)
        if backslash < 0:
            return "".join(parts)
        escaped = token[backslash + 1]
        start = backslash + 2
        if escaped == 0x75:  # u
            char, start = _unicode_escape(token, backslash)
            parts.append(char)
        elif escaped in _ESCAPES:
            parts.append(_ESCAPES[escaped])
        else:
            raise LiteralError(b"invalid escape sequence in string")


def _unicode_escape(token: bytes, start: int) -> tuple[str, int]:
    """The character of the \\uXXXX (or pair of them) at `start`, and where it ends."""
    end = start + 6
    code = _hex4(token, start + 2)
    if 0xD800 <= code <= 0xDBFF and token[end : end + 2] == b"\\u":
        low = _hex4(token, end + 2)
        if 0xDC00 <= low <= 0xDFFF:
            code = 0x10000 + ((code & 0x3FF) << 10 | low & 0x3FF)
            end += 6
    if code < 0 or not is_character(code):
        raise LiteralError(token[start:end] + b" is not a valid Unicode character")
    return chr(code), end


def _hex4(token: bytes, start: int) -> int:
    """The four hexadecimal digits at `start`, or -1 where they are not four."""
    digits = token[start : start + 4]
    if len(digits) == 4 and _HEX_DIGITS.issuperset(digits):
        return int(digits, 16)
    return -1
