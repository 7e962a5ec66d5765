"""Decoder: framing, the two paths and their agreement, limits, connections."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.compat import Compat
from memd.errors import QMPError
from memd.wire import MORE, NEED_DATA, Decoder, Large, limits
from memd.wire import decoder as decoder_module
from memd.wire.large import LARGE
from memd.wire.lexer import Lexer
from memd.wire.literals import LONG
from memd.wire.position import Position
from tests.wire import untimed
from tests.wire.inputs import GOOD

BOTH = pytest.mark.parametrize("compat", list(Compat), ids=[compat.value for compat in Compat])
compats = st.sampled_from(list(Compat))


class ExactDecoder(Decoder):
    """One without the fast path."""

    __slots__ = ()

    def _enter_text(self) -> bool:
        return False


def shown(items: list[Any]) -> list[str]:
    """The items in a form that tells 1 from 1.0 and True, and errors by what they say."""
    return [
        f"{item.error_class}: {item.desc}" if isinstance(item, QMPError) else repr(item)
        for item in items
    ]


def decoded(decoder: Decoder, pieces: list[bytes]) -> list[str]:
    return shown([item for piece in pieces for item in decoder.feed(piece)])


def error(text: str) -> str:
    return f"GenericError: JSON parse error, {text}"


# What is sent, and what 10.0 makes of it.
FRAMING = [
    (b'{"a":1}', ["{'a': 1}"]),
    (b'{"a":1}\n', ["{'a': 1}"]),
    (b'{"a":1}{"b":2}', ["{'a': 1}", "{'b': 2}"]),
    (b'{"a":1}\r\n{"b":2}\r\n', ["{'a': 1}", "{'b': 2}"]),
    (b"\n \r\n\t", []),
    (b'{"a":{"b":[{}]}} ["c"]', ["{'a': {'b': [{}]}}", "['c']"]),
    (b'{"a":"}{"}', ["{'a': '}{'}"]),
    (b"{'a':'b'}", ["{'a': 'b'}"]),
    (b'{"a":1}{"a":1,"a":2}{"b":2}', ["{'a': 1}", error("duplicate key"), "{'b': 2}"]),
    (b'{"a":1}}{"b":2}', ["{'a': 1}", error("expecting value"), "{'b': 2}"]),
    (b'{"a":1},{"b":2}', ["{'a': 1}", error("expecting value"), "{'b': 2}"]),
    (b'{]{"b":2}', [error("expecting value"), "{'b': 2}"]),
    (b'{"a":[}]{"b":2}', [error("expecting value"), "{'b': 2}"]),
    (b'{"id":%d}', [error("stray '%'"), error("expecting value")]),
    (b'"abc"', ["'abc'"]),
    (b'null{"b":2}', ["None", "{'b': 2}"]),
    (b'12{"b":2}', ["12", "{'b': 2}"]),
    (b'"\xc3\xa9"{"\xc3\xa9":2}', ["'é'", "{'é': 2}"]),
    (b'{"\\u00e9":"\\u00e9"}', ["{'é': 'é'}"]),
    (b'{"\\ud83d\\ude00":1}', ["{'😀': 1}"]),
]


@pytest.mark.parametrize(("data", "items"), FRAMING)
@pytest.mark.parametrize("decoder", [Decoder, ExactDecoder])
def test_framing(decoder: Callable[[], Decoder], data: bytes, items: list[str]) -> None:
    assert decoded(decoder(), [data]) == items
    assert decoded(decoder(), [data[i : i + 1] for i in range(len(data))]) == items
    for cut in range(len(data) + 1):
        assert decoded(decoder(), [data[:cut], data[cut:]]) == items
    assert decoded(decoder(), [data + b'{"next":[1]}']) == [*items, "{'next': [1]}"]
    assert decoded(decoder(), [data + b'{"next', b'":[1]}']) == [*items, "{'next': [1]}"]


@BOTH
@pytest.mark.parametrize(
    "data", [b"null", b"12", b'"abc', b"{", b'{"a":1', b'["a", tru', b"-", b"%"]
)
def test_the_end_of_input_brings_nothing_out(compat: Compat, data: bytes) -> None:
    decoder = Decoder(compat)
    before = decoder.feed(data)
    assert decoder.end() == []
    assert shown(before) == shown([QMPError(item.desc) for item in before])


@BOTH
@pytest.mark.parametrize("again", [Decoder.reset, Decoder.end])
def test_a_new_connection_begins_anew(compat: Compat, again: Callable[[Decoder], object]) -> None:
    decoder = Decoder(compat)
    decoder.feed(b'\n\n{"a":[1,"')
    again(decoder)
    first = "1:1: " if compat is Compat.V11_1 else ""
    assert shown(decoder.feed(b"}" + GOOD)) == [
        f"GenericError: {first}JSON parse error, expecting value",
        "{'execute': 'x', 'id': 1}",
    ]


def test_positions_count_what_the_fast_path_took() -> None:
    decoder = Decoder(Compat.V11_1)
    first = b'{"a":1}\n{"b":2}'
    assert decoder.feed(first) == [{"a": 1}, {"b": 2}]
    assert shown(decoder.feed(b"}")) == ["GenericError: 2:8: JSON parse error, expecting value"]
    text = '{"é":1}'.encode()
    assert shown(decoder.feed(text + b"}")) == [
        "{'é': 1}",
        "GenericError: 2:17: JSON parse error, expecting value",
    ]
    assert decoder.feed(b'{"c":') == []
    assert decoder.feed(b'3}\n{"d":4}') == [{"c": 3}, {"d": 4}]
    assert shown(decoder.feed(b"}")) == ["GenericError: 3:8: JSON parse error, expecting value"]


# Packets of ordinary clients.
ORDINARY = [
    b'{"execute":"qmp_capabilities"}',
    b'{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}\r\n',
    b'{"execute":"object-add","arguments":{"qom-type":"memory-backend-memfd","id":"m",'
    b'"share":true,"size":134217728,"host-nodes":[0]},"id":"libvirt-23"}\r\n',
    b'{"execute":"a"}{"execute":"b"}\n{"execute":"c","id":{"d":[1,{"e":null}]}} ',
    b'{"execute":"balloon","arguments":{"value":-1.5e3}}',
    b'{"execute": "x", "id": "\\u00e9 \xc3\xa9 /\\n\x7f"}',
    b" \n",
]


@BOTH
@pytest.mark.parametrize("data", ORDINARY)
def test_ordinary_packets_take_the_fast_path(compat: Compat, data: bytes) -> None:
    decoder = Decoder(compat)
    assert shown(decoder.feed(data)) == shown(ExactDecoder(compat).feed(data))
    assert decoder._lexer is None


class Noting(Decoder):
    """One that takes note of what the fast path is asked to take."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        super().__init__()

    def _enter_text(self) -> bool:
        self.taken.append(self._data[self._at :])
        return super()._enter_text()


