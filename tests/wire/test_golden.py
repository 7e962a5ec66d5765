"""Raw inputs and what a real QEMU was seen to answer.

The answers stand in golden/RELEASE.json, one input a line (bytes as Latin-1). To
observe them anew, after adding to inputs.py, for the QEMU on PATH:

    python -m tests.wire.test_golden
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from memd.compat import Compat
from memd.wire import Decoder
from tests.differential.server import qemu_argv, running
from tests.wire.inputs import GOOD, INPUTS
from tests.wire.reference import agree, ask, compat_of, decode, negotiated

GOLDEN = Path(__file__).parent / "golden"
BOTH = pytest.mark.parametrize("compat", list(Compat), ids=[compat.value for compat in Compat])


@cache
def golden(compat: Compat) -> dict[bytes, list[bytes]]:
    """The observed answers to each input."""
    lines = json.loads((GOLDEN / f"{compat.value}.json").read_text(encoding="ascii"))
    return {
        data.encode("latin-1"): [answer.encode("ascii") for answer in answers]
        for data, answers in lines
    }


def renew() -> None:
    """Write the golden file of the QEMU on PATH."""
    argv = qemu_argv()
    with TemporaryDirectory() as directory, running("QEMU", argv, Path(directory)) as server:
        compat = compat_of(server.path)
        lines = [
            json.dumps([data.decode("latin-1"), [line.decode() for line in ask(server.path, data)]])
            for data in INPUTS
        ]
    text = "[\n" + ",\n".join(lines) + "\n]\n"
    (GOLDEN / f"{compat.value}.json").write_text(text, encoding="ascii")


@BOTH
def test_every_input_has_its_answers(compat: Compat) -> None:
    assert list(golden(compat)) == INPUTS


@BOTH
@pytest.mark.parametrize("way", ["whole", "byte by byte", "in pieces"])
def test_answers(compat: Compat, way: str) -> None:
    """Each input comes to what QEMU answered."""
    for data, answers in golden(compat).items():
        inner: dict[str, Sequence[int]] = {
            "whole": [],
            "byte by byte": range(1, len(data)),
            "in pieces": sorted(random.Random(len(data)).choices(range(len(data) + 1), k=3)),
        }
        pieces = [data[a:b] for a, b in pairwise([0, *inner[way], len(data)])]
        items = decode(negotiated(Decoder(compat)), *pieces)
        assert agree(items, answers), f"{data!r}: {items!r}, but QEMU: {answers!r}"


@BOTH
def test_together_with_the_negotiation(compat: Compat) -> None:
    """What was read before in the same packet changes nothing."""
    for data, answers in golden(compat).items():
        first, *items = decode(Decoder(compat), b'{"execute":"qmp_capabilities"}' + data)
        assert first == {"execute": "qmp_capabilities"}
        assert agree(items, answers), data


@BOTH
@pytest.mark.parametrize("split", [False, True])
def test_a_good_message_is_read_after_any_of_them(compat: Compat, split: bool) -> None:
    """FF ends whatever was begun, a line feed the skipping after it."""
    for data in INPUTS:
        pieces = [data, b"\xff", b"\n", GOOD] if split else [data + b"\xff\n" + GOOD]
        assert decode(Decoder(compat), *pieces)[-1] == {"execute": "x", "id": 1}, data


if __name__ == "__main__":
    renew()
