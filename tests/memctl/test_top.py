from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memd.memctl.top import View
from tests.differential.server import TREE
from tests.memctl.conftest import Memctl, argv, in_terminal
from tests.memctl.fakes import Peer, Talk, interrupt, knows_nothing
from tests.memctl.test_backends import STAT

EVENT = {"event": "X_MEMDEV_PROGRESS", "data": {"id": "m9", "done": 1 << 20, "total": 4 << 20}}


def test_the_view() -> None:
    view = View()
    small = {**STAT, "id": "a", "resident": 4096}
    view.look([small, {**STAT, "id": "b", "resident": 8192}])
    assert [row[0] for row in view.rows()] == [("b", "bold"), ("a", "bold")]
    assert [row[-1] for row in view.rows()] == ["", ""]
    view.look([{**small, "resident": 3 * 4096}, {**STAT, "id": "b", "resident": 4096}])
    assert [row[-1] for row in view.rows()] == [("+8 KiB", "green"), ("-4 KiB", "red")]
    assert view.title() == "2 backends of 16 MiB, 16 KiB resident"
    assert view.lines() == []
    view.see(EVENT)
    assert view.lines() == ["m9: 1 MiB of 4 MiB"]
    assert view.data()["progress"] == [EVENT["data"]]
    view.forget_progress()
    assert view.lines() == []


def test_a_look(memctl: Memctl) -> None:
    memctl.out("add", "memfd,id=m,size=1M,prealloc=on")
    title, titles, row = memctl.out("top", "-n", "1").splitlines()
    memctl.out("del", "m")
    assert title == "1 backend of 1 MiB, 1 MiB resident"
    assert titles.split()[-1] == "CHANGE"
    assert row.split() == ["m", "memfd", "1", "MiB", "RAM", "on", "1", "MiB", "0", "0", "0"]


def test_looks(memctl: Memctl) -> None:
    out = memctl.out("top", "-n", "3", "-d", "0.01")
    assert out.count("0 backends of 0, 0 resident\n") == 3
    looks = [json.loads(line) for line in memctl.out("--json", "top", "-n2", "-d0.01").splitlines()]
    assert [sorted(each) for each in looks] == [["backends", "progress", "time"]] * 2


def test_events_are_shown(fake: Callable[[Talk], Memctl]) -> None:
    """What is being made comes as events, between two looks."""

    def talk(peer: Peer, request: dict[str, Any]) -> None:
        peer.answer(request, [])
        peer.event(str(EVENT["event"]), **EVENT["data"])  # type: ignore[arg-type]

    out = fake(talk).out("top", "-n", "5", "-d", "0.1")
    assert "m9: 1 MiB of 4 MiB" in out.splitlines()


def test_a_daemon_that_goes_away(fake: Callable[[Talk], Memctl]) -> None:
    """It is noticed at once, and not at the next look."""

    def talk(peer: Peer, request: dict[str, Any]) -> None:
        peer.answer(request, [])
        peer.leave()

    status, _out, err = fake(talk)("top", "-d", "3600")
    assert status == 3
    assert err.startswith("memctl: the daemon is gone: ")


def test_a_daemon_that_is_none(fake: Callable[[Talk], Memctl]) -> None:
    status, _out, err = fake(knows_nothing)("top")
    assert status == 1
    assert err.startswith("memctl: The command x-memdev-stat has not been found\n")


def test_no_daemon(memctl: Memctl, directory: Path) -> None:
    memctl.path = directory / "none.sock"
    status, _out, err = memctl("top")
    assert status == 3
    assert err.startswith(f"memctl: cannot connect to {memctl.path}: No such file or directory\n")
    assert "Start a daemon there" in err


@pytest.mark.parametrize("words", [["-d", "0"], ["-n", "0"], ["-d", "nan"]])
def test_what_can_not_be(memctl: Memctl, words: list[str]) -> None:
    assert memctl("top", *words)[0] == 2


def test_an_interrupt_ends_it(memctl: Memctl) -> None:
    process = subprocess.Popen(
        argv(memctl.path, "top", "-d", "3600"), stdout=subprocess.PIPE, text=True, cwd=TREE
    )
    assert process.stdout is not None
    with process.stdout:
        assert "backends" in process.stdout.readline()
        interrupt(process.pid)
        assert process.wait(60) == 0


def test_a_reader_that_has_read_enough(memctl: Memctl) -> None:
    process = subprocess.Popen(
        argv(memctl.path, "top", "-d", "0.01"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TREE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(60) == 141


def test_in_a_terminal(memctl: Memctl) -> None:
    status, shown = in_terminal(memctl.path, "top", "-n", "1")
    assert status == 0
    # The other screen, and back.
    assert "\x1b[?1049h" in shown
    assert "\x1b[?1049l" in shown
    status, shown = in_terminal(memctl.path, "top", "-n", "1", without="rich rich.console")
    assert (status, shown.startswith("\x1b[H\x1b[J0 backends")) == (0, True)


@pytest.mark.parametrize("without", ["", "rich rich.console"])
def test_more_than_fits_on_the_terminal(fake: Callable[[Talk], Memctl], without: str) -> None:
    """The largest are shown, and the first line stays where it is."""
    stat = [{**STAT, "id": f"m{number:02}", "resident": 4096 * number} for number in range(60)]
    path = fake(lambda peer, request: peer.answer(request, stat)).path
    status, shown = in_terminal(path, "top", "-n", "1", without=without)
    assert status == 0
    assert [number for number in range(60) if f"m{number:02}" in shown] == [*range(34, 60)]
    assert "60 backends" in shown
    assert "and 34 more" in shown


@pytest.mark.parametrize("without", ["", "rich rich.console"])
def test_what_is_wider_than_the_terminal(fake: Callable[[Talk], Memctl], without: str) -> None:
    """Columns are cut off at its right, and those that are shown are whole."""
    stat = [{**STAT, "id": "an-id-of-some-length"}]
    path = fake(lambda peer, request: peer.answer(request, stat)).path
    status, shown = in_terminal(path, "top", "-n", "1", without=without, columns=40)
    assert status == 0
    assert "an-id-of-some-length" in shown
    assert "8 MiB" in shown
    assert "EXPORTS" not in shown
    assert "\u2026" not in shown
