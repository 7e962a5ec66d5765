"""Bytes in, tokens out: QEMU's lexer, exactly, whatever the bytes and however they are split.

Whole tokens inside a packet are taken with one regular expression; whatever it
does not take (a token cut by the packet's end, a mistake) goes through a state
table byte by byte. Facts observed on QEMU 10.0.2 and 11.1.3:

- strings stand in double or single quotes; a backslash takes any byte with it
  that may stand in a string (whether the escape is known is judged later);
- bytes 00-1F, FE and FF may not stand in a string;
- numbers follow JSON, but nothing may follow a zero except a fraction: `0e5`
  is the number 0 and the keyword `e`;
- after a mistake, bytes are skipped up to one that could begin something, see
  `_resync`, and that byte is read again.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from ctypes import c_char_p, c_size_t, pythonapi
from functools import cache

from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSON
from memd.wire import limits
from memd.wire.large import Large
from memd.wire.literals import LONG, LongString
from memd.wire.parser import KEYWORD, NUMBER, STRING, Parser
from memd.wire.position import Position

_WHITE = b" \t\r\n"
_DIGITS = b"0123456789"
_LETTERS = b"abcdefghijklmnopqrstuvwxyz"
_STRUCTURE = b"{}[]:,"

# States: what was read of the current token.
_START = 0
_DOUBLE_QUOTED = 1
_DOUBLE_QUOTED_ESCAPE = 2
_SINGLE_QUOTED = 3
_SINGLE_QUOTED_ESCAPE = 4
_MINUS = 5
_ZERO = 6
_DIGIT = 7
_POINT = 8
_FRACTION = 9
_EXPONENT = 10
_EXPONENT_SIGN = 11
_EXPONENT_DIGIT = 12
_LETTER = 13
_RECOVERY = 14
# Ends of a token. After the first two the byte belongs to the token, after the next two it
# is read again.
_END_STRUCTURE = 16
_END_STRING = 17
_END_NUMBER = 18
_END_KEYWORD = 19
_ERROR = 20

_IN_STRING = bytes(range(0x20, 0xFE))
_CONTROLS = bytes(range(1, 17)), bytes(range(17, 32))
"""What may not stand in a string besides FE, FF and NUL, at which strcspn(3) always stops.
A processor compares 16 at once."""


def _row(default: int, *ranges: tuple[bytes, int]) -> bytes:
    """The next state for each byte: `default`, but for the bytes of `ranges`."""
    row = bytearray([default]) * 256
    for members, state in ranges:
        for byte in members:
            row[byte] = state
    return bytes(row)


_NEXT = (
    _row(
        _ERROR,
        (_WHITE, _START),
        (_STRUCTURE, _END_STRUCTURE),
        (b'"', _DOUBLE_QUOTED),
        (b"'", _SINGLE_QUOTED),
        (b"-", _MINUS),
        (b"0", _ZERO),
        (b"123456789", _DIGIT),
        (_LETTERS, _LETTER),
    ),
    _row(
        _ERROR,
        (_IN_STRING, _DOUBLE_QUOTED),
        (b"\\", _DOUBLE_QUOTED_ESCAPE),
        (b'"', _END_STRING),
    ),
    _row(_ERROR, (_IN_STRING, _DOUBLE_QUOTED)),
    _row(
        _ERROR,
        (_IN_STRING, _SINGLE_QUOTED),
        (b"\\", _SINGLE_QUOTED_ESCAPE),
        (b"'", _END_STRING),
    ),
    _row(_ERROR, (_IN_STRING, _SINGLE_QUOTED)),
    _row(_ERROR, (b"0", _ZERO), (b"123456789", _DIGIT)),
    _row(_END_NUMBER, (_DIGITS, _ERROR), (b".", _POINT)),
    _row(_END_NUMBER, (_DIGITS, _DIGIT), (b".", _POINT), (b"eE", _EXPONENT)),
    _row(_ERROR, (_DIGITS, _FRACTION)),
    _row(_END_NUMBER, (_DIGITS, _FRACTION), (b"eE", _EXPONENT)),
    _row(_ERROR, (b"+-", _EXPONENT_SIGN), (_DIGITS, _EXPONENT_DIGIT)),
    _row(_ERROR, (_DIGITS, _EXPONENT_DIGIT)),
    _row(_END_NUMBER, (_DIGITS, _EXPONENT_DIGIT)),
    _row(_END_KEYWORD, (_LETTERS, _LETTER)),
)


@cache
def _token() -> Callable[[bytes, int], re.Match[bytes] | None]:
    """Matches a whole token and the white space before it.

    A number or keyword is whole once a byte follows that cannot belong to it; where one
    follows that makes it a mistake, the table judges.
    """
    # These are made when they are needed: a message that is one long string needs none, and
    # to make them takes a tenth of the time of 16 MiB. A group with an optional part is not
    # made possessive: before Python 3.11.5 such a group forgets where it may stop (`re`,
    # gh-106052), and takes "1e" for a number.
    return re.compile(
        rb"[ \t\r\n]*+(?:"
        rb"([{}\[\]:,])"
        rb'|("(?:[^"\\\x00-\x1f\xfe\xff]++|\\[^\x00-\x1f\xfe\xff])*+"'
        rb"|'(?:[^'\\\x00-\x1f\xfe\xff]++|\\[^\x00-\x1f\xfe\xff])*+')"
        rb"|(-?(?:0(?:\.[0-9]++(?:[eE][+-]?[0-9]++)?)?"
        rb"|[1-9][0-9]*+(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?)(?=[^0-9.eE]))"
        rb"|([a-z]++)(?=[^a-z])"
        rb")"
    ).match


@cache
def _body(quote: bytes) -> re.Pattern[bytes]:
    """What a string goes on with."""
    return re.compile(rb"(?:[^%b\\\x00-\x1f\xfe\xff]++|\\[^\x00-\x1f\xfe\xff])++" % quote)


@cache
def _resync() -> re.Pattern[bytes]:
    """A byte that ends what is skipped after a mistake."""
    return re.compile(rb"[\[\]{}:,\x00-\x08\x0a-\x1f\xfe\xff]")


_CLOSING = {_DOUBLE_QUOTED: b'"', _SINGLE_QUOTED: b"'"}
_QUOTES = (b'"', b"'")
_BACKSLASH = ord("\\")
_SHORT = 1024
"""Bytes of a string that are gone through as quickly one way as the other."""
_WINDOW = 8192
"""Bytes in which the end of a string is looked for behind a quote that may not be it."""
_KINDS = {_END_STRING: STRING, _END_NUMBER: NUMBER, _END_KEYWORD: KEYWORD}


_PIECE = 32768
"""Bytes below which a part of a token is joined with what follows: a client may send
it byte by byte."""


_span = pythonapi.strcspn
_span.argtypes, _span.restype = (c_char_p, c_char_p), c_size_t


def _end_of_body(state: int, data: bytes, pos: int, end: int, plain: bool) -> int:
    """Where the run of a string's bytes ends that begins at `pos`; it has whole escapes only.

    Args:
        plain: whether `data` is ASCII without a backslash.
    """
    quote = _CLOSING[state]
    stop = data.find(quote, pos, end)
    if stop < 0:
        stop = end
    if stop - pos >= _SHORT:
        run = data[pos:stop]
        if stop < end and run[-1] == _BACKSLASH:
            # Perhaps it takes the quote with it, and so on: what is hidden, from the left to
            # the right, is not an end.
            run = data[pos : min(end, stop + _WINDOW)]
            run = run.replace(b"\\\\", b"__").replace(b"\\" + quote, b"__").partition(quote)[0]
        # One at the end that none before it takes with it begins an escape that is cut.
        cut = (len(run) - len(run.rstrip(b"\\"))) % 2
        # Twenty times as fast as a regular expression.
        if _span(run, _CONTROLS[0]) == _span(run, _CONTROLS[1]) == len(run) and (
            plain or (b"\xfe" not in run and b"\xff" not in run)
        ):
            return pos + len(run) - cut
    match = _body(quote).match(data, pos, end)
    return pos if match is None else match.end()


class Lexer:
    """Cuts the input into tokens and gives them to its `Parser`; one per connection.

    Args:
        compat: whose behaviour.
        position: counts lines and columns where the release tells them, else None.
        max_message: bytes of all tokens in one message; None for as many as QEMU takes.
        max_tokens: in one message; None for as many as QEMU takes.
        large: bytes that a message takes, from which on it is given as a `Large`.
    """

    __slots__ = (
        "_again",
        "_counted",
        "_data",
        "_long",
        "_max_open",
        "_parser",
        "_partial",
        "_partial_bytes",
        "_partial_where",
        "_plain",
        "_position",
        "_reread",
        "_stale",
        "_stale_where",
        "_state",
    )

    def __init__(
        self,
        compat: Compat,
        position: Position | None,
        max_message: int | None = None,
        max_tokens: int | None = None,
        large: int = sys.maxsize,
    ) -> None:
        self._parser = Parser(compat, self._locate, max_message, max_tokens, large)
        self._max_open = limits.MAX_OPEN_TOKEN_BYTES
        if max_message is not None:
            self._max_open = min(self._max_open, max_message + 1)
        self._position = position
        self._state = _START
        # What there is of a token that began in an earlier packet, in pieces: one
        # buffer that grows leaves holes behind it in the heap that nothing fits into.
        # Of a long string these are the first, and what it stands for is made in `_long`.
        self._partial: list[bytes] = []
        self._partial_bytes = 0
        self._partial_where = ""
        self._long: LongString | None = None
        self._data = b""
        # Whether that is ASCII without a backslash.
        self._plain = True
        self._counted = 0
        self._reread = -1
        # Whether the next byte is read again.
        self._again = False
        self._stale = -1
        self._stale_where = ""

    @property
    def idle(self) -> bool:
        """Whether it stands between messages, and owes the next nothing (`_again`, `_stale`)."""
        if self._state != _START or self._parser.tokens or self._again:
            return False
        return self._stale != len(self._data)

    def drop(self) -> None:
        """Drop the message under construction: nothing more comes."""
        # It and its parser know each other, and would keep it until they are collected.
        self._forget()
        self._parser.reset()

    @property
    def held(self) -> int:
        """Bytes that the message under construction takes, roughly."""
        parser = self._parser
        if parser.told:
            return parser.held
        # What an error would quote is there twice.
        quoted = 0 if self._long is None else LONG
        return parser.held + self._partial_bytes + quoted

    def feed(
        self,
        data: bytes,
        pos: int,
        out: list[JSON | QMPError | Large],
        until_idle: bool = False,
        most: int = sys.maxsize,
        escapes: bool = True,
    ) -> int:
        """Take `data` from `pos` on; values and errors are appended to `out`.

        Args:
            data: no more than `limits.MAX_OPEN_TOKEN_BYTES` bytes.
            pos: where to begin.
            out: what the input comes to.
            until_idle: stop as soon as a message is over and nothing of it bears on what follows.
            most: tokens after which to stop, once nothing bears on what follows.
            escapes: whether there may be a backslash in `data`.

        Returns:
            Where it stopped: the end of `data`, or before where `until_idle` or
            `most` says so. It can be called again from there on, with the same data
            or with what follows.
        """
        parser = self._parser
        parser.out = out
        self._counted = pos
        self._reread = pos if self._again else -1
        self._again = False
        self._data = data
        self._plain = not escapes and data.isascii()
        end = len(data)
        quote = data[pos : pos + 1]
        if self._state == _START and quote in _QUOTES and data.find(quote, pos + 1) < 0:
            # It goes on in the next packet.
            pos = self._step(pos)
        while pos < end:
            if self._state == _START:
                match = _token()(data, pos)
                if match is not None:
                    which = match.lastindex or 0
                    pos = match.end()
                    if which == 1:
                        parser.push(data[pos - 1], match[1], pos - 1)
                    elif which == 2:
                        parser.push(STRING, match[2], match.start(2))
                    else:
                        kind = NUMBER if which == 3 else KEYWORD
                        parser.push(kind, match[which], match.start(which))
                        self._reread = pos
                else:
                    pos = self._step(pos)
            elif self._state == _RECOVERY:
                match = _resync().search(data, pos)
                if match is None:
                    pos = end
                else:
                    pos = self._reread = match.start()
                    self._state = _START
            else:
                pos = self._step(pos)
            most -= 1
            if pos == self._stale:
                continue
            if most <= 0 or (until_idle and pos != self._reread and self.idle):
                break
        self._again = pos < end and pos == self._reread
        if self._position is not None:
            self._position.advance(data, self._counted, pos)
        # Of what follows the beginning is what stands there now. The data is not kept: it would
        # be for as long as the client sends no more.
        self._stale = 0 if self._stale == end else -1
        self._data = b""
        return pos

    def _step(self, pos: int) -> int:
        """Take one token, or what there is of it, byte by byte from `pos`; gives its end."""
        data, state = self._data, self._state
        begin, end = pos, len(data)
        most = end if self._parser.skipping else pos + self._max_open - self._partial_bytes
        while pos < end:
            if state in _CLOSING:
                body = _end_of_body(state, data, pos, min(end, most + 1), self._plain)
                if body > pos:
                    pos = body
                    if pos > most:
                        return self._drop(begin, pos)
                    continue
            state = _NEXT[state][data[pos]]
            if state == _START:
                pos += 1
                begin = pos
                most = end if self._parser.skipping else pos + self._max_open
            elif state < _END_STRUCTURE:
                pos += 1
                if pos > most:
                    return self._drop(begin, pos)
            else:
                return self._end_token(state, begin, pos)
        if begin < end:
            if not self._partial:
                self._partial_where = self._locate(begin)
            self._keep(data[begin:end])
        self._state = state
        return pos

    def _keep(self, data: bytes) -> None:
        """Keep a part of a token until the rest of it comes."""
        partial = self._partial
        self._partial_bytes += len(data)
        if self._parser.told:
            # Nothing comes of it.
            if not partial:
                partial.append(data[:1])
        elif self._long is not None:
            self._long.add(data, self._plain)
        elif self._partial_bytes > LONG and (partial or [data])[0][:1] in _QUOTES:
            partial.append(data)
            whole = b"".join(partial)
            # No message is a string: of one that is, nobody reads the text.
            self._long = LongString(whole[:1], kept=self._parser.tokens > 0)
            self._long.add(whole[1:], plain=False)
            # An error quotes no more.
            self._partial = [whole[:LONG]]
        elif partial and len(partial[-1]) < _PIECE:
            partial[-1] += data
        else:
            partial.append(data)

    def _forget(self) -> None:
        self._partial = []
        self._partial_bytes = 0
        self._long = None

    def _end_token(self, state: int, begin: int, pos: int) -> int:
        """A token that began at `begin` (or in an earlier packet) is over at `pos`."""
        data = self._data
        reread = state in (_END_NUMBER, _END_KEYWORD)
        if not reread:
            pos += 1
        token: bytes | LongString = data[begin:pos]
        if self._partial:
            if self._long is not None and state == _END_STRING:
                self._long.add(data[begin : pos - 1], self._plain, last=True)
                token = self._long
            else:
                self._partial.append(data[begin:pos])
                token = b"".join(self._partial)
            self._forget()
            begin = -1
        self._state = _RECOVERY if state == _ERROR else _START
        if isinstance(token, LongString):
            self._parser.push(STRING, token, begin)
        elif state == _ERROR:
            self._parser.stray(token, begin)
        elif state == _END_STRUCTURE:
            self._parser.push(token[0], token, begin)
        else:
            self._parser.push(_KINDS[state], token, begin)
        if reread:
            self._reread = pos
        return pos

    def _drop(self, begin: int, pos: int) -> int:
        """A token that began at `begin` (or in an earlier packet) is too long at `pos`."""
        where = self._locate(-1 if self._partial else begin)
        self._parser.drop_open_token()
        if self._parser.skipping:
            # It goes on, and is kept no more: its first byte stands for it.
            first = self._partial[0][:1] if self._partial else self._data[begin : begin + 1]
            self._forget()
            self._partial = [first]
            self._partial_where = where
            return pos
        self._stale_where = where
        self._stale = pos
        self._forget()
        self._state = _START
        return pos

    def _locate(self, start: int) -> str:
        """The position before the text of an error at `start`, or in the token begun earlier (-1).

        A byte that ended the token before it, or a recovery, and then began this one was read
        twice, and 11.1 takes it for one column further. A token right after one that was too
        long is taken to begin where that did.
        """
        position = self._position
        if position is None:
            return ""
        if start < 0:
            return self._partial_where
        if start == self._stale:
            return self._stale_where
        position.advance(self._data, self._counted, start)
        self._counted = start
        return f"{position.line}:{position.column + (start == self._reread)}: "
