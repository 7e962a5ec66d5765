from __future__ import annotations

import io
from contextlib import redirect_stderr
from typing import Any

import pytest

from memd.memctl.progress import Bar


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def can_move_its_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a dumb terminal there is no bar."""
    monkeypatch.setenv("TERM", "xterm")


def event(id: str, done: int, total: int = 64 << 20) -> dict[str, Any]:
    data = {"id": id, "qom-path": f"/objects/{id}", "done": done, "total": total}
    return {"event": "X_MEMDEV_PROGRESS", "data": data}


def test_what_it_does_not_show() -> None:
    with redirect_stderr(Terminal()) as terminal, Bar("m0", "populating") as bar:
        bar.see(event("m1", 1))
        bar.see({"event": "SHUTDOWN", "data": {"guest": False}})
        bar.see({"event": "RESUME"})
        bar.see(event("m0", 0, 0))
        assert terminal.getvalue() == ""
        bar.see(event("m0", 1))
        assert "populating m0" in terminal.getvalue()


def test_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("m0", "populating") as bar:
        bar.see(event("m0", 1))
    assert capsys.readouterr() == ("", "")
