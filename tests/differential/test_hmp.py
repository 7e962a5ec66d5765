"""Lines of the human monitor: what is a name in them, and what is said of those that are none."""

from __future__ import annotations

import pytest

from tests.differential.harness import Pair

LINES = (
    *("INFO STATUS", "info STATUS x", "Foo bar baz", "info nope", "info nope   x y", "  foo  bar "),
    *("foo\tbar", "help INFO", "help nope", "help info nope", "help info nope x", "? foo bar"),
    *("info status x", "stop x", "  stop  x", "  info   status  x", "info status/x", "stop/i"),
    *("info/x status", "#comment", "info #x", "inf", "q/", "c/x", "?x", "/", "/x", "info /"),
    *("", "\n \t", "info   nope", "info nope/x", "foo\u00a0bar", "info\u00a0name"),
)


@pytest.mark.parametrize("line", LINES)
def test_lines(pair: Pair, line: str) -> None:
    pair.ask("human-monitor-command", {"command-line": line})
