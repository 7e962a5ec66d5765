"""Bytes from a peer in, values and errors out: one codec for the daemon and its clients.

`Decoder.put` takes bytes, and `Decoder.next` gives what is next: a value, an error that
the peer is to be told, `NEED_DATA` where no further message is whole, or `MORE` where
there is more to go through than is done at once. It never raises on account of what a
peer sent.

Two ways lead through here. Nearly every packet of an ordinary client is one or
more whole objects: the C scanner of the standard library reads those, over ten
times faster than the lexer and parser written here. It is asked only between
messages, and what it says is taken only where it provably means the same;
everything else goes to `Lexer` and `Parser`, which do what QEMU does to the
letter, and a few hundred tokens at a time.

The scanner comes from `_json`, which the json package itself takes it from:
importing that package would add a millisecond to the daemon's start. A third
party's decoder (orjson, msgspec) would save half a microsecond a message, tells
nothing of a key that came twice, and takes 10 to 20 ms to import.
"""

from __future__ import annotations

import enum
from _json import make_scanner
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Final

from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSON
from memd.wire import limits
from memd.wire.large import LARGE, TOKEN_COST, Large

if TYPE_CHECKING:
    from memd.wire.lexer import Lexer
    from memd.wire.position import Position

_WHITE = " \t\r\n"

# A message this short (characters) cannot reach the nesting limit, nor one of the second
# length that of tokens: neither has to be counted then.
_SURELY_FLAT = 1024
_SURELY_SMALL = 4096

# Characters that may end a line, behind a message.
_LINE_END = 2

# How an escape begins that may name a surrogate or a noncharacter.
_DOUBTFUL_ESCAPES = (b"\\ud", b"\\uD", b"\\uf", b"\\uF")

# No more than this (bytes) is gone through in one piece, so that no token that is whole in a
# piece is over a limit, and none takes long.
_PIECE = 1 << 18

# Bytes that the exact path takes at once, where there may be escapes: those that only QEMU
# has take 30 ms.
_STEP = 1 << 16

# Tokens of the exact path between two looks at the time: a millisecond, or two.
_TOKENS = 512


class Nothing(enum.Enum):
    """What there is instead of an item."""

    NEED_DATA = "no further message is whole"
    MORE = "there is more to go through: ask again, when others have had their turn"


NEED_DATA: Final = Nothing.NEED_DATA
MORE: Final = Nothing.MORE


def _int(digits: str) -> int:
    if len(digits) < 20:
        return int(digits)
    raise ValueError  # perhaps beyond 64 bits


def _float(digits: str) -> float:
    if digits.lstrip("-")[:2] in ("0e", "0E"):
        raise ValueError  # two tokens to QEMU
    return float(digits)


def _constant(name: str) -> float:
    raise ValueError(name)  # NaN, Infinity


