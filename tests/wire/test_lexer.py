"""The exact path: bytes to tokens, at any split, with QEMU's recovery and positions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.compat import Compat
from memd.errors import QMPError
from memd.wire import lexer as lexer_module
from memd.wire import limits
from memd.wire.lexer import Lexer
from memd.wire.position import Position
from tests.wire import untimed

BOTH = pytest.mark.parametrize("compat", list(Compat), ids=[compat.value for compat in Compat])


def lex(compat: Compat, *pieces: bytes, max_message: int | None = None) -> list[Any]:
    """What a new lexer and its parser make of the pieces; errors as their texts."""
    lexer = Lexer(compat, Position() if compat is Compat.V11_1 else None, max_message)
    out: list[Any] = []
    for piece in pieces:
        assert lexer.feed(piece, 0, out, escapes=b"\\" in piece) == len(piece)
    return [item.desc if isinstance(item, QMPError) else item for item in out]


def told(*texts: str) -> list[str]:
    return [f"JSON parse error, {text}" for text in texts]


def stray(*tokens: str) -> list[str]:
    return told(*(f"stray '{token}'" for token in tokens))


@BOTH
@pytest.mark.parametrize(
    ("data", "values"),
    [
        (b"\"a\" 'b'", ["a", "b"]),
        (b"'\"' \"'\"", ['"', "'"]),
        (b'"\\"" \'\\\'\' "\\\\"', ['"', "'", "\\"]),
        (b"null true\tfalse\r\n", [None, True, False]),
        (b"0 -0 12 -3 1.5 -2.5e3 1E+2 0.0e1 ", [0, 0, 12, -3, 1.5, -2500.0, 100.0, 0.0]),
        (b"1{}2[]3\"a\"4'b'", [1, {}, 2, [], 3, "a", 4, "b"]),
        (b"null{}true[]", [None, {}, True, []]),
        (b"0{}-1[]1.5{}1e5[]", [0, {}, -1, [], 1.5, {}, 1e5, []]),
        (b'[1,2.5,{"a":null}]', [[1, 2.5, {"a": None}]]),
        (b" \t\r\n", []),
    ],
)
def test_values_at_any_split(compat: Compat, data: bytes, values: list[Any]) -> None:
    for cut in range(len(data) + 1):
        assert lex(compat, data[:cut], data[cut:]) == values
    assert lex(compat, *(data[i : i + 1] for i in range(len(data)))) == values


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (b"%", stray("%")),
        (b"%d}", [*stray("%"), *told("expecting value")]),
        (b"%ab\tcd", stray("%")),
        (b"%\x01", stray("%", "\x01")),
        (b"\x01\x01", stray("\x01", "\x01")),
        (b"\xfe\xff", stray("\ufffd", "\ufffd")),
        (b"%\x7f\x80\xfd", stray("%")),
        (b"01 ", stray("01")),
        (b"-x", stray("-x")),
        (b"1.}", stray("1.}")),
        (b"1e+,", stray("1e+,")),
        (b'"a\nb"', stray('"a\n')),
        (b'"\\\n', stray('"\\\n')),
        (b'"a\xff', stray('"a\ufffd')),
        (b"'a\x00", stray("'a")),
        (b"aB", [*told("invalid keyword 'a'"), *stray("B")]),
    ],
)
def test_mistakes_at_any_split(data: bytes, texts: list[str]) -> None:
    for cut in range(len(data) + 1):
        assert lex(Compat.V10_0, data[:cut], data[cut:]) == texts


def where(*pieces: bytes) -> list[str]:
    """The positions that 11.1 tells."""
    texts = [item for item in lex(Compat.V11_1, *pieces) if "JSON parse error" in str(item)]
    return [text.partition(": ")[0] for text in texts]


# Observed on QEMU 11.1.3, but for the column's offset by what negotiation took.
POSITIONS = [
    (b"}", ["1:1"]),
    (b"  }\n }", ["1:3", "2:2"]),
    (b"\t}", ["1:2"]),
    (b"\r\n\n}", ["3:1"]),
    (b'"\xc3\xa9"}', ["1:5"]),
    (b"nul ", ["1:1"]),
    (b'{"a":1,\n"a":2}', ["2:5"]),
    (b'"a\n\n%', ["1:1", "3:1"]),
    # A byte that ended a number, a word or a recovery counts for one column more.
    (b"1}", ["1:3"]),
    (b"nul}", ["1:1", "1:5"]),
    (b"1 }", ["1:3"]),
    (b"%}", ["1:1", "1:3"]),
    (b'"a\n}', ["1:1", "2:2"]),
    (b"%}}", ["1:1", "1:3", "1:3"]),
    (b"%\x01\x01", ["1:1", "1:3", "1:4"]),
    (b"%\n\xfe\xff", ["1:1", "2:1", "2:3"]),
    (b"1.5.5 ", ["1:5"]),
    (b'nul"a\n', ["1:1", "1:5"]),
]


@pytest.mark.parametrize(("data", "places"), POSITIONS)
def test_positions_at_any_split(data: bytes, places: list[str]) -> None:
    for cut in range(len(data) + 1):
        assert where(data[:cut], data[cut:]) == places
    assert where(*(data[i : i + 1] for i in range(len(data)))) == places


def test_it_can_stop_between_messages() -> None:
    lexer = Lexer(Compat.V11_1, Position())
    out: list[Any] = []
    data = b'{"a":[1]} {"b":2}'
    assert lexer.feed(data[:4], 0, out, until_idle=True) == 4
    assert lexer.feed(data, 4, out, until_idle=True) == 9
    assert lexer.idle
    assert out == [{"a": [1]}]


def test_it_does_not_stop_at_a_byte_that_is_read_again() -> None:
    """Nobody else could know that this byte's column is one further."""
    lexer = Lexer(Compat.V11_1, Position())
    out: list[Any] = []
    lexer.feed(b"nu", 0, out, until_idle=True)
    assert lexer.feed(b"l} 5 6 ", 0, out, until_idle=True) == 2
    assert [item.desc.partition(": ")[0] for item in out] == ["1:1", "1:5"]


