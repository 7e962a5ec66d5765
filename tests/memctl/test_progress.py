from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from memd.memctl.progress import Bar


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


both = pytest.mark.parametrize("rich", [True, False], ids=["rich", "plain"])


def terminal_for(monkeypatch: pytest.MonkeyPatch, rich: bool) -> Terminal:
    """A terminal as standard error, with rich or without."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "90")
    if not rich:
        monkeypatch.setitem(sys.modules, "rich.console", None)
    return terminal


def event(id: str, done: int, total: int = 64 << 20) -> dict[str, Any]:
    data = {"id": id, "qom-path": f"/objects/{id}", "done": done, "total": total}
    return {"event": "X_MEMDEV_PROGRESS", "data": data}


@both
def test_a_bar(monkeypatch: pytest.MonkeyPatch, rich: bool) -> None:
    terminal = terminal_for(monkeypatch, rich)
    with Bar("m0", "populating") as bar:
        bar.see(event("m0", 16 << 20))
        bar.see(event("m0", 32 << 20))
    shown = terminal.getvalue()
    assert "populating m0" in shown
    # It is cleared away, whatever comes next.
    assert shown.rstrip().endswith(("\x1b[K", "\x1b[2K", "\x1b[?25h"))


@both
def test_what_it_does_not_show(monkeypatch: pytest.MonkeyPatch, rich: bool) -> None:
    terminal = terminal_for(monkeypatch, rich)
    with Bar("m0", "populating") as bar:
        bar.see(event("m1", 1))
        bar.see({"event": "SHUTDOWN", "data": {"guest": False}})
        bar.see({"event": "RESUME"})
        bar.see(event("m0", 0, 0))
    assert terminal.getvalue() == ""


def test_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_for(monkeypatch, False)
    with Bar("m0", "saving") as bar:
        bar.at(16 << 20, 64 << 20)
    assert "saving m0: 25 % of 64 MiB" in terminal.getvalue()


def test_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("m0", "populating") as bar:
        bar.see(event("m0", 1))
    assert capsys.readouterr() == ("", "")
