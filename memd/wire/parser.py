"""Tokens in, values and errors out.

A push parser: it takes one token at a time, holds the value under construction
and counts braces and brackets. A message is over when both counts are zero or
either is negative. What happens on an error differs between the releases:

- 10.0 judges a message at its end: the first error is told then.
- 11.1 tells the error at once, with the line and column of the token, and
  then takes the rest of the message without a word.

All texts, limits and their order: observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSON
from memd.wire import limits
from memd.wire.large import TOKEN_COST, Large
from memd.wire.literals import LiteralError, LongString, parse_keyword, parse_number, parse_string
from memd.wire.utf8 import decode_for_display

# Kinds of token. The first six are the characters themselves.
LBRACE, RBRACE, LBRACKET, RBRACKET, COLON, COMMA = b"{}[]:,"
STRING = ord('"')
NUMBER = ord("0")
KEYWORD = ord("a")

# What may come next.
_VALUE = 0
_VALUE_OR_END = 1  # after [
_KEY_OR_END = 2  # after {
_KEY = 3  # after a comma in an object
_COLON = 4
_LIST_NEXT = 5  # after an element
_DICT_NEXT = 6  # after a pair

_CLOSED = 7  # nothing: the container is over
# What punctuation does where it is expected.
_NEXT_AFTER = {
    (COMMA, _DICT_NEXT): _KEY,
    (COMMA, _LIST_NEXT): _VALUE,
    (COLON, _COLON): _VALUE,
    (RBRACE, _DICT_NEXT): _CLOSED,
    (RBRACE, _KEY_OR_END): _CLOSED,
    (RBRACKET, _LIST_NEXT): _CLOSED,
    (RBRACKET, _VALUE_OR_END): _CLOSED,
}
_VALUE_STARTS = frozenset((LBRACE, LBRACKET, STRING, NUMBER, KEYWORD))

_EXPECTING_VALUE = b"expecting value"
_DUPLICATE_KEY = b"duplicate key"
_TEXTS = {
    Compat.V10_0: {
        _KEY: b"key is not a string in object",
        _COLON: b"missing : in object pair",
        _LIST_NEXT: b"expected separator in list",
        _DICT_NEXT: b"expected separator in dict",
    },
    Compat.V11_1: {
        _KEY: b"expecting key",
        _COLON: b"expecting ':'",
        _LIST_NEXT: b"expected ',' or ']'",
        _DICT_NEXT: b"expected ',' or '}'",
    },
}


_Token = TypeVar("_Token", bytes, LongString)


class Parser:
    """Makes values of tokens; one per connection.

    Args:
        compat: whose texts, and whether errors are told at once (11.1).
        locate: gives the text "LINE:COLUMN: " for a token's position, empty
            where the release tells none.
        max_bytes: of all tokens in one message.
        max_tokens: in one message.
        large: bytes that a message takes, from which on it is given as a `Large`.

    Attributes:
        out: where values and errors go, in order.
        tokens: how many the message under construction has; 0 between messages.
        told: whether its error is among `out` already, and the rest of it bears on nothing.
        skipping: whether it went beyond a bound that QEMU does not have: the rest of it is
            skipped.
    """

    __slots__ = (
        "_braces",
        "_brackets",
        "_container",
        "_eager",
        "_error",
        "_expect",
        "_key",
        "_large",
        "_locate",
        "_max_bytes",
        "_max_tokens",
        "_size",
        "_stack",
        "_texts",
        "_value",
        "out",
        "skipping",
        "tokens",
        "told",
    )

    def __init__(
        self,
        compat: Compat,
        locate: Callable[[int], str],
        max_bytes: int | None = None,
        max_tokens: int | None = None,
        large: int = sys.maxsize,
    ) -> None:
        self._large = large
        self._max_bytes = limits.MAX_TOKEN_BYTES if max_bytes is None else max_bytes
        self._max_tokens = limits.MAX_TOKEN_COUNT if max_tokens is None else max_tokens
        self._eager = compat is not Compat.V10_0
        self._texts = _TEXTS[compat]
        self._locate = locate
        self.out: list[JSON | QMPError | Large] = []
        self.reset()

    def reset(self) -> None:
        """Forget the message under construction."""
        self._braces = self._brackets = self.tokens = self._size = 0
        self._stack: list[tuple[JSON, str | None]] = []
        self._container: JSON = None
        self._key: str | None = None
        self._expect = _VALUE
        self._value: JSON = None
        self._error: QMPError | None = None
        self.told = self.skipping = False

    @property
    def held(self) -> int:
        """Bytes that the message under construction takes, roughly."""
        return 0 if self._error is not None else self._size + TOKEN_COST * self.tokens

    def stray(self, token: bytes, start: int) -> None:
        """A lexical error: the message is dropped, and the next one begins.

        Args:
            token: the bytes taken so far, the offending one included.
            start: the token's position.
        """
        # An error of this message that was told already covers this one.
        told = self.told
        self.reset()
        if not told:
            most = limits.MAX_MESSAGE_TEXT if self._eager else limits.MAX_STRAY_TEXT
            text = b"stray '%s'" % token.partition(b"\0")[0]
            self.out.append(self._parse_error(text[:most], start))

    def drop_open_token(self) -> None:
        """The lexer gave up on a token that is too long without having an end."""
        self._exceeded(limits.TOKEN_SIZE_EXCEEDED, self._max_bytes < limits.MAX_TOKEN_BYTES)
        if not (self._braces or self._brackets or self.skipping):
            self.reset()

    def push(self, kind: int, token: bytes | LongString, start: int) -> None:
        """Take a token.

        Args:
            kind: LBRACE and so on, STRING, NUMBER or KEYWORD.
            token: its bytes.
            start: its position, for `locate`.
        """
        self.tokens += 1
        self._size += len(token)
        if kind == LBRACE:
            self._braces += 1
        elif kind == RBRACE:
            self._braces -= 1
        elif kind == LBRACKET:
            self._brackets += 1
        elif kind == RBRACKET:
            self._brackets -= 1
        braces, brackets = self._braces, self._brackets
        if (
            self._size > self._max_bytes
            or self.tokens > self._max_tokens
            or braces + brackets > limits.MAX_NESTING
        ):
            self._over_limit()
            if not self.told:
                return
        elif self._error is None:
            text = self._take(kind, token)
            if text is not None:
                self._fail(self._parse_error(text[: limits.MAX_MESSAGE_TEXT], start))
        if braces < 0 or brackets < 0 or not (braces or brackets):
            value, error, told = self._value, self._error, self.told
            size, held = self._size, self.held
            self.reset()
            if error is None:
                self.out.append(Large(value, size, held) if held > self._large else value)
            elif not told:
                self.out.append(error)

    def _over_limit(self) -> None:
        if self._size > self._max_bytes:
            own = self._max_bytes < limits.MAX_TOKEN_BYTES
            self._exceeded(limits.TOKEN_SIZE_EXCEEDED, own)
        elif self.tokens > self._max_tokens:
            own = self._max_tokens < limits.MAX_TOKEN_COUNT
            self._exceeded(limits.TOKEN_COUNT_EXCEEDED, own)
        else:
            self._exceeded(limits.NESTING_EXCEEDED, own=False)

    def _exceeded(self, text: str, own: bool) -> None:
        """Tell of a limit: 10.0 goes on as between messages, 11.1 as after any other error.

        Beyond a bound that QEMU does not have (`own`), no more is told of the message.
        """
        if own or self._eager:
            if not self.told:
                self._fail(self._error or QMPError(text), tell=True)
            self.skipping = self.skipping or own
        else:
            self.reset()
            self.out.append(QMPError(text))

    def _parse_error(self, text: bytes, start: int) -> QMPError:
        where = self._locate(start)
        return QMPError(f"{where}JSON parse error, {decode_for_display(text)}")

    def _fail(self, error: QMPError, tell: bool = False) -> None:
        self._error = error
        self._stack = []
        self._container = self._value = None
        if self._eager or tell:
            self.told = True
            self.out.append(error)

    def _take(self, kind: int, token: bytes | LongString) -> bytes | None:
        """Let the grammar have a token; gives the error's text if it is refused."""
        expect = self._expect
        if expect <= _KEY and kind in _VALUE_STARTS:
            if isinstance(token, LongString):
                return self._complete_literal(LongString.text, token)
            if kind == STRING:
                return self._complete_literal(parse_string, token)
            if self._eager and expect >= _KEY_OR_END:
                return self._texts[_KEY]
            if kind == NUMBER:
                return self._complete(parse_number(token))
            if kind == KEYWORD:
                return self._complete_literal(parse_keyword, token)
            self._stack.append((self._container, self._key))
            self._key = None
            if kind == LBRACE:
                self._container = {}
                self._expect = _KEY_OR_END
            else:
                self._container = []
                self._expect = _VALUE_OR_END
            return None
        after = _NEXT_AFTER.get((kind, expect))
        if after == _CLOSED:
            value = self._container
            self._container, self._key = self._stack.pop()
            return self._complete(value)
        if after is not None:
            self._expect = after
            return None
        if expect <= _VALUE_OR_END:
            return _EXPECTING_VALUE
        if expect <= _KEY:
            # 10.0 reads a key as any value and looks at its type later.
            return self._texts[_KEY] if self._eager else _EXPECTING_VALUE
        return self._texts[expect]

    def _complete_literal(
        self, parse: Callable[[_Token], str | bool | None], token: _Token
    ) -> bytes | None:
        try:
            value = parse(token)
        except LiteralError as exc:
            return exc.text
        return self._complete(value)

    def _complete(self, value: JSON) -> bytes | None:
        """Put a whole value where it belongs; gives an error's text if it may not go there."""
        container = self._container
        if type(container) is list:
            container.append(value)
            self._expect = _LIST_NEXT
        elif container is None:
            self._value = value
        elif self._key is None:
            if type(value) is not str:
                return self._texts[_KEY]
            self._key = value
            self._expect = _COLON
        elif self._key in container:
            return _DUPLICATE_KEY
        else:
            container[self._key] = value
            self._key = None
            self._expect = _DICT_NEXT
        return None