def test_each_byte_of_a_long_string_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many packets it comes in, so that the cost does not grow with their square."""
    read = 0
    real = lexer_module._end_of_body

    def counting(state: int, data: bytes, pos: int, end: int, plain: bool) -> int:
        nonlocal read
        stop = real(state, data, pos, end, plain)
        read += stop - pos
        return stop

    monkeypatch.setattr(lexer_module, "_end_of_body", counting)
    piece = b"a" * 1000
    assert lex(Compat.V10_0, b'["', *[piece] * 200, b'"]') == [["a" * 200_000]]
    assert read == 200_000


parts = st.sampled_from(
    [
        *[b"a", b"\\", b'"', b"'", b"\\n", b"\\\\", b'\\"', b"\x1f", b"\xfe", b"\xc3\xa9"],
        *[b"a" * lexer_module._SHORT, b"\\\\" * lexer_module._SHORT],
        *[b"a" * lexer_module._WINDOW, b"\\'" * (lexer_module._WINDOW // 2 - 1)],
    ]
)


@untimed
@given(st.lists(parts, max_size=40).map(b"".join), st.integers(0, 5), st.integers(0, 5))
def test_long_runs_of_a_string_end_where_short_ones_do(body: bytes, left: int, begin: int) -> None:
    """At a quote that no backslash takes with it, or a byte that may not stand there."""
    end = len(body) - left
    plain = body.isascii() and b"\\" not in body
    for state, quote in lexer_module._CLOSING.items():
        at = begin
        while (match := lexer_module._body(quote).match(body, at, end)) and match.end() > at:
            at = match.end()
        expected, at = at, begin
        while (stop := lexer_module._end_of_body(state, body, at, end, plain)) > at:
            at = stop
        assert at == expected, quote


def test_every_byte_that_may_not_stand_in_a_string_ends_a_long_one() -> None:
    for state, quote in lexer_module._CLOSING.items():
        for byte in set(range(256)) - {*quote, *b"\\"}:
            data = b"a" * 5000 + bytes([byte]) + b"a" * 100
            end = lexer_module._end_of_body(state, data, 1, len(data), data.isascii())
            allowed = byte in lexer_module._IN_STRING
            assert end == (len(data) if allowed else 5000), byte


@BOTH
def test_a_long_string_that_is_a_message_is_judged_and_not_kept(compat: Compat) -> None:
    """Nobody reads its text: a message is an object."""
    for text, found in (
        (b"a" * 100_000, ""),
        (b"\\n" * 50_000 + b"\\q", "invalid escape sequence in string"),
        (b"a" * 100_000 + b"\xc3", "invalid UTF-8 sequence in string"),
        (b"a" * 100_000 + b"\x01", "stray '\"" + "a" * (limits.MAX_MESSAGE_TEXT - 8)),
    ):
        sent = b'"' + text + b'"'
        pieces = [sent[i : i + 30_000] for i in range(0, len(sent), 30_000)]
        (item, *_more) = lex(compat, *pieces)
        assert item.partition("error, ")[2].startswith(found) if found else item == found


@BOTH
def test_a_token_without_end(compat: Compat) -> None:
    """Is refused when it is too long; the byte that made it so is gone with it."""
    for data in (
        b'"bytes-10-',
        b"'bytes-10-",
        b"bytesssten",
        b"1234567890",
        b'"byte\\"-10',
        b"1." + b"0" * 8,
    ):
        for pieces in ([data], [data[:4], data[4:]], [data[i : i + 1] for i in range(10)]):
            assert lex(compat, *pieces, max_message=9) == []
            exceeded = data[-1:] if data[:1] not in b"\"'" else b"x"
            found = lex(compat, *pieces, exceeded, max_message=9)
            assert found == [limits.TOKEN_SIZE_EXCEEDED]


@BOTH
@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        # The column is the refused token's where the next stands right behind it.
        ('"*aa true ', ["invalid keyword 'aa'", True], ["1:1: invalid keyword 'aa'", True]),
        ('\n"* % ', ["stray '%'"], [f"2:{limits.MAX_OPEN_TOKEN_BYTES + 3}: stray '%'"]),
        ("\n'*% ", ["stray '%'"], ["2:1: stray '%'"]),
        ('["*aa ] true ', ["invalid keyword 'aa'", "expecting value", True], [True]),
        ('[,"*aa ] true ', ["invalid keyword 'aa'", "expecting value", True], [True]),
    ],
)
def test_after_a_token_without_end(compat: Compat, text: str, old: list[Any], new: Any) -> None:
    """What follows is read as if the token had not been, inside a message (11.1) eaten with it."""
    begin, _star, end = text.partition("*")
    most = limits.MAX_OPEN_TOKEN_BYTES
    assert most == 67_108_864
    data = f"{begin}{'a' * most}{end}".encode()
    # Most of it in pieces, as from a socket, and the end byte by byte.
    pieces = [data[at : at + 2**20] for at in range(0, most - 2**20, 2**20)]
    pieces += [data[most - 2**20 : most - 5]]
    pieces += [data[at : at + 1] for at in range(most - 5, len(data))]
    first, *items = lex(compat, *pieces)
    assert first == limits.TOKEN_SIZE_EXCEEDED or text.startswith("[,")
    assert [
        item.replace("JSON parse error, ", "") if isinstance(item, str) else item for item in items
    ] == (old if compat is Compat.V10_0 else new)


ODD_STRINGS = (
    b"plain text ",
    b'\\n\\t\\\\\\\\\\"',
    b"\\u00e9\\u0041\\\\u0041",
    b"\\ud83d\\ude00\\uD83D\\uDE00",
    "\u00e9\u20ac\U0001f600".encode(),
    b"\xc0\x80",
)
"""Runs of a string in which it must not be cut just anywhere."""


@pytest.mark.parametrize("part", ODD_STRINGS)
@pytest.mark.parametrize("wrong", [b"", b"\\z", b"\\ud800x", b"\xed\xa0\x80", b"\x01"])
def test_a_long_string_in_parts(part: bytes, wrong: bytes) -> None:
    """Wherever it is cut, and whatever is wrong with it, it comes to the same."""
    run = part * (40_000 // len(part))
    data = b'["' + run + wrong + run + b'", 1]'
    (whole,) = lex(Compat.V10_0, data)[:1]
    for size in (997, 4093, 30_011):
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        (found,) = lex(Compat.V10_0, *pieces)[:1]
        assert str(found) == str(whole)


@pytest.mark.parametrize("compat", Compat)
@pytest.mark.parametrize(
    "data",
    [b'{"a": "' + b"x" * 300_000 + b'", "b": [1, 2]}', b"[" + b"1," * 3000 + b"{}]"],
)
def test_what_is_over_a_bound_of_ours_is_skipped(compat: Compat, data: bytes) -> None:
    """One answer, and the next message is read; held is nothing of it."""
    for size in (1000, len(data)):
        position = Position() if compat is Compat.V11_1 else None
        lexer = Lexer(compat, position, max_message=100_000, max_tokens=1000)
        out: list[Any] = []
        most = 0
        for at in range(0, len(data), size):
            lexer.feed(data[at : at + size], 0, out)
            most = max(most, lexer.held)
        assert [type(each) for each in out] == [QMPError]
        assert lexer.idle
        assert most < 300_000
        lexer.feed(b" {}", 0, out)
        assert out[1:] == [{}]
