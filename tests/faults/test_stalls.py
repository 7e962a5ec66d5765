"""A file system that does not answer holds up those who use it, and nobody else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.differential.server import Monitor, Server
from tests.faults.conftest import MIB, Broken, arguments


def others_go_on(server: Server) -> None:
    """Another client is answered, whatever it asks that has nothing to do with it."""
    other = server.monitor()
    assert "return" in other.execute("query-status")
    assert other.execute("object-add", arguments(id="other")) == {"return": {}}
    assert "return" in other.execute("x-memdev-stat")
    assert other.execute("object-del", {"id": "other"}) == {"return": {}}


def send(monitor: Monitor, command: str, request: dict[str, object]) -> None:
    monitor.send(json.dumps({"execute": command, "arguments": request}).encode())


@pytest.mark.parametrize(
    ("call", "command"),
    [
        ("getattr", "object-add"),
        ("open", "object-add"),
        ("getattr", "x-memdev-export"),
        ("read", "x-memdev-read"),
        ("write", "x-memdev-write"),
        ("statfs", "x-memdev-explain"),
        ("fsync", "x-memdev-save"),
        ("unlink", "x-memdev-save"),
        ("flush", "object-del"),
        ("release", "object-del"),
    ],
)
def test_a_stalled_call(
    broken: Broken, start_memd: Callable[..., Server], directory: Path, call: str, command: str
) -> None:
    server = start_memd()
    monitor = server.monitor()
    path = broken.path / "file"
    path.write_bytes(bytes(MIB))
    add = arguments("file", mem_path=str(path), share=True)
    here = arguments("ram", id="here")
    assert monitor.execute("object-add", here) == {"return": {}}
    if command not in ("object-add", "x-memdev-explain"):
        assert monitor.execute("object-add", add) == {"return": {}}
    request: Any = {
        "x-memdev-export": {"id": "m"},
        "x-memdev-read": {"id": "m", "offset": 0, "length": 1},
        "x-memdev-write": {"id": "m", "offset": 0, "data": "eA=="},
        "x-memdev-save": {"id": "here", "filename": str(broken.path / "saved")},
        "object-del": {"id": "m"},
    }.get(command, add)
    broken.stall(call)
    try:
        send(monitor, command, request)
        others_go_on(server)
        if command == "object-del":
            # What closes its file is not waited for.
            assert monitor.read_answer() == {"return": {}}
    finally:
        broken.mend()
    if command != "object-del":
        assert "return" in monitor.read_answer()
