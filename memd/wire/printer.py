"""QEMU's form of a value, member by member: what `encoder` cannot leave to the C encoder."""

from __future__ import annotations

import re
from _json import encode_basestring_ascii
from collections.abc import Iterator

from memd.json_types import JSON
from memd.wire.utf8 import INVALID, REPLACEMENT, decode_for_display

_INDENT = "    "
_NEWLINE = "\r\n"

_TO_ESCAPE = re.compile(r"[^ !#-\[\]-~]")
_ESCAPES = {
    ord('"'): '\\"',
    ord("\\"): "\\\\",
    ord("\b"): "\\b",
    ord("\f"): "\\f",
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
}


def print_value(value: JSON, pretty: bool) -> str:
    """The text of `value`, at any depth; see `memd.wire.encode`."""
    out: list[str] = []
    # One for each open container: what is left of it, and its closing character.
    stack: list[tuple[Iterator[JSON], str]] = []
    while True:
        if isinstance(value, dict):
            out.append("{")
            stack.append((iter(value.items()), "}"))
            first = True
        elif isinstance(value, (list, tuple)):
            out.append("[")
            stack.append((iter(value), "]"))
            first = True
        else:
            out.append(_scalar(value))
            first = False
        while stack:
            left, closer = stack[-1]
            try:
                value = next(left)
            except StopIteration:
                stack.pop()
                if pretty:
                    out.append(_NEWLINE + _INDENT * len(stack))
                out.append(closer)
                first = False
                continue
            if not first:
                out.append("," if pretty else ", ")
            if pretty:
                out.append(_NEWLINE + _INDENT * len(stack))
            if closer == "}":
                key, value = value
                out.append(_string(key) + ": ")
            break
        else:
            return "".join(out)


def _scalar(value: JSON) -> str:
    if isinstance(value, str):
        return _string(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return f"{value:.17g}"
    raise TypeError(f"no JSON value: {value!r}")


def _string(text: str) -> str:
    if text.isascii():
        quoted = encode_basestring_ascii(text)
        if "\\u" not in quoted:
            return quoted
    else:
        text = _with_replacements(text)
    if _TO_ESCAPE.search(text):
        text = text.translate(_Escaped(_ESCAPES))
    return f'"{text}"'


def _with_replacements(text: str) -> str:
    """`text` with U+FFFD for what is not a character to QEMU.

    Surrogates stand for the bytes of a name that is not UTF-8 (PEP 383); they are
    shown as QEMU shows those bytes.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        try:
            raw = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raw = text.encode("utf-8", "surrogatepass")
        return decode_for_display(raw)
    return INVALID.sub(REPLACEMENT, text)


class _Escaped(dict[int, str]):
    """How characters are written, by number; made as they come.

    With `str.translate` it takes a fifth of the time of a regular expression that calls a
    function for each character: 64 ms for a million, measured.
    """

    def __missing__(self, code: int) -> str:
        if 0x20 <= code < 0x7F:
            escaped = chr(code)
        elif code < 0x10000:
            escaped = f"\\u{code:04X}"
        else:
            high, low = divmod(code - 0x10000, 0x400)
            escaped = f"\\u{0xD800 | high:04X}\\u{0xDC00 | low:04X}"
        self[code] = escaped
        return escaped
