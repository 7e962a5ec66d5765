from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memd.memctl.hexdump import Hexdump


def dump(*pieces: bytes, offset: int = 0) -> str:
    made = Hexdump(offset)
    lines = [line for piece in pieces for line in made.feed(piece)]
    return "\n".join([*lines, *made.finish()]) + "\n"


def test_lines() -> None:
    assert dump(b"The template\0\xff~\x7f more", offset=0x1000) == (
        "00001000  54 68 65 20 74 65 6d 70  6c 61 74 65 00 ff 7e 7f  |The template..~.|\n"
        "00001010  20 6d 6f 72 65                                    | more|\n"
        "00001015\n"
    )
    assert dump() == "00000000\n"


def test_equal_lines_are_one_star() -> None:
    assert dump(bytes(64) + b"x") == (
        "00000000  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00  |................|\n"
        "*\n"
        "00000040  78                                                |x|\n"
        "00000041\n"
    )


@given(st.lists(st.binary(max_size=40) | st.just(bytes(32)), max_size=5))
def test_pieces_make_no_difference(pieces: list[bytes]) -> None:
    assert dump(*pieces) == dump(b"".join(pieces))


def test_like_hexdump() -> None:
    if shutil.which("hexdump") is None:
        pytest.skip("needs hexdump(1): it is not on PATH")
    data = bytes(range(256)) + bytes(100) + b"end"
    done = subprocess.run(["hexdump", "-C"], input=data, capture_output=True, check=True)
    assert dump(data) == done.stdout.decode()
