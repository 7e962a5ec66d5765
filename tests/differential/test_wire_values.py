"""Random raw input to a real QEMU, its answers held against what memd's decoder makes of it.

The seed is in every failure. `MEMD_SEED` repeats a run, `MEMD_RAW_INPUTS` makes it
longer. Requests name a command that does not exist and carry an `id`, so that the
answers show the values; see tests/wire/reference.py for what is compared.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memd.wire import Decoder
from tests.differential.server import Server, qemu_argv, running
from tests.wire.inputs import GOOD, echo
from tests.wire.reference import agree, ask, compat_of, decode, negotiated

INPUTS = int(os.environ.get("MEMD_RAW_INPUTS", "1500"))

TOKENS = [
    *[b"{", b"}", b"[", b"]", b":", b",", b'"a"', b'"b"', b"'c'", b"1", b"0", b"-", b".5", b"e"],
    *[b"E+", b"12.5e3", b"00", b"nul", b"null", b"true", b" ", b"\n", b"\r\n", b"\t", b"%", b"A"],
    *[b"\x00", b"\x01", b"\x7f", b"\x80", b"\xc3\xa9", b"\xfe", b"\xff", b'"', b"'", b"\\", b"\\u"],
    *[b'"x\ty"', b'"\\ud83d\\ude00"', b'"\\ud83d', b'"execute"', b'"id"', GOOD],
]
MESSAGES = [
    GOOD,
    echo(b'{"a":[1,2,{"b":null}],"c":"d"}') + b"\n",
    b'{"a":1,"b":[true,false],"c":{"d":-1.5e3}}',
    b'{"execute":"x","id":"\\u00e9\\n"}\n{"execute":"y"}',
    b"{'execute':'z','id':[ 1 , 2 ]}\r\n",
    b'[[1,2],[3,{"a":[]}],{}]',
    '{"execute":"é€😀","id":"é"}'.encode(),
]
IN_STRINGS = [
    *[b"\\u", b"\\ud83d", b"\\ude00", b"\\udbff", b"\\udfff", b"\\uFDD0", b"\\u0000", b"\\u00"],
    *[b"12", b"g", b"\\", b"\\n", b"\\'", b'\\"', b"\\x", b"\\\xe9", b"'", b"a", b"\x7f", b"\t"],
    *[b"\xc0\x80", b"\xe2\x82", b"\xac", b"\xf0\x9f\x98\x80", b"\xef\xbf\xbe", b"\xc3", b"\xfd"],
    *[b"\xed\xa0\x80", b"\xef\xb7\x90"],
]


def soup(rng: random.Random) -> bytes:
    """Tokens and halves of tokens, in no order."""
    return b"".join(rng.choices(TOKENS, k=rng.randint(1, 12)))


def noise(rng: random.Random) -> bytes:
    """Any bytes."""
    return rng.randbytes(rng.randint(1, 24))


def mutation(rng: random.Random) -> bytes:
    """Messages of which a few places were changed."""
    data = bytearray(b"".join(rng.choices(MESSAGES, k=rng.randint(1, 2))))
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(data) + 1)
        data[place : place + rng.randint(0, 3)] = rng.choice([b"", *TOKENS])
    return bytes(data)


def string(rng: random.Random) -> bytes:
    """Strings with escapes and UTF-8, good and bad."""
    return echo(b'"' + b"".join(rng.choices(IN_STRINGS, k=rng.randint(1, 6))) + b'"') + b"\n"


def number(rng: random.Random) -> bytes:
    """Numbers, about the edges of the integer types and over the range of doubles."""
    kind = rng.randrange(4)
    if kind == 0:
        edge = rng.choice([-(2**63), 2**63, 2**64, 10**18, 10**19, 0])
        text = str(edge + rng.randint(-3, 3))
    elif kind == 1:
        text = str(rng.getrandbits(rng.randint(1, 100)) * rng.choice([1, -1]))
    elif kind == 2:
        text = repr(rng.uniform(-10, 10) * 10.0 ** rng.randint(-320, 305))
    else:
        text = "".join(rng.choices("0123456789.eE+-", k=rng.randint(1, 6)))
    return echo(b"[" + text.encode() + b",1]")


@pytest.fixture(scope="module")
def reference() -> Iterator[Server]:
    argv = qemu_argv()
    with (
        tempfile.TemporaryDirectory(prefix="memd-test-") as directory,
        running("QEMU", argv, Path(directory)) as server,
    ):
        yield server


def pieces(rng: random.Random, data: bytes) -> list[bytes]:
    """The data cut at a few places."""
    cuts = sorted(rng.choices(range(len(data) + 1), k=rng.randint(1, 4)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@pytest.mark.parametrize("make", [soup, noise, mutation, string, number])
def test_answers_are_the_same(reference: Server, make: Callable[[random.Random], bytes]) -> None:
    seed = os.environ.get("MEMD_SEED") or str(random.SystemRandom().getrandbits(32))
    rng = random.Random(f"{seed} {make.__name__}")
    compat = compat_of(reference.path)
    run = f"MEMD_SEED={seed} MEMD_RAW_INPUTS={INPUTS}, compat {compat.value}"
    print(run)
    for _ in range(INPUTS // 5):
        data = make(rng)
        answers = ask(reference.path, data)
        ways = {
            "whole": [data],
            "byte by byte": [data[i : i + 1] for i in range(len(data))],
            "in pieces": pieces(rng, data),
        }
        for way, parts in ways.items():
            items = decode(negotiated(Decoder(compat)), *parts)
            assert agree(items, answers), (
                f"{run}\n{way}: {parts!r}\nmemd: {items!r}\nQEMU: {answers!r}"
            )


@pytest.mark.parametrize("depth", [1023, 1024, 1025, 1026])
@pytest.mark.parametrize("before", [b"", b"[,"])
def test_nesting_limit(reference: Server, depth: int, before: bytes) -> None:
    """And what follows on it; the other limits take QEMU seconds to minutes to reach."""
    decoder = Decoder(compat_of(reference.path))
    for opener, closer in ((b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")):
        count, rest = divmod(depth, len(closer))
        opened = before + opener * count + b"[" * rest
        closed = b"]" * rest + closer * count + b"]" * len(before[:1])
        if depth + len(before[:1]) > 1024:
            # Each closer too many has an answer; `ask` bears only so many.
            closed = closed[:3] + b"\xff\n"
        data = opened + b"1" + closed + GOOD
        items = decode(negotiated(decoder), data)
        answers = ask(reference.path, data)
        assert agree(items, answers), f"memd: {items!r}\nQEMU: {answers!r}"
