"""`memctl template save` that is interrupted."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.differential.server import TREE
from tests.memctl.conftest import Memctl, argv
from tests.memctl.fakes import Fake, Peer, Talk, interrupt


@pytest.mark.parametrize("sent", [True, False, None])
def test_an_interrupt(fake: Callable[[Talk], Memctl], directory: Path, sent: bool | None) -> None:
    """The machine goes on when nothing that it changes can come into the template.

    Args:
        sent: whether its migration has ended before; None where it has not even begun.
    """
    done: list[str] = []
    migrating, copying = threading.Event(), threading.Event()
    status = "active"
    taken = sent is not None

    def machine(peer: Peer, request: dict[str, Any]) -> None:
        nonlocal status
        name = request["execute"]
        done.append(name)
        if name == "migrate_cancel":
            status = status if status == "completed" else "cancelled"
            peer.answer(request)
            if sent:
                copying.set()
        elif name == "query-memdev":
            peer.answer(request, [{"id": "ram", "share": True}])
        elif name == "qom-get":
            peer.answer(request, "/memory")
        elif name == "query-status":
            peer.answer(request, {"status": "running"})
        elif name == "query-migrate-capabilities":
            peer.answer(request, [{"capability": "x-ignore-shared", "state": False}])
        elif name == "closefd" and taken:
            peer.refuse(request, "File descriptor named 'memd-template' not found")
        elif name == "query-migrate" and not taken:
            peer.answer(request, {})
        elif name == "query-migrate":
            if sent:
                status = "completed"
            peer.answer(request, {"status": status})
            migrating.set()
        elif name == "migrate" and not taken:
            # The interrupt comes before this is read.
            migrating.set()
        else:
            peer.answer(request)

    def daemon(peer: Peer, request: dict[str, Any]) -> None:
        if request["execute"] == "query-memdev":
            peer.answer(request, [])
            return
        peer.answer(request, {"uri": f"unix:{directory}/in"})
        copying.wait(60)
        done.append("copied")
        stamp = {"seconds": 0, "microseconds": 0}
        data = {"name": "a", "shared": False}
        peer.say({"event": "X_TEMPLATE_COPIED", "data": data, "timestamp": stamp})

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{directory}/in")
        listening.listen()
        clone = Fake(directory / "machine.sock", machine)
        try:
            process = subprocess.Popen(
                argv(fake(daemon).path, "template", "save", "a", "--qmp", str(clone.path)),
                stderr=subprocess.PIPE,
                text=True,
                cwd=TREE,
            )
            assert migrating.wait(60)
            interrupt(process.pid)
            _out, err = process.communicate(timeout=60)
        finally:
            copying.set()
            clone.close()
    assert process.returncode == 130
    done = [name for name in done if not name.startswith("q")]
    begun = ["getfd", "migrate-set-capabilities", "stop", "migrate", "closefd", "migrate_cancel"]
    assert done[: len(begun)] == begun
    if sent:
        end = ["copied", "cont", "migrate-set-capabilities", "closefd"]
        assert done[len(begun) :] == end
        assert err == (
            "memctl: the machine goes on once its memory is copied, and 'a' will be there\n"
        )
    else:
        assert done[len(begun) : len(begun) + 2] == ["cont", "migrate-set-capabilities"]
        assert err == ""


def test_a_migration_that_is_refused(fake: Callable[[Talk], Memctl], directory: Path) -> None:
    """The daemon does not wait for the stream of it."""
    done: list[str] = []
    answers = {
        "query-memdev": [{"id": "ram", "share": True}],
        "qom-get": "/memory",
        "query-status": {"status": "running"},
        "query-migrate-capabilities": [],
    }

    def machine(peer: Peer, request: dict[str, Any]) -> None:
        name = request["execute"]
        done.append(name)
        if name == "migrate":
            peer.refuse(request, "There's a migration process in progress")
        else:
            peer.answer(request, answers.get(name))

    def daemon(peer: Peer, request: dict[str, Any]) -> None:
        asked = request["execute"] == "query-memdev"
        peer.answer(request, [] if asked else {"uri": f"unix:{directory}/in"})

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{directory}/in")
        listening.listen()
        clone = Fake(directory / "machine.sock", machine)
        try:
            memctl = fake(daemon)
            status, _out, err = memctl("template", "save", "a", "--qmp", str(clone.path))
        finally:
            clone.close()
    assert (status, err) == (1, "memctl: There's a migration process in progress\n")
    assert done[-4:] == ["migrate", "cont", "migrate-set-capabilities", "closefd"]
