"""The values that string, number and keyword tokens stand for."""

from __future__ import annotations

import re
from _codecs import escape_decode, unicode_escape_decode
from _json import scanstring

from memd.wire.utf8 import decode, is_character, is_valid

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
_BACKSLASH = ord("\\")
_INVALID_UTF8 = b"invalid UTF-8 sequence in string"

_SAMPLE = 1024
"""Bytes of a string in which escapes are counted, to see whether it is full of them."""

_HIDDEN = b"\x0e"
_NOT_OF_JSON = b"\0\1\2\3\4\5\6\7\x0b\\"
"""What Python makes of `\\0` to `\\7`, `\\a` and `\\v`, and leaves of what it does not know."""

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


LONG = 65536
"""Bytes from which on the copies of a string are worth a thought, and the time in which
it is gone through."""

_ESCAPE_TAIL = 11
"""Bytes at the end of a part of a string in which an escape may begin that goes on in the
next: one short of a pair of surrogates."""


_LOW_SURROGATE = re.compile(rb"\\u[dD][c-fC-F]").match


class LongString:
    """A string token that comes in parts, each made into text as it comes.

    A message may be one string of megabytes, full of escapes: to read it at its end
    would take a second, in which no other client is answered.

    Args:
        quote: the byte that it begins with.
        kept: whether its text is wanted; memory that is fresh takes longer than all else.
    """

    __slots__ = ("_error", "_kept", "_parts", "_quote", "_rest", "_size")

    def __init__(self, quote: bytes, kept: bool = True) -> None:
        self._quote = quote
        self._kept = kept
        self._parts: list[str] = []
        # What may be the beginning of an escape or a character.
        self._rest = b""
        self._size = 0
        self._error: LiteralError | None = None

    def __len__(self) -> int:
        """Bytes of the token so far, quotes included."""
        return self._size

    def add(self, data: bytes, plain: bool, last: bool = False) -> None:
        """Take the next bytes of the token, its quotes left out.

        Args:
            data: them.
            plain: whether they are known to be ASCII without a backslash.
            last: whether they are the last ones.
        """
        self._size += len(data) + (2 if last else 0)
        if self._rest:
            data = self._rest + data
            plain = False
        cut = len(data) if last else _cut(data)
        self._rest = data[cut:]
        if self._error is None:
            try:
                if plain:
                    part = data.decode("ascii") if self._kept else ""
                else:
                    part = parse_string(self._quote + data[:cut] + self._quote)
                if self._kept:
                    self._parts.append(part)
            except LiteralError as error:
                self._error = error
                self._parts = []

    def text(self) -> str:
        """The text, once the last bytes were added ("" where it is not kept).

        Raises:
            LiteralError: for the first mistake.
        """
        if self._error is not None:
            raise self._error
        return "".join(self._parts)


def _cut(data: bytes) -> int:
    """Where a part of a string can be cut: within no escape and no character."""
    end = len(data)
    at = data.find(b"\\", max(0, end - _ESCAPE_TAIL))
    if at >= 0:
        begin = at
        while begin and data[begin - 1] == _BACKSLASH:
            begin -= 1
        if (at - begin) % 2:
            # The one before it takes it with it.
            return at + 1
        # The second of a pair of surrogates is whole: the first would have been found else.
        pair = data[at - 6 : at - 4] == b"\\u" and _LOW_SURROGATE(data, at)
        return at + 6 if pair else at
    at = end
    while at and end - at < 6 and 0x80 <= data[at - 1] < 0xC0:
        at -= 1
    return at - 1 if at and data[at - 1] >= 0xC0 else end


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
        if len(token) > LONG and token.isascii():
            # One copy less of what may be megabytes.
            return str(memoryview(token)[1:-1], "ascii")
        text = decode(token)
        if text is None:
            raise LiteralError(_INVALID_UTF8)
        return text[1:-1]
    text = None
    if token.count(b"\\", 0, _SAMPLE) > _SAMPLE // 8:
        text = _parse_dense(token)
    if text is None and token[0] == _DOUBLE_QUOTE:
        text = _parse_ordinary(token)
    return _parse_piecewise(token) if text is None else text


def _parse_ordinary(token: bytes) -> str | None:
    """What JSON takes the string for; None where QEMU may take it for something else."""
    text = decode(token)
    if text is None:
        return None
    try:
        value, _ = scanstring(text, 1)
    except ValueError:
        return None
    # What stands there itself was looked at.
    return value if b"\\u" not in token or is_valid(value) else None


def _parse_dense(token: bytes) -> str | None:
    r"""What a string full of escapes stands for; None where it takes another way to tell.

    Python's decoders of its own literals are five times as fast as JSON's then. They are
    asked where JSON has the same escapes: what is left of any other gives it away, or the
    length. (A backslash that stands for itself is hidden from them meanwhile.)
    """
    body = token[1:-1].replace(b"\\\\", _HIDDEN)
    escapes = body.count(b"\\")
    try:
        if b"u" in body and body.isascii():
            text, _ = unicode_escape_decode(body)
            length = len(text) + escapes + 4 * body.count(b"\\u")
            plain = text.encode()
        else:
            plain, _ = escape_decode(body)
            length = len(plain) + escapes
    except (ValueError, DeprecationWarning):
        return None
    if length != len(body) or any(map(plain.__contains__, _NOT_OF_JSON)):
        return None
    if _HIDDEN in plain and (_HIDDEN in token or plain.count(_HIDDEN) != body.count(_HIDDEN)):
        return None
    return decode(plain.replace(_HIDDEN, b"\\"))


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