def test_the_fast_path_is_taken_again_after_a_message_in_pieces() -> None:
    decoder = Noting()
    assert decoder.feed(b'{"a":') == []
    decoder.taken.clear()
    assert decoder.feed(b'1}{"b":2}') == [{"a": 1}, {"b": 2}]
    assert decoder.taken == [b'{"b":2}']


# What the C scanner takes otherwise than QEMU does, alone and inside.
DOUBTFUL = [
    *[b'{"a":1,"a":2}', b'{"b":{"a":1,"a":2}}', b'{"a":1,"\\u0061":2}', b'{"b":[{"":1,"":2}]}'],
    *[b'{"a":NaN}', b'{"a":Infinity}', b'{"a":-Infinity}', b'{"a":[NaN]}'],
    *[b'{"a":0e5}', b'{"a":-0e5}', b'{"a":0E1}', b'{"a":[0e1]}', b'{"a":0.0e1}', b'{"a":00}'],
    *[b'{"a":18446744073709551616}', b'{"a":-9223372036854775809}', b'{"a":9223372036854775808}'],
    *[b'{"a":1000000000000000000}', b'{"a":' + b"9" * 5000 + b"}", b'{"a":1e400}', b'{"a":-0}'],
    *[b'{"a":-0.0}', b'{"a":1.0}', b'{"a":1.}', b'{"a":.1}', b'{"a":+1}', b'{"a":01}', b'{"a":-}'],
    *[b'{"a":"\\ud800"}', b'{"a":"\\udc00"}', b'{"\\ud800":1}', b'{"a":"\\ud800\\udc00"}'],
    *[b'{"a":"\\uffff"}', b'{"a":"\\uFDD0"}', b'{"a":"\\ud83f\\udfff"}', b'{"a":"\\u0000"}'],
    *[b'{"a":"\xef\xbf\xbf"}', b'{"a":"\xef\xb7\x90"}', b'{"a":"\xf0\x9f\xbf\xbf"}'],
    *[b'{"a":"\xc0\x80"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xff"}', b'{"a":"\xc3"}'],
    *[
        b'{"a":"\x7f"}',
        b'{"a":"\t"}',
        b'{"a":"\x00"}',
        b'{"a":"\n"}',
        b'{"a"\x0b:1}',
        b'{"a"\xa0:1}',
    ],
    *[
        b'{"a":1}\x00',
        b'{"a":1}\x0c',
        b'{"a":1}\xc2\xa0',
        b'\xef\xbb\xbf{"a":1}',
        b'\xc2\x85{"a":1}',
    ],
    *[b"{'a':1}", b"{\"a\":'b'}", b'{"a":"\\\'"}', b'{"a":"\\x"}', b'{"a":"\\u12"}', b'{"a":tru}'],
    *[
        b'{"a":nullx}',
        b'{"a":nulltrue}',
        b'{"a":1 2}',
        b'{"a":1,}',
        b'{"a":[1,]}',
        b"{,}",
        b"{a:1}",
    ],
    *[b'{"a":1}x', b'{"a":1}1', b'{"a":1}"x"', b'{"a":1}[', b'{"a":1}{', b'{"a":1', b"{"],
]


