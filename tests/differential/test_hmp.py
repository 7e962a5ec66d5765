"""Lines of the human monitor: what is a name in them, and what is said of those that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.differential.harness import Pair
from tests.differential.standin import standin_pair, tell

LINES = (
    *("INFO STATUS", "info STATUS x", "Foo bar baz", "info nope", "info nope   x y", "  foo  bar "),
    *("foo\tbar", "help INFO", "help nope", "help info nope", "help info nope x", "? foo bar"),
    *("info status x", "stop x", "  stop  x", "  info   status  x", "info status/x", "stop/i"),
    *("info/x status", "#comment", "info #x", "inf", "q/", "c/x", "?x", "/", "/x", "info /"),
    *("", "\n \t", "info   nope", "info nope/x", "foo\u00a0bar", "info\u00a0name"),
    *("\u00a0", "\x1c", "\u2003 x", "\u00a0info version", "info \u00a0", "help \u00a0"),
)


@pytest.mark.parametrize("line", LINES)
def test_lines(pair: Pair, line: str) -> None:
    pair.ask("human-monitor-command", {"command-line": line})


def test_blanks_of_a_stand_in(directory: Path) -> None:
    lines = [*LINES, "info\u00a0version", "sendkey \u00a0", "sendkey a\u2003b", "set_link a"]
    lines += [f"set_link a {value}" for value in ("on\x1c", "off\u2003", "onx", "on x")]
    with standin_pair(directory, "-machine", "none") as pair:
        tell(pair, [("human-monitor-command", {"command-line": line}) for line in lines])
