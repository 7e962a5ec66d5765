"""QEMU's form of a value, member by member: what `encoder` cannot leave to the C encoder."""

from __future__ import annotations

from _json import encode_basestring_ascii
from collections.abc import Iterator

from memd.json_types import JSON
from memd.wire.utf8 import decode_for_display, with_replacements

_INDENT = "    "
_NEWLINE = "\r\n"

_SWAP = bytes.maketrans(b"abcdefABCDEF", b"ABCDEFabcdef")
_MARKS = {"\\": "\ufdd0", "\b": "\ufdd1", "\f": "\ufdd2"}
"""What stands for those of which the C encoder's escapes can't be told from its hexadecimal
digits by their bytes: noncharacters, which no text has that is to be escaped."""

_OF_NONCHARACTERS = (b"\xef\xb7", b"\xbf\xbe", b"\xbf\xbf")
"""Bytes one of which is in the UTF-8 of every noncharacter. To look for them takes a tenth of the
time of looking for the noncharacters."""

_PIECE = 8192
"""Characters that are escaped at once: all that is made of them stays in a processor's cache."""


def print_value(value: JSON, pretty: bool, end: str = "") -> str:
    """The text of `value`, at any depth, and `end` after it; see `memd.wire.encode`."""
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
                out += (_string(key), ": ")
            break
        else:
            out.append(end)
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
    pieces = (text[at : at + _PIECE] for at in range(0, len(text), _PIECE))
    try:
        return f'"{"".join(map(_escaped, pieces))}"'
    except UnicodeEncodeError:
        pass
    # Surrogates stand for the bytes of a name that is not UTF-8 (PEP 383); they are shown as
    # QEMU shows those bytes.
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raw = text.encode("utf-8", "surrogatepass")
    return _string(decode_for_display(raw))


def _escaped(text: str) -> str:
    """What the C encoder makes of a text, with hexadecimal digits in upper case, unquoted.

    The letters that may be digits change their case before it, and again after it, with
    them. No step is done in Python for each character: that took 64 ms for a million.

    Raises:
        UnicodeEncodeError: there are surrogates in it.
    """
    data = text.encode()
    if any(each in data for each in _OF_NONCHARACTERS):
        text = with_replacements(text)
        data = text.encode()
    swapped = data.translate(_SWAP)
    if swapped != data:
        text = swapped.decode()
    marked = [each for each in _MARKS if each in text]
    for each in marked:
        text = text.replace(each, _MARKS[each])
    quoted = encode_basestring_ascii(text)[1:-1].encode().translate(_SWAP).decode()
    for each in reversed(marked):
        escaped = encode_basestring_ascii(each)[1:-1]
        quoted = quoted.replace(f"\\u{ord(_MARKS[each]):04X}", escaped)
    return quoted