@BOTH
@pytest.mark.parametrize("data", DOUBTFUL)
def test_both_paths_agree_on_what_is_doubtful(compat: Compat, data: bytes) -> None:
    for whole in (data, GOOD + data, GOOD + data + GOOD, b"\n" + data + b"\n" + GOOD):
        assert decoded(Decoder(compat), [whole]) == decoded(ExactDecoder(compat), [whole])


@BOTH
@pytest.mark.parametrize("depth", [500, 990, 1023, 1024, 1025, 2000, 20_000])
def test_both_paths_agree_on_deep_nesting(compat: Compat, depth: int) -> None:
    opened = b'{"a":' + b"[" * (depth - 1)
    for data in (opened + b"]" * (depth - 1) + b"}", opened.replace(b"[", b'{"a":')):
        fast, exact = Decoder(compat), ExactDecoder(compat)
        ours, theirs = fast.feed(data), exact.feed(data)
        assert len(ours) == len(theirs)
        exceeded = [item.desc for item in ours if isinstance(item, QMPError)]
        assert (limits.NESTING_EXCEEDED in exceeded) == (depth > limits.MAX_NESTING)
        assert exceeded == [item.desc for item in theirs if isinstance(item, QMPError)]


@pytest.fixture
def deep_scanner() -> Iterator[None]:
    """The scanner goes as deep as it may be asked to in any release of Python."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize("nest", [b"[ ]", b'{"": }', b'[{"": }]'])
def test_what_is_too_deep_goes_the_exact_way(nest: bytes, deep_scanner: None) -> None:
    """It is not left to the scanner, whose limit is Python's and differs between releases."""
    begin, end = nest.split()
    # Besides the outer and the innermost.
    times = (limits.MAX_NESTING - 2) // len(end)
    for depth, max_tokens, exact in (
        (times, None, False),
        (times + 1, None, True),
        # What is short is not counted.
        (times, 3000, nest == b'{"": }'),
    ):
        decoder = Decoder(max_tokens=max_tokens)
        decoder.feed(b'{"a":1}{"a":' + begin * depth + b"[]" + end * depth + b"}")
        assert (decoder._lexer is not None) == exact


