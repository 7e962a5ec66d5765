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
from memd.wire import NEED_DATA, Decoder
from tests.fuzz.targets import TARGETS, Broken, schema, wire
from tests.wire import untimed

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(name: str) -> None:
    kept = sorted((CORPUS / name).iterdir())
    assert kept
    for path in kept:
        print(path)
        TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@untimed
@given(
    data=st.binary(max_size=200) | st.text("{}[]'\":,.=\\ \n#ab01-", max_size=60).map(str.encode)
)
def test_anything(name: str, data: bytes) -> None:
    TARGETS[name](data)


class Forgetful(Decoder):
    """One that loses what comes three bytes at a time."""

    def feed(self, data: bytes) -> list[Any]:
        return super().feed(data) if len(data) != 3 else []


class Hasty(Decoder):
    """One that takes any text for ordinary."""

    def next(self) -> Any:
        return NEED_DATA if b"'" in self._data else super().next()


@pytest.mark.parametrize(
    ("made", "data", "text"),
    [
        (Forgetful, b'{"a": 1}', "3 bytes at a time"),
        (Hasty, b"{'a': 1}", "the exact path"),
    ],
)
def test_an_answer_that_depends_on_the_way_is_seen(
    made: type[Decoder], data: bytes, text: str
) -> None:
    with pytest.raises(Broken, match=text):
        wire(data, made)


def test_an_exception_that_is_not_promised_is_seen() -> None:
    def broken(file: str) -> Any:
        raise QMPError("what the wire says is not what a file is told")

    with pytest.raises(QMPError):
        schema(b"{ 'enum': 'E', 'data': [] }", broken)
