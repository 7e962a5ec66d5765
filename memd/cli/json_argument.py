"""A JSON object as an argument: the same dialect as on the wire, with an end.

A client that stops in mid-value is waited for; an argument that does is a
mistake. Which one QEMU names was observed on 10.0.2 and 11.1.3.
"""

from __future__ import annotations

from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.wire import Decoder

_FINISHES = (b"", b"1", b":1", b'"\\u0001":1')
"""Endings that complete an unfinished value, before its braces are closed."""


def parse_json_argument(text: str, compat: Compat) -> JSONObject:
    """The object that an argument which begins with `{` is.

    Raises:
        QMPError: it is malformed, or more follows.
    """
    data = text.encode("utf-8", "surrogateescape")
    decoder = Decoder(compat)
    # A line feed ends every token, and is an error within a string.
    found = decoder.feed(data) or decoder.feed(b"\n")
    if not found:
        raise _unfinished(data, compat)
    first = found[0]
    if isinstance(first, QMPError):
        desc = first.desc
        # Without the line feed that ended the token which it quotes.
        raise QMPError(f"{desc[:-2]}'" if desc.endswith("\n'") else desc)
    # A further value that has begun takes what follows for its own.
    if len(found) > 1 or decoder.feed(b"\n{}") != [{}]:
        raise QMPError("Expecting at most one JSON value")
    value: JSONObject = first
    return value


def _unfinished(data: bytes, compat: Compat) -> QMPError:
    """The error for what ends too early."""
    if compat is not Compat.V10_0:
        # It would have told any other by now. The end of a bare word, where
        # nothing else ends it, counts as a column.
        line = data.count(b"\n") + 1
        column = len(data) - data.rfind(b"\n") + data[-1:].isalnum()
        return QMPError(f"{line}:{column}: JSON parse error, premature end of input")
    # 10.0 first reads to the end, then looks for mistakes: one that is made
    # already stays, whichever way the rest goes.
    closing = _closing(data)
    told = []
    for finish in _FINISHES:
        first = Decoder(compat).feed(b"%b %b%b" % (data, finish, closing))[0]
        told.append(first.desc if isinstance(first, QMPError) else "")
    if told.count(told[0]) == len(told) and told[0]:
        return QMPError(told[0])
    return QMPError("JSON parse error, premature EOI")


def _closing(data: bytes) -> bytes:
    """The brackets that are open at the end, closed."""
    closing: list[int] = []
    quote = 0
    escaped = False
    for byte in data:
        if quote:
            if escaped:
                escaped = False
            elif byte == ord("\\"):
                escaped = True
            elif byte == quote:
                quote = 0
        elif byte in b"\"'":
            quote = byte
        elif byte in b"{[":
            closing.append(byte + 2)
        elif byte in b"}]" and closing:
            closing.pop()
    return bytes(reversed(closing))
