from __future__ import annotations

import io
from contextlib import redirect_stdout

import pytest

from memd.json_types import JSON
from memd.memctl.context import Context
from memd.memctl.tables import Column, console, on_terminal, plain, rich_table, tell_table

COLUMNS: list[Column] = [("ID", False), ("SIZE", True)]


def print_rows(rows: list[JSON]) -> None:
    tell_table(Context(None, as_json=False), rows, COLUMNS, lambda row: row, "")


def test_plain() -> None:
    assert plain(COLUMNS, [["m0", "8 MiB"], [("long-id", "bold"), "0"]]) == [
        "ID        SIZE",
        "m0       8 MiB",
        "long-id      0",
    ]
    assert plain(COLUMNS, []) == ["ID  SIZE"]


def test_no_blanks_at_the_end() -> None:
    assert plain([("A", False), ("B", False)], [["x", ""]]) == ["A  B", "x"]


def test_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert not on_terminal()
    assert console() is None
    print_rows([["m0", "1"]])
    assert capsys.readouterr().out == "ID  SIZE\nm0     1\n"


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with redirect_stdout(Terminal()) as terminal:
        assert on_terminal()
        print_rows([[("m0[b]", "red"), "1"]])
    shown = terminal.getvalue()
    assert "\x1b[31mm0[b]" in shown
    assert shown.count("\n") == 2


def test_a_long_one_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colour takes seconds there."""
    monkeypatch.setenv("TERM", "xterm")
    with redirect_stdout(Terminal()) as terminal:
        print_rows([[("m0", "red"), "1"]] * 1001)
    assert terminal.getvalue() == "ID  SIZE\n" + "m0     1\n" * 1001


def test_a_table_of_rich() -> None:
    table = rich_table(COLUMNS, [["m0", "1"], [("m1", "red"), "2"]])
    assert [column.justify for column in table.columns] == ["left", "right"]
    assert table.row_count == 2
