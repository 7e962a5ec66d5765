from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import settle
from tests.differential.kernel import regions
from tests.differential.server import TREE, Server
from tests.memctl.conftest import Memctl, argv, in_terminal
from tests.memctl.fakes import Peer, Talk, interrupt


def test_backends(memctl: Memctl) -> None:
    assert memctl.out("add", "ram,id=m0,size=64k") == ""
    assert memctl.out("add", '{"qom-type": "memory-backend-memfd", "id": "m1", "size": 4096}') == ""
    found = memctl.data("add", "memory-backend-ram,id=m2,size=8k,host-nodes.0=0,policy=bind")
    assert found == {
        "qom-type": "memory-backend-ram",
        "id": "m2",
        "size": 8192,
        "host-nodes": [0],
        "policy": "bind",
    }
    assert memctl.out("ls", "-q").split() == ["m0", "m1", "m2"]
    memctl.out("del", "m0", "m1", "m2")


@pytest.mark.parametrize(
    ("object", "text"),
    [
        ("ram,size=64k", "Parameter 'id' is missing"),
        ("ram,id=m", "Parameter 'size' is missing"),
        ("ram,id=m,size=x", "Parameter 'size' expects a size value"),
        ("nothing,id=m", "Parameter 'qom-type' does not accept value 'nothing'"),
        ("ram,id=m,size=0", "property 'size' of memory-backend-ram doesn't take value '0'"),
        ("{", "JSON parse error, premature EOI"),
    ],
)
def test_what_is_refused(memctl: Memctl, object: str, text: str) -> None:
    assert memctl.error("add", object) == text
    assert memctl.out("ls", "-q") == ""


def test_an_id_that_is_taken(memctl: Memctl) -> None:
    memctl.out("add", "ram,id=m,size=64k")
    status, _out, err = memctl("add", "ram,id=m,size=64k")
    assert status == 1
    text, hint = err.splitlines()
    assert "duplicate" in text
    assert hint == "There is a 'm' already: delete it, or choose another id."
    memctl.out("del", "m")


def test_where_more_is_said(memctl: Memctl) -> None:
    object = "file,id=m,size=64k,mem-path=/nope/a b"
    status, _out, err = memctl("add", object)
    assert (status, err.splitlines()[1]) == (1, f"memctl explain '{object}' may say why.")
    # Of others there is nothing to explain.
    assert memctl("add", "secret,id=s")[2].count("\n") == 1


def test_help(memctl: Memctl) -> None:
    assert memctl.out("add", "help").startswith("List of user creatable objects:\n")
    assert memctl.out("add", "file,help").startswith("memory-backend-file options:\n")


def test_an_interrupt(start_memd: Callable[..., Server]) -> None:
    """What is being populated is given up, and nothing of it stays."""
    server = start_memd()
    before = regions(server.pid, Path("/nowhere"))
    watching = server.monitor()
    process = subprocess.Popen(
        argv(server.path, "add", "memfd,id=big,size=3G,prealloc=on"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TREE,
    )
    watching.read_event("X_MEMDEV_PROGRESS")
    interrupt(process.pid)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 130
    assert watching.execute("query-memdev") == {"return": []}
    assert (
        settle(lambda: regions(server.pid, Path("/nowhere")), lambda now: now == before) == before
    )


class Making:
    """A server that answers object-add only once another client has deleted the object."""

    def __init__(self, *, late: bool = False, there: bool = False) -> None:
        self.late = late
        self.there = there
        self.seen: list[str] = []
        self.asked = threading.Event()
        self._given_up = threading.Event()

    def __call__(self, peer: Peer, request: dict[str, Any]) -> None:
        name = request["execute"]
        self.seen.append(name)
        if name == "qom-list":
            if self.there:
                peer.answer(request, [])
            else:
                peer.refuse(request, "not found", "DeviceNotFound")
        elif name == "object-add":
            peer.event("X_MEMDEV_PROGRESS", id="m", done=1 << 20, total=4 << 20)
            self.asked.set()
            if self.there:
                return
            self._given_up.wait(60)
            if self.late:
                # It was whole before it could be given up.
                peer.answer(request)
            else:
                peer.refuse(request, "Operation canceled")
        elif name == "object-del":
            if self.late and not self._given_up.is_set():
                peer.refuse(request, "object 'm' not found")
            else:
                peer.answer(request)
            self._given_up.set()
        else:
            peer.answer(request)


def interrupted(path: Path | str, making: Making) -> int:
    process = subprocess.Popen(argv(path, "add", "ram,id=m,size=4M,prealloc=on"), cwd=TREE)
    assert making.asked.wait(60)
    interrupt(process.pid)
    return process.wait(60)


@pytest.mark.parametrize("late", [False, True])
def test_how_it_is_given_up(fake: Callable[[Talk], Memctl], late: bool) -> None:
    """Over a second connection, and once more when the first has been answered."""
    making = Making(late=late)
    assert interrupted(fake(making).path, making) == 130
    assert making.seen == ["qom-list", "object-add", "object-del", "query-status", "object-del"]


def test_what_was_there_before_is_not_deleted(fake: Callable[[Talk], Memctl]) -> None:
    making = Making(there=True)
    assert interrupted(fake(making).path, making) == 130
    assert making.seen == ["qom-list", "object-add"]


def test_a_progress_bar(fake: Callable[[Talk], Memctl]) -> None:
    def talk(peer: Peer, request: dict[str, Any]) -> None:
        if request["execute"] == "object-add":
            peer.event("X_MEMDEV_PROGRESS", id="m", done=1 << 20, total=4 << 20)
        peer.answer(request)

    path = fake(talk).path
    for without in ("", "rich rich.console rich.progress"):
        status, shown = in_terminal(path, "add", "ram,id=m,size=4M", without=without)
        assert status == 0
        assert "populating m" in shown
        # It is cleared away, whatever comes next.
        assert shown.rstrip().endswith(("\x1b[K", "\x1b[2K", "\x1b[?25h"))
    # Without a terminal there is none.
    done = subprocess.run(
        argv(path, "add", "ram,id=m,size=4M"), capture_output=True, check=True, cwd=TREE
    )
    assert (done.stdout, done.stderr) == (b"", b"")


def test_a_daemon_that_is_gone_meanwhile(fake: Callable[[Talk], Memctl]) -> None:
    def talk(peer: Peer, request: dict[str, Any]) -> None:
        if request["execute"] == "object-add":
            peer.leave()
        else:
            peer.answer(request)

    status, out, err = fake(talk)("add", "ram,id=m,size=4M")
    assert (status, out) == (3, "")
    assert err.startswith("memctl: the daemon is gone")
