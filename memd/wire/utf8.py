"""QEMU's UTF-8: what a string may hold, and what is shown of bytes that are none.

Noncharacters (U+FDD0..U+FDEF and the last two code points of every plane) are
refused like surrogates and overlong forms; one overlong form, C0 80, stands for
NUL. Observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

import re
from functools import cache

REPLACEMENT = "\ufffd"


@cache
def _invalid() -> re.Pattern[str]:
    # Made when a text may match: that takes as long as to import all else of this room.
    return re.compile("[\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


_PLANE_ENDS = tuple(chr(plane << 16 | low) for plane in range(1, 17) for low in (0xFFFE, 0xFFFF))
"""What may stand in a Python string and not in one of QEMU's. To look for those of the first
plane and for each of the others takes a tenth of the time of one expression for all."""

# The smallest code point that needs a sequence of this many bytes: a smaller one is overlong.
_LEAST = (0, 0, 0x80, 0x800, 0x10000, 0x200000, 0x4000000)


def is_valid(text: str) -> bool:
    """Whether all that stands in a text may stand in one of QEMU's."""
    return not (_invalid().search(text) or _has_plane_end(text))


def _has_plane_end(text: str) -> bool:
    return any(each in text for each in _PLANE_ENDS)


def with_replacements(text: str) -> str:
    """A text with U+FFFD for what may not stand in one of QEMU's."""
    text = _invalid().sub(REPLACEMENT, text)
    for each in _PLANE_ENDS:
        text = text.replace(each, REPLACEMENT)
    return text


def decode(data: bytes) -> str | None:
    """The text that `data` holds, or None where QEMU finds it invalid."""
    if data.isascii():
        return data.decode("ascii")
    try:
        text = (data.replace(b"\xc0\x80", b"\0") if b"\xc0" in data else data).decode("utf-8")
    except UnicodeDecodeError:
        return None
    # One of the first plane begins with EF, which most texts lack: to look for it at each
    # character takes as long as all else.
    is_invalid = (b"\xef" in data and _invalid().search(text)) or _has_plane_end(text)
    return None if is_invalid else text


def decode_for_display(data: bytes) -> str:
    """The text that QEMU shows for `data`, which may be any bytes.

    A sequence is the lead byte and as many continuation bytes as it asks for,
    or as are there; each sequence that is not a valid character becomes one U+FFFD.
    """
    text = decode(data)
    return _replace_invalid(data) if text is None else text


def _replace_invalid(data: bytes) -> str:
    out = []
    pos, end = 0, len(data)
    while pos < end:
        lead = data[pos]
        pos += 1
        if lead < 0x80:
            out.append(chr(lead))
            continue
        if lead < 0xC0 or lead >= 0xFE:
            out.append(REPLACEMENT)
            continue
        length = 2 + (lead >= 0xE0) + (lead >= 0xF0) + (lead >= 0xF8) + (lead >= 0xFC)
        code = lead & (0x7F >> length)
        last = min(pos + length - 1, end)
        start = pos
        while pos < last and data[pos] & 0xC0 == 0x80:
            code = code << 6 | data[pos] & 0x3F
            pos += 1
        whole = pos - start == length - 1
        if whole and length == 2 and code == 0:
            out.append("\0")
        elif whole and code >= _LEAST[length] and is_character(code):
            out.append(chr(code))
        else:
            out.append(REPLACEMENT)
    return "".join(out)


def is_character(code: int) -> bool:
    """Whether QEMU takes the code point: no surrogate, no noncharacter, within Unicode."""
    return (
        code <= 0x10FFFF
        and not 0xD800 <= code <= 0xDFFF
        and not 0xFDD0 <= code <= 0xFDEF
        and code & 0xFFFE != 0xFFFE
    )
