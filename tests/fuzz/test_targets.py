"""The corpus once through each target, and a little of anything at all.

`python -m tests.fuzz` looks further, guided by what is reached; what it found
stands in the corpus and so is tried here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.errors import QMPError
from memd.qapi import parser
from memd.wire import Decoder
from tests.fuzz.targets import TARGETS, Broken, schema, wire
from tests.wire import untimed

CORPUS = Path(__file__).parent / "corpus"
KEPT = sorted((name, path) for name in TARGETS for path in (CORPUS / name).iterdir())


@pytest.mark.parametrize(("name", "path"), KEPT, ids=[f"{n}-{p.name}" for n, p in KEPT])
def test_the_corpus(name: str, path: Path) -> None:
    TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@untimed
@given(
    data=st.binary(max_size=200) | st.text("{}[]'\":,.=\\ \n#ab01-", max_size=60).map(str.encode)
)
def test_anything(name: str, data: bytes) -> None:
    TARGETS[name](data)


def test_an_answer_that_depends_on_the_pieces_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Decoder.feed

    def forgetful(self: Decoder, data: bytes) -> list[Any]:
        return real(self, data) if len(data) != 3 else []

    monkeypatch.setattr(Decoder, "feed", forgetful)
    with pytest.raises(Broken, match="3 bytes at a time"):
        wire(b'{"a": 1}')


def test_an_exception_that_is_not_promised_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(file: str) -> None:
        raise QMPError("what the wire says is not what a file is told")

    monkeypatch.setattr(parser, "_docs", broken)
    with pytest.raises(QMPError):
        schema(b"{ 'enum': 'E', 'data': [] }")
