"""The clock of the wall jumps: waits don't care, timestamps of events follow it."""

from __future__ import annotations

import ast
import asyncio
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

import memd
from memd.compat import Compat
from memd.json_types import JSON
from memd.server.hub import Hub
from memd.server.limits import Limits
from memd.session import Monitor, Session
from memd.work import Event

PACKAGE = Path(memd.__file__).parent

WALL_CLOCK = {
    "time",
    "time_ns",
    "localtime",
    "gmtime",
    "ctime",
    "strftime",
    "now",
    "today",
    "utcnow",
}
"""Names in modules `time` and `datetime` that ask what time it is."""


TOLD_IN = {
    "persist/restoring.py",
    "backends/tls_load.py",
    "cli/qemu_system.py",
    "cli/report.py",
    "config.py",
    "memctl/top.py",
    "server/audit_sinks.py",
    "server/hub.py",
    "persist/object_log.py",
    "standin/dirty_rate.py",
    "standin/block/internal_snapshots.py",
    "devices/parts.py",
}
"""Where it is asked for: timestamps of events, records, messages and snapshots, the dates
of certificates, and a machine's clock. No wait begins or ends by it."""


def test_nothing_waits_by_the_clock_of_the_wall() -> None:
    """It tells what time it is in messages, and nothing else: waits are monotonic."""
    asked = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in WALL_CLOCK:
                if isinstance(node.value, ast.Name) and node.value.id in (
                    "time",
                    "datetime",
                    "date",
                ):
                    asked.add(path.relative_to(PACKAGE).as_posix())
    assert asked <= TOLD_IN


def dispatch(session: Session, name: str, args: dict[str, Any], oob: bool) -> JSON:
    session.negotiated = session.negotiated or name == "qmp_capabilities"
    return {}


@pytest.mark.parametrize("jump", [-10 * 365 * 86400, 10 * 365 * 86400])
async def test_a_jump(monkeypatch: pytest.MonkeyPatch, jump: int) -> None:
    """Years back or on: who has not negotiated in time is disconnected in time, nobody else."""
    loop = asyncio.get_running_loop()
    hub = Hub(loop, dispatch, lambda: {"QMP": {}}, Compat.V10_0, Limits(negotiation=0.2))
    clients = []
    begun = time.monotonic()
    for _ in range(2):
        ours, client = socket.socketpair()
        client.setblocking(False)
        hub.adopt(ours, Monitor("m0"))
        clients.append(client)
    await loop.sock_sendall(clients[0], b'{"execute":"qmp_capabilities"}')
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + jump * 1_000_000_000)
    monkeypatch.setattr(time, "time", lambda: real() / 1e9 + jump)
    data = b""
    while chunk := await asyncio.wait_for(loop.sock_recv(clients[1], 65536), 60):
        data += chunk
    assert b"capabilities were not negotiated in time" in data
    assert time.monotonic() - begun >= 0.2
    hub.broadcast((Event("STOP"),))
    data = b""
    while data.count(b"\n") < 3:
        data += await asyncio.wait_for(loop.sock_recv(clients[0], 65536), 60)
    stamp = json.loads(data.splitlines()[-1])["timestamp"]
    assert abs(stamp["seconds"] - (real() // 1_000_000_000 + jump)) < 60
    await hub.close()
    for client in clients:
        client.close()
