"""What is typed to the human monitor: lines, their editing, history and completion."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from memd.wire.decoder import MORE, NEED_DATA
from memd.wire.readline import LineReader

NAMES = {"": ("info", "help", "object_add", "object_del"), "info": ("status", "stats")}


def names(line: str) -> Iterable[str]:
    return NAMES.get(" ".join(line.split(" ")[:-1]), ())


def lines(typed: str) -> list[str]:
    """The lines that come of keys."""
    reader = LineReader(lambda _echo: None, names)
    reader.put(typed.encode("latin-1"))
    found = []
    while (line := reader.next()) is not NEED_DATA:
        if line is not MORE:
            assert isinstance(line, dict)
            found.append(line["arguments"]["command-line"])
    return found


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("abc", "abc"),
        ("ab\x7fc", "ac"),
        ("ac\x1b[Db", "abc"),
        ("ac\x1b[D\x1b[D\x1b[D\x1b[Cb", "abc"),
        ("bc\x01a\x05d", "abcd"),
        ("bc\x1b[1~a\x1b[4~d", "abcd"),
        ("bc\x1bOHa\x1bOFd", "abcd"),
        ("axb\x1b[D\x1b[D\x1b[3~", "ab"),
        ("axb\x1b[D\x1b[D\x04", "ab"),
        ("one two  \x17x", "one x"),
        (" one\x17x", "x"),
        ("  one\x17x", "  x"),
        ("one two\x1b[D\x1b[D\x15", "wo"),
        ("\x0b\x02\x06\x00a", "a"),
        ("a\x1b\x1bb", "ab"),
        ("a\x1b[1;5Db", "a5Db"),
        ("a\x9bDb", "ba"),
        ("x" * 5000, "x" * 4095),
        ("he\t", "help "),
        ("obj\tx", "object_x"),
        ("info st\ts", "info stats"),
        ("info statu\t", "info status "),
        ("zz\tz", "zzz"),
        ("he status\x01\x1b[C\x1b[C\t", "help  status"),
    ],
)
def test_editing(typed: str, line: str) -> None:
    assert lines(f"{typed}\n") == [line]


@pytest.mark.parametrize(
    ("typed", "recalled"),
    [
        ("\x1b[A", "two"),
        ("\x1b[A\x1b[A", "one"),
        ("\x1b[A\x1b[A\x1b[A", "one"),
        ("\x10\x10\x0e", "two"),
        ("\x1b[A\x1b[B", ""),
        ("\x1b[B", ""),
        ("zzz\x1b[Ax", "twox"),
        ("one\n\x1b[A\x1b[A", "two"),
        ("\n\x1b[A", "two"),
        ("\x1b[A\x15\n\x1b[A", "one"),
    ],
)
def test_history(typed: str, recalled: str) -> None:
    assert lines(f"one\ntwo\n{typed}\n")[-1] == recalled


def test_the_history_is_bounded_and_counted() -> None:
    reader = LineReader(lambda _echo: None, names)
    for _ in range(2):
        reader.put(b"".join(b"%03d\n" % each for each in range(100)))
        while reader.next() is not NEED_DATA:
            pass
        assert reader.held == 64 * 3
    reader.reset()
    assert not reader.held


def test_the_echo_shows_what_has_changed() -> None:
    shown: list[bytes] = []
    reader = LineReader(shown.append, names)
    for key in ("a", "b", "\x1b[D", "x", "\x0c"):
        reader.put(key.encode())
        reader.next()
    assert shown == [
        b"a\x1b[K",
        b"\x1b[Dab\x1b[K",
        b"\x1b[D",
        b"\x1b[Daxb\x1b[K\x1b[D",
        b"\x1b[2J\x1b[1;1H(qemu) axb\x1b[K\x1b[D",
    ]
