"""The hub: who is greeted, who gets events, how it ends."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from typing import Any

from memd.compat import Compat
from memd.outcome import JSON, Blocking, Event
from memd.server.hub import Hub
from memd.session import Monitor, Session

GREETING: JSON = {"QMP": {"version": {}, "capabilities": []}}


def dispatch(session: Session, name: str, args: dict[str, Any], oob: bool) -> JSON:
    if name == "qmp_capabilities":
        session.negotiated = True
    return {}


class Client:
    """One end of a connection whose other the hub serves."""

    def __init__(self, hub: Hub, monitor: Monitor) -> None:
        self._loop = asyncio.get_running_loop()
        ours, self._socket = socket.socketpair()
        self._socket.setblocking(False)
        hub.adopt(ours, monitor)
        self._data = b""

    async def message(self) -> Any:
        while b"\n" not in self._data:
            chunk = await asyncio.wait_for(self._loop.sock_recv(self._socket, 65536), 10)
            if not chunk:
                return None
            self._data += chunk
        line, self._data = self._data.split(b"\n", 1)
        return json.loads(line)

    async def negotiate(self) -> None:
        await self._loop.sock_sendall(self._socket, b'{"execute":"qmp_capabilities"}')
        assert await self.message() == {"return": {}}

    def close(self) -> None:
        self._socket.close()


def new_hub() -> Hub:
    return Hub(asyncio.get_running_loop(), dispatch, lambda: GREETING, Compat.V10_0)


async def test_everybody_is_greeted_and_counted() -> None:
    hub, monitor = new_hub(), Monitor("m0")
    clients = [Client(hub, monitor) for _ in range(3)]
    for client in clients:
        assert await client.message() == GREETING
    assert monitor.clients == 3
    clients[0].close()
    while monitor.clients == 3:
        await asyncio.sleep(0)
    await hub.close()
    assert monitor.clients == 0
    for client in clients[1:]:
        assert await client.message() is None
        client.close()


async def test_events_go_to_whoever_has_negotiated() -> None:
    hub, monitor = new_hub(), Monitor("m0")
    listening, silent = Client(hub, monitor), Client(hub, monitor)
    for client in (listening, silent):
        await client.message()
    await listening.negotiate()
    hub.broadcast((Event("STOP"), Event("SHUTDOWN", {"guest": False})))
    stop, shutdown = await listening.message(), await listening.message()
    assert set(stop) == {"timestamp", "event"}
    assert set(stop["timestamp"]) == {"seconds", "microseconds"}
    assert stop["timestamp"]["microseconds"] < 1_000_000
    assert (stop["event"], shutdown["event"]) == ("STOP", "SHUTDOWN")
    assert shutdown["data"] == {"guest": False}
    await silent.negotiate()
    await hub.close()
    for client in (listening, silent):
        assert await client.message() is None
        client.close()


async def test_the_first_reason_to_end_counts() -> None:
    hub = new_hub()
    hub.shut_down("host-qmp-quit")
    hub.shut_down("host-signal")
    assert await hub.ended == "host-qmp-quit"


async def test_the_end_does_not_wait_for_a_client_that_reads_nothing() -> None:
    hub, monitor = new_hub(), Monitor("m0")
    client = Client(hub, monitor)
    await client.message()
    await client.negotiate()
    for _ in range(20):
        hub.broadcast((Event("X" * 65536),))
    await asyncio.wait_for(hub.close(patience=0.05), 10)
    assert monitor.clients == 0
    client.close()


async def test_who_comes_early_is_served_once_everything_is_there() -> None:
    hub, monitor = new_hub(), Monitor("m0")
    hub.hold()
    early = Client(hub, monitor)
    await asyncio.sleep(0.01)
    assert monitor.clients == 0
    hub.release()
    assert await early.message() == GREETING
    late = Client(hub, monitor)
    assert await late.message() == GREETING
    await hub.close()
    early.close()
    late.close()


async def test_who_waits_when_it_ends_is_let_go() -> None:
    hub = new_hub()
    hub.hold()
    early = Client(hub, Monitor("m0"))
    await hub.close()
    assert await early.message() is None
    early.close()


async def test_at_the_end_jobs_are_given_up_and_waited_for() -> None:
    hub = new_hub()
    told = threading.Event()
    undone: list[bool] = []
    hub.start_job(Blocking(told.wait, undone.append), lambda _value: None)
    await hub.settle(told.set)
    assert undone == [True]
    stuck = threading.Event()
    hub.start_job(Blocking(stuck.wait, undone.append), lambda _value: None)
    await hub.settle(lambda: None, patience=0.02)
    assert undone == [True]
    stuck.set()
    await hub.settle(lambda: None)
    await hub.close()
