"""Lines and columns, however the input is split."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from memd.wire.position import Position
from tests.wire import untimed


def place(position: Position) -> tuple[int, int]:
    return position.line, position.column


def test_begins_at_one() -> None:
    assert place(Position()) == (1, 1)


def test_only_the_part_named_counts() -> None:
    position = Position()
    position.advance(b"\n\nab\n", 2, 4)
    assert place(position) == (1, 3)


def test_a_line_feed_begins_a_line() -> None:
    position = Position()
    position.advance(b"ab\n", 0, 3)
    assert place(position) == (2, 1)
    position.advance(b"\tc\xc3\xa9", 0, 4)
    assert place(position) == (2, 5)


@untimed
@given(st.lists(st.binary() | st.sampled_from([b"\n", b"a\n", b"\nb", b"\r\n"])))
def test_splitting_changes_nothing(pieces: list[bytes]) -> None:
    split, whole = Position(), Position()
    for piece in pieces:
        split.advance(piece, 0, len(piece))
    data = b"".join(pieces)
    whole.advance(data, 0, len(data))
    assert place(split) == place(whole)
    assert place(whole) == (1 + data.count(b"\n"), len(data.rpartition(b"\n")[2]) + 1)