def _distinct(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError  # a key came twice
    return members


class _Context:
    """The functions that the scanner calls (the attributes of json.JSONDecoder)."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_distinct)
    parse_int = staticmethod(_int)
    parse_float = staticmethod(_float)
    parse_constant = staticmethod(_constant)


# (typeshed names the scanner itself as the type of what it is made from)
_scan = make_scanner(_Context())  # type: ignore[arg-type]


def _is_deep(value: JSON) -> bool:
    """Whether it goes beyond the nesting limit."""
    containers = [value]
    for _ in range(limits.MAX_NESTING):
        items = [each.values() if type(each) is dict else each for each in containers]
        containers = [each for each in chain.from_iterable(items) if type(each) in (dict, list)]
        if not containers:
            return False
    return True


class Decoder:
    """One peer's input.

    Args:
        compat: whose texts and whose way of going on after an error.
        max_message: bytes of all tokens in one message; None for as many as QEMU takes.
        max_tokens: in one message; None for as many as QEMU takes.

    What goes beyond bounds that are lower than QEMU's is skipped to its end.
    """

    __slots__ = (
        *("_at", "_compat", "_data", "_exact", "_lexer", "_max_message", "_max_tokens"),
        *("_ready", "_position", "_text"),
    )

    def __init__(
        self,
        compat: Compat = Compat.V10_0,
        max_message: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self._compat = compat
        self._max_message = limits.MAX_TOKEN_BYTES if max_message is None else max_message
        self._max_tokens = limits.MAX_TOKEN_COUNT if max_tokens is None else max_tokens
        self._lexer: Lexer | None = None
        self.reset()

    def reset(self) -> None:
        """Begin anew, as for a new connection."""
        if self._lexer is not None:
            self._lexer.drop()
            self._lexer = None
        # Input that was not gone through yet, from `_at` on. While the fast path goes
        # through it, it stands in `_text` as well, and `_at` counts characters there.
        self._data = b""
        self._at = 0
        self._text: str | None = None
        # Whether the exact path has to be next.
        self._exact = False
        # What the exact path came to besides what was given already.
        self._ready: deque[JSON | QMPError | Large] = deque()
        self._position: Position | None = None
        if self._compat is not Compat.V10_0:
            from memd.wire.position import Position

            self._position = Position()

    @property
    def pending(self) -> bool:
        """Whether there is input that was not gone through yet."""
        return bool(self._data or self._ready)

    @property
    def held(self) -> int:
        """Bytes that the message under construction takes, roughly, and what waits."""
        held = len(self._data)
        return held if self._lexer is None else held + self._lexer.held

    @property
    def unfinished(self) -> int:
        """Bytes that the message under construction takes, roughly."""
        return 0 if self._lexer is None else self._lexer.held

    def feed(self, data: bytes) -> list[JSON | QMPError]:
        """Take what the peer sent, and go through all of it at once."""
        found: list[JSON | QMPError] = []
        for begin in range(0, len(data), _PIECE):
            self.put(data[begin : begin + _PIECE])
            while (item := self.next()) is not NEED_DATA:
                if item is not MORE:
                    found.append(item.value if type(item) is Large else item)
        return found

    def put(self, data: bytes) -> None:
        """Take what the peer sent; `next` goes through it."""
        if self._data:
            self._leave_text()
            data = self._data[self._at :] + data
        self._data = data
        self._at = 0
        lexer = self._lexer
        if not (self._exact or self._ready) and (lexer is None or lexer.idle):
            self._enter_text()

    def next(self) -> JSON | QMPError | Large | Nothing:
        """What is next: a value (one that takes much as a `Large`), an error, or `Nothing`."""
        text = self._text
        if text is not None:
            at, end = self._at, len(text)
            while at < end and text[at] in _WHITE:
                at += 1
            if at == end:
                self._at = at
                self._leave_text()
                return NEED_DATA
            if text[at] == "{":
                try:
                    value, stop = _scan(text, at)
                except (StopIteration, ValueError, RecursionError, SystemError):
                    # SystemError: Python 3.11's scanner raises an exception of json.decoder,
                    # or none where nobody has imported that.
                    pass
                else:
                    if stop - at <= _SURELY_FLAT:
                        self._at = stop
                        if end - stop <= _LINE_END and not text[stop:].strip(_WHITE):
                            # That was all.
                            if self._position is not None:
                                self._position.advance(self._data, 0, len(self._data))
                            self._text, self._data, self._at = None, b"", 0
                        return value
                    judged = self._judge(value, text, at, stop)
                    if judged is not None:
                        self._at = stop
                        return judged
            self._at = at
            self._leave_text()
            self._exact = True
        return self._next_exact()

    def end(self) -> list[JSON | QMPError]:
        """The peer sends no more: gives what that brings out.

        It is nothing, as in QEMU (observed on 10.0.2 and 11.1.3): an unfinished
        value is dropped, be it a number that only lacks a byte after it.
        """
        self.reset()
        return []

    def _next_exact(self) -> JSON | QMPError | Large | Nothing:
        if self._ready:
            return self._ready.popleft()
        if not self._data:
            return NEED_DATA
        lexer = self._lexer
        begun = lexer is not None and not lexer.idle
        if not (begun or self._exact) and self._enter_text():
            return self.next()
        if lexer is None:
            from memd.wire.lexer import Lexer

            lexer = self._lexer = Lexer(
                self._compat, self._position, self._max_message, self._max_tokens, LARGE
            )
        self._exact = False
        found: list[JSON | QMPError | Large] = []
        escapes = b"\\" in self._data
        end = self._at + _STEP if escapes else len(self._data)
        piece = self._data[self._at : end]
        # What began in an earlier packet is followed by what may take the fast path.
        self._at += lexer.feed(piece, 0, found, begun, _TOKENS, escapes)
        if self._at == len(self._data):
            self._data, self._at = b"", 0
        if found:
            self._ready.extend(found)
            return self._ready.popleft()
        return MORE if self._data else NEED_DATA

    def _judge(self, value: JSON, text: str, at: int, stop: int) -> JSON | Large | None:
        """A longer message that the scanner took; None where the exact path has to judge it."""
        opened = text.count("{", at, stop) + text.count("[", at, stop)
        if opened > _SURELY_FLAT and _is_deep(value):
            return None
        if stop - at <= _SURELY_SMALL:
            return value
        # No fewer than there are: in strings these stand, too.
        tokens = 2 * (opened + text.count(",", at, stop) + text.count(":", at, stop)) + 1
        if tokens > self._max_tokens or stop - at > self._max_message:
            return None
        held = stop - at + TOKEN_COST * tokens
        return Large(value, stop - at, held) if held > LARGE else value

    def _enter_text(self) -> bool:
        """Take the fast path through what there is, if that may be."""
        data = self._data[self._at :] if self._at else self._data
        if b"\\u" in data and any(prefix in data for prefix in _DOUBTFUL_ESCAPES):
            return False
        text: str | None
        if data.isascii():
            text = data.decode("ascii")
        else:
            from memd.wire.utf8 import decode

            text = decode(data)
            if text is None or "\0" in text:
                return False
        self._data = data
        self._at = 0
        self._text = text
        return True

    def _leave_text(self) -> None:
        """Go on with the bytes where the fast path has come to."""
        text = self._text
        if text is None:
            return
        self._text = None
        if len(text) != len(self._data):
            self._at = len(text[: self._at].encode("utf-8"))
        if self._position is not None:
            self._position.advance(self._data, 0, self._at)
        if self._at == len(self._data):
            self._data, self._at = b"", 0
