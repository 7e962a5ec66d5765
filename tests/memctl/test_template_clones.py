"""What memctl tells of machines that are sent a template."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from memd.json_types import JSON
from memd.memctl.template_serve import summary
from memd.memctl.template_show import map_rows, picture
from tests.memctl.conftest import Memctl, in_terminal
from tests.memctl.fakes import Peer, Talk

PAGES = {"asked": 30, "zeroes": 10, "working-set": 40, "rest": 20}


def test_picture() -> None:
    """A fifth was asked for, two fifths are of the working set, a fifth is not there yet."""
    bar = "#" * 8 + "=" * 16 + "-" * 8 + "." * 8
    assert picture(PAGES, 100).startswith(f"[{bar}] # 20 pages asked for, = 40 of the working set")
    assert picture(dict.fromkeys(PAGES, 0), 0).startswith(f"[{'.' * 40}]")


def test_map() -> None:
    """Rows of 64 parts, and the address of the first."""
    lines = [text for _title, text in map_rows("A" * 64 + "w.", 66 << 20)]
    assert lines[:2] == [f"0000000  {'A' * 64}", "4000000  w."]
    assert map_rows("", 1 << 20) == []


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ({"outcome": "complete"}, "has all of its memory"),
        ({"outcome": "left"}, "has ended"),
        ({"outcome": "lost"}, "connection to the machine is lost"),
        ({"outcome": "failed", "error": "no room"}, "failed: no room"),
    ],
)
def test_summary(outcome: dict[str, JSON], said: str) -> None:
    text = summary({"name": "t", "pages": PAGES, "bytes": 5 << 20, **outcome})
    assert text.startswith("t: ")
    assert said in text
    assert "5 MiB sent: 30 pages that it asked for (10 of them zeroes)" in text


def test_a_progress_bar(fake: Callable[[Talk], Memctl]) -> None:
    """It is told of this machine, not of another one of the same template."""

    def talk(peer: Peer, request: dict[str, Any]) -> None:
        if request["execute"] == "x-template-query":
            other = {"uri": "unix:/other", "pages": dict.fromkeys(PAGES, 0), "bytes": 0}
            mine = {"uri": "unix:/mine", "pages": PAGES, "bytes": 0}
            peer.answer(request, {"data": 160 * 4096, "clones": [other, mine]})
            for clone in (other, mine):
                data = {**clone, "name": "t", "outcome": "complete"}
                stamp = {"seconds": 0, "microseconds": 0}
                peer.say({"event": "X_TEMPLATE_SERVED", "data": data, "timestamp": stamp})
        else:
            peer.answer(request)

    path = fake(talk).path
    for without in ("", "rich rich.console rich.progress"):
        words = ("template", "serve", "t", "unix:/mine")
        status, shown = in_terminal(path, *words, without=without)
        assert status == 0
        assert "serving t" in shown
        assert "t: the machine has all of its memory." in shown
        if without:
            assert "serving t: 50 % of 640 KiB" in shown