def test_many_flat_messages_in_a_packet_are_not_deep() -> None:
    decoder = Decoder()
    assert decoder.feed(GOOD * 3000) == [{"execute": "x", "id": 1}] * 3000
    assert decoder._lexer is None


# Values, and ways of writing them down that clients have.
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**65)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8)
    | st.sampled_from(["\\ud800", "\ufffe", "\0", "}{", "a:b", "0e5", "'", '"', "\\"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)
messages = st.builds(
    lambda value, ascii_only, compact, end: (
        json.dumps(
            value, ensure_ascii=ascii_only, separators=(",", ":") if compact else (", ", ": ")
        )
        + end
    ).encode("utf-8"),
    st.dictionaries(st.sampled_from(["execute", "arguments", "id", "a"]), values, max_size=3),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "\n", "\r\n", " "]),
)
snippets = st.sampled_from(
    [
        *[b"{", b"}", b"[", b"]", b":", b",", b'"', b"'", b"\\", b"\\u", b"%", b"\n", b"\x00"],
        *[b"\xff", b"\xfe", b"\x7f", b"\xc3", b"\x80", b"0", b"0e1", b"-", b".", b"1e5", b"nul"],
        *[b'"a":1,', b',"a":1', b"NaN", b"\\ud800", b"\xef\xbf\xbe", b"\xc0\x80", b"\t", b"null"],
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Messages, of which a few places were changed."""
    data = bytearray(b"".join(draw(st.lists(messages, min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 3))
        data[place : place + length] = draw(snippets | st.binary(max_size=2))
    return bytes(data)


@st.composite
def split(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The data in pieces."""
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@untimed
@given(st.data(), compats, mutated() | st.binary(max_size=60))
def test_both_paths_agree_at_any_split(data: st.DataObject, compat: Compat, sent: bytes) -> None:
    expected = decoded(ExactDecoder(compat), [sent])
    assert decoded(Decoder(compat), [sent]) == expected
    assert decoded(Decoder(compat), data.draw(split(sent))) == expected


@untimed
@given(st.data(), compats, mutated() | st.binary(max_size=200))
def test_whatever_came_a_good_message_is_read_afterwards(
    data: st.DataObject, compat: Compat, garbage: bytes
) -> None:
    pieces = data.draw(split(garbage + b"\xff\n" + GOOD))
    assert decoded(Decoder(compat), pieces)[-1] == "{'execute': 'x', 'id': 1}"


@BOTH
def test_a_long_message_in_small_packets(compat: Compat) -> None:
    text = '0123456789é\\"' * 20_000
    sent = json.dumps({"execute": "x", "arguments": {"data": text}}).encode() + GOOD
    pieces = [sent[i : i + 4096] for i in range(0, len(sent), 4096)]
    decoder = Decoder(compat)
    items = [item for piece in pieces for item in decoder.feed(piece)]
    assert items == [{"execute": "x", "arguments": {"data": text}}, {"execute": "x", "id": 1}]


@BOTH
def test_a_packet_larger_than_a_slice(compat: Compat) -> None:
    """It is cut for the exact path, and nothing is lost or told of it at the cuts."""
    text = "\ufeff'" * 1_000_000
    sent = json.dumps({"a": text}, ensure_ascii=False).encode() + b"\n}" + GOOD
    value, message, stray, good = Decoder(compat).feed(b"'a'" + sent)
    assert (value, message, good) == ("a", {"a": text}, {"execute": "x", "id": 1})
    at = "2:1: " if compat is Compat.V11_1 else ""
    assert stray.desc == f"{at}JSON parse error, expecting value"


ALMOST = limits.MAX_OPEN_TOKEN_BYTES - 10
"""Bytes of an open token, which is too long with eleven more."""


def test_a_whole_token_larger_than_a_slice() -> None:
    """Is refused at the byte that is too much, as if it had come byte by byte."""
    begin, rest = b"'" + b"a" * (ALMOST - 1), b"a" * 13 + b"{'b'} "
    byte_by_byte = decoded(Decoder(), [begin, *(rest[i : i + 1] for i in range(len(rest)))])
    assert decoded(Decoder(), [begin + rest]) == byte_by_byte
    assert byte_by_byte[:2] == [
        f"GenericError: {limits.TOKEN_SIZE_EXCEEDED}",
        error("invalid keyword 'aa'"),
    ]


def test_positions_after_a_token_that_was_too_long() -> None:
    begin = b"'" + b"a" * (ALMOST - 1)
    decoder = Decoder(Compat.V11_1)
    items = [item for piece in (begin, b"a" * 11, GOOD, b"}") for item in decoder.feed(piece)]
    assert shown(items) == [
        f"GenericError: {limits.TOKEN_SIZE_EXCEEDED}",
        "{'execute': 'x', 'id': 1}",
        f"GenericError: 1:{ALMOST + 11 + len(GOOD) + 1}: JSON parse error, expecting value",
    ]
    # In one packet with it: what follows at once, and what begins within a character.
    for packet, text in (
        (b"a" * 11 + b"bb ", "invalid keyword 'bb'"),
        (b"a" * 10 + b"\xc3\xa9\n" + GOOD, "stray '\ufffd'"),
    ):
        decoder = Decoder(Compat.V11_1)
        assert decoder.feed(begin) == []
        assert shown(decoder.feed(packet)[:2]) == [
            f"GenericError: {limits.TOKEN_SIZE_EXCEEDED}",
            f"GenericError: 1:1: JSON parse error, {text}",
        ]


@BOTH
def test_a_message_without_end_is_refused_and_let_go(compat: Compat) -> None:
    decoder = Decoder(compat)
    piece = b"a" * (1 << 20)
    items = decoder.feed(b'{"a":"')
    for _ in range(64):
        items += decoder.feed(piece)
    assert [item.desc for item in items] == [limits.TOKEN_SIZE_EXCEEDED]
    assert decoder.feed(b"\xff\n" + GOOD)[-1] == {"execute": "x", "id": 1}


@BOTH
def test_too_many_tokens_are_refused(compat: Compat) -> None:
    items = ExactDecoder(compat, max_tokens=100).feed(b"[" + b"1," * 50 + b"1]" + GOOD)
    assert items[0].desc == limits.TOKEN_COUNT_EXCEEDED
    assert items[-1] == {"execute": "x", "id": 1}


def test_a_split_message_where_nothing_imported_json() -> None:
    """As in a daemon that has just started: Python 3.11's scanner has nothing to raise then."""
    code = (
        "import sys; from memd.wire import Decoder; decoder = Decoder()\n"
        "assert 'json.decoder' not in sys.modules\n"
        'assert decoder.feed(b\'{"execute": "a\') == []\n'
        "assert decoder.feed(b'b\"}') == [{'execute': 'ab'}]\n"
    )
    tree = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-S", "-c", code]
    env = dict(os.environ, PYTHONPATH=tree)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def in_one_step(compat: Compat, data: bytes) -> list[Any]:
    """What the exact path makes of input that it goes through at once."""
    items: list[Any] = []
    Lexer(compat, Position() if compat is Compat.V11_1 else None).feed(data, 0, items)
    return items


def taken(decoder: Decoder, data: bytes) -> tuple[list[Any], int]:
    """What `next` makes of input, and how often others may have their turn meanwhile."""
    decoder.put(data)
    items: list[Any] = []
    turns = 0
    while (item := decoder.next()) is not NEED_DATA:
        if item is MORE:
            turns += 1
        else:
            items.append(item.value if type(item) is Large else item)
    return items, turns


@untimed
@given(
    compats,
    st.lists(
        st.sampled_from([GOOD, b"}", b"[1,{}", b"%", b'"a', b"\xff", b"0", b"{'b':1}", b"]\n"])
    ),
    st.integers(0, 12),
)
def test_what_is_taken_in_steps_is_the_same(
    compat: Compat, pieces: list[bytes], before: int
) -> None:
    # A step is over so many tokens behind it.
    tokens = decoder_module._TOKENS - before
    pieces.insert(0, (b"0 " if tokens % 2 == 0 else b"") + b"[%s0]" % (b"0," * (tokens // 2 - 2)))
    data = b"".join(pieces)
    whole = shown(in_one_step(compat, data))
    assert shown(taken(Decoder(compat), data)[0]) == whole
    decoder = Decoder(compat)
    items: list[Any] = []
    for piece in pieces:
        # Somebody else's turn comes before all of it is gone through.
        decoder.put(piece)
        item = decoder.next()
        if item is not NEED_DATA and item is not MORE:
            items.append(item)
    assert shown(items + taken(decoder, b"")[0]) == whole


@BOTH
@pytest.mark.parametrize("data", [b"[1,", b'{"a":[', b"{'b':1,'c':[[[]],", b"[[],"])
def test_a_step_is_short(compat: Compat, data: bytes) -> None:
    """Of what never ends no more than a few hundred tokens are gone through at once."""
    data *= 65536 // len(data)
    _items, turns = taken(Decoder(compat), data)
    assert turns >= 8


@BOTH
def test_what_takes_much_is_told_apart(compat: Compat) -> None:
    for data, size in (
        (b'{"a":"' + b"x" * 300_000 + b'"}', 300_008),
        (b"[" + b"[]," * 2000 + b"{}]", 6004),
        (b'{"a":[' + b"1," * 3000 + b"1]}", 6009),
    ):
        decoder = Decoder(compat)
        decoder.put(data)
        while (item := decoder.next()) is MORE:
            pass
        assert type(item) is Large
        assert item.size == size
        assert item.held > LARGE


@pytest.mark.parametrize(
    "piece", [b"x" * 100_000, b"\xc3\xa4" * 50_000, b"1" * 10_000, b"[1]," * 500]
)
def test_no_more_is_held_than_is_counted(piece: bytes) -> None:
    """Of messages that have no end, while no more of them comes."""
    gc.collect()
    tracemalloc.start()
    try:
        decoders = [Decoder() for _ in range(10)]
        for decoder in decoders:
            decoder.feed(b"[" if piece[:1].isdigit() or piece[:1] == b"[" else b'["')
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(3):
            for decoder in decoders:
                decoder.feed(bytes(bytearray(piece)))
        more = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert more <= 1.1 * sum(decoder.held for decoder in decoders)


@BOTH
def test_what_is_held_is_counted(compat: Compat) -> None:
    decoder = Decoder(compat)
    assert decoder.held == 0
    decoder.feed(GOOD)
    assert decoder.held == 0
    for _ in range(3):
        decoder.feed(b'["' + b"x" * 100_000 if not decoder.held else b"x" * 100_000)
    assert 300_000 + LONG < decoder.held < 301_000 + LONG
    decoder.feed(b'", 1, [], {}')
    assert decoder.held > 301_000
    decoder.feed(b"]")
    assert decoder.held == 0
    decoder.feed(b"[[[")
    decoder.reset()
    assert decoder.held == 0


def test_a_string_byte_by_byte() -> None:
    decoder = Decoder()
    text = "x" * 100_000
    items = decoder.feed(b'{"a": "')
    for at in range(0, len(text), 7):
        items += decoder.feed(text[at : at + 7].encode())
    assert items + decoder.feed(b'"}') == [{"a": text}]


@BOTH
def test_a_smaller_limit_on_messages(compat: Compat) -> None:
    most = 65536
    for form, room in ((b'"%s"', 2), (b'{"a":"%s"}', 8), (b"[%s]", 2)):
        fits = form % (b"1" * (most - room))
        assert len(Decoder(compat, most).feed(fits)) == 1
        assert not isinstance(Decoder(compat, most).feed(fits)[0], QMPError)
        exceeded = form % (b"1" * (most - room + 1))
        found = ExactDecoder(compat, most).feed(exceeded)
        assert found[0].desc.endswith(limits.TOKEN_SIZE_EXCEEDED)
    decoder = Decoder(compat, most)
    items = decoder.feed(b'{"a":"')
    for _ in range(7):
        items += decoder.feed(b"a" * 10_000)
    assert [item.desc for item in items] == [limits.TOKEN_SIZE_EXCEEDED]
    assert decoder.held < most + 1000


def test_strings_in_parts_have_what_whole_ones_have() -> None:
    """However long, and wherever they are cut: bytes that may not stand there, and characters."""
    body = "aé\u4e2d\U0001f600\\n\\\\".encode() * 400
    for bad in (b"", b"\x01", b"\x1f", b"\xfe", b"\xff", "\ufdd0".encode(), "\U0002fffe".encode()):
        for at in (0, 3, len(body) // 2 + 1, len(body)):
            message = b'["' + body[:at] + bad + body[at:] + b'"]\n'
            for compat in Compat:
                whole = Decoder(compat).feed(message)
                for step in (1500, 1777, 4096):
                    decoder = Decoder(compat)
                    found = []
                    for begin in range(0, len(message), step):
                        found += decoder.feed(message[begin : begin + step])
                    assert list(map(repr, found)) == list(map(repr, whole))


@BOTH
def test_many_brackets_need_no_exact_path_and_deep_ones_do(compat: Compat) -> None:
    shallow = b'{"a": [' + b"[{}], " * 3000 + b"[]]}\n"
    decoder = Decoder(compat)
    assert decoder.feed(shallow) == [json.loads(shallow)]
    assert decoder._lexer is None
    deep = b"[" * 1025 + b"]" * 1025
    assert repr(Decoder(compat).feed(b'{"a": ' + deep + b"}\n")) == repr(
        ExactDecoder(compat).feed(b'{"a": ' + deep + b"}\n")
    )
    assert decoder_module._is_deep(json.loads(b"[" * 900 + b"]" * 900)) is False
    value: Any = []
    for _ in range(1023):
        value = [value]
    assert decoder_module._is_deep([1, value[0]]) is False
    assert decoder_module._is_deep([value]) is True


@BOTH
@pytest.mark.parametrize("unit", [b"0e", b"abc ", b"0x", b"1a1", b"a1", b"[0e]", b"5{}"])
def test_tokens_that_end_where_the_next_begins_are_gone_through_in_steps(
    compat: Compat, unit: bytes
) -> None:
    """Wherever a step is over, what is told is the same, and so are columns."""
    for before in range(4):
        data = b"0 " * before + unit * 600 + b"\n" + unit * 3 + b"%"
        decoder = ExactDecoder(compat)
        decoder.put(data)
        found = []
        while (item := decoder.next()) is not NEED_DATA:
            assert len(decoder._ready) <= decoder_module._TOKENS + 1
            if item is not MORE:
                found.append(item)
        assert shown(found) == shown(in_one_step(compat, data))
    assert decoded(Decoder(compat), [data]) == decoded(ExactDecoder(compat), [data])
