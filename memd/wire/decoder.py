"""Bytes from a client in, values and errors out.

Two ways lead through here. Nearly every packet of an ordinary client is one or
more whole objects: the C scanner of the standard library reads those, over ten
times faster than the lexer and parser written here. It is asked only between
messages, and what it says is taken only where it provably means the same;
everything else goes to `Lexer` and `Parser`, which do what QEMU does to the
letter.

The scanner comes from `_json`, which the json package itself takes it from:
importing that package would add a millisecond to the daemon's start. A third
party's decoder (orjson, msgspec) would save half a microsecond a message, tells
nothing of a key that came twice, and takes 10 to 20 ms to import.
"""

from __future__ import annotations

from _json import make_scanner
from typing import TYPE_CHECKING

from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSON

if TYPE_CHECKING:
    from memd.wire.lexer import Lexer
    from memd.wire.position import Position


_WHITE = " \t\r\n"

# A message this short (characters) cannot reach the nesting limit, nor one of the second
# length that of tokens: neither has to be counted then.
_SURELY_FLAT = 1024
_SURELY_SMALL = 2_097_152

# How an escape begins that may name a surrogate or a noncharacter.
_DOUBTFUL_ESCAPES = (b"\\ud", b"\\uD", b"\\uf", b"\\uF")

# Input is gone through in pieces of no more than this (bytes), so that no token that is whole
# in a piece is over a limit.
_SLICE = 1 << 20

# How much `take` comes to at once: a millisecond, or two where much of it is tokens.
_MESSAGES = 256
_TOKENS = 512


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
    """What the scanner is to call (the attributes that json.JSONDecoder has)."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_distinct)
    parse_int = staticmethod(_int)
    parse_float = staticmethod(_float)
    parse_constant = staticmethod(_constant)


# (typeshed names the scanner itself as the type of what it is made from)
_scan = make_scanner(_Context())  # type: ignore[arg-type]


class Decoder:
    """One client's input.

    Args:
        compat: whose texts and whose way of going on after an error.
        max_message: bytes of all tokens in one message; None for as many as QEMU takes.
        max_tokens: in one message; None for as many as QEMU takes.

    What goes beyond bounds that are lower than QEMU's is skipped to its end.
    """

    __slots__ = ("_at", "_compat", "_data", "_lexer", "_max_message", "_max_tokens", "_position")

    def __init__(
        self,
        compat: Compat = Compat.V10_0,
        max_message: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self._compat = compat
        self._max_message = max_message
        self._max_tokens = max_tokens
        self._lexer: Lexer | None = None
        self.reset()

    def reset(self) -> None:
        """Begin anew, as for a new connection."""
        if self._lexer is not None:
            self._lexer.drop()
            self._lexer = None
        self._position: Position | None = None
        # Input that was not gone through yet, from `_at` on.
        self._data = b""
        self._at = 0
        if self._compat is not Compat.V10_0:
            from memd.wire.position import Position

            self._position = Position()

    @property
    def more(self) -> bool:
        """Whether there is input that `take` has not gone through yet."""
        return self._at < len(self._data)

    @property
    def held(self) -> int:
        """Bytes that the message under construction takes, roughly."""
        return 0 if self._lexer is None else self._lexer.held

    def feed(self, data: bytes) -> list[JSON | QMPError]:
        """Take what the client sent, all of it; see `take`."""
        out: list[JSON | QMPError] = []
        for begin in range(0, len(data), _SLICE):
            out += self.take(data[begin : begin + _SLICE])
            while self._at < len(self._data):
                out += self.take()
        return out

    def put(self, data: bytes) -> None:
        """Keep what the client sent for `take`."""
        self._data = self._data[self._at :] + data
        self._at = 0

    def take(self, data: bytes = b"") -> list[JSON | QMPError]:
        """Take some of what the client sent; never raises on account of it.

        No more than a millisecond or two takes. Where `more` says that there is
        more, it is to be called again, with nothing.

        Args:
            data: what has come, if anything, no more than 1 MiB.

        Returns:
            What became whole by it, in order: values, and for what is malformed
            the error to answer with.
        """
        out: list[JSON | QMPError] = []
        pos = self._at
        if self._data:
            if data:
                data = self._data[pos:] + data
                pos = 0
            else:
                data = self._data
        end = len(data)
        lexer = self._lexer
        whole = True
        if lexer is not None and not lexer.idle:
            # The end of a message that began in an earlier packet.
            pos = self._exact(data, pos, out, until_idle=True)
            whole = lexer.idle
        if pos < end and whole:
            pos = self._fast(data, pos, out)
            if pos < end and len(out) < _MESSAGES:
                pos = self._exact(data, pos, out)
        if pos < end:
            self._data, self._at = data, pos
        else:
            self._data, self._at = b"", 0
        return out

    def end(self) -> list[JSON | QMPError]:
        """The client sends no more: gives what that brings out.

        It is nothing, as in QEMU (observed on 10.0.2 and 11.1.3): an unfinished
        value is dropped, be it a number that only lacks a byte after it.
        """
        self.reset()
        return []

    def _exact(
        self, data: bytes, pos: int, out: list[JSON | QMPError], until_idle: bool = False
    ) -> int:
        """Take `data` from `pos` on, or only the message that is under way; gives its end."""
        lexer = self._lexer
        if lexer is None:
            from memd.wire.lexer import Lexer

            lexer = self._lexer = Lexer(
                self._compat, self._position, self._max_message, self._max_tokens
            )
        return lexer.feed(data, pos, out, until_idle, most=_TOKENS)

    def _fast(self, data: bytes, start: int, out: list[JSON | QMPError]) -> int:
        """Take whole messages from `start` on.

        Returns:
            Where the exact path has to begin, or where it stopped since they are
            enough for once.
        """
        if b"\\u" in data and any(prefix in data for prefix in _DOUBTFUL_ESCAPES):
            return start
        ascii_only = data.isascii()
        try:
            text = data.decode("ascii" if ascii_only else "utf-8")
        except UnicodeDecodeError:
            return start
        if not ascii_only:
            from memd.wire.utf8 import INVALID

            if INVALID.search(text):
                return start
        pos = start if ascii_only else len(data[:start].decode("utf-8"))
        pos = _take_messages(text, pos, out)
        if not ascii_only:
            pos = len(text[:pos].encode("utf-8"))
        if self._position is not None:
            self._position.advance(data, start, pos)
        return pos


def _take_messages(text: str, pos: int, out: list[JSON | QMPError]) -> int:
    """Append the messages that stand in `text` from `pos` on to `out`.

    Returns:
        Where the first stands that the scanner cannot or must not take, or that is
        one too many.
    """
    end = len(text)
    while len(out) < _MESSAGES:
        while pos < end and text[pos] in _WHITE:
            pos += 1
        if pos == end or text[pos] != "{":
            return pos
        try:
            value, stop = _scan(text, pos)
        except (StopIteration, ValueError, RecursionError, SystemError):
            # SystemError: Python 3.11's scanner raises an exception of json.decoder,
            # or none where nobody has imported that.
            return pos
        if stop - pos > _SURELY_FLAT and (
            stop - pos > _SURELY_SMALL
            or text.count("{", pos, stop) + text.count("[", pos, stop) > _SURELY_FLAT
        ):
            return pos
        out.append(value)
        pos = stop
    return pos
