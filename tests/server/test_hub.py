"""The hub: who is greeted, who gets events, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from memd.compat import Compat
from memd.json_types import JSON
from memd.places import SPARE
from memd.server.hub import Hub
from memd.server.jobs import UNKNOWN
from memd.server.limits import Limits
from memd.server.pending import GRACE
from memd.server.stream import READ_SIZE, SocketStream
from memd.session import Monitor, Session
from memd.session.peer import Peer
from memd.work import Event, Job
from tests.conftest import no_more_threads
from tests.differential.server import PATIENCE
from tests.users import STRANGER

GREETING: JSON = {"QMP": {"version": {}, "capabilities": []}}


def dispatch(session: Session, name: str, args: dict[str, Any], oob: bool) -> JSON:
    if name == "qmp_capabilities":
        session.negotiated = True
    return {}


class Client:
    """One end of a connection whose other the hub serves; of this process's user, or another."""

    def __init__(
        self,
        hub: Hub,
        monitor: Monitor,
        user: int | None = None,
        stream: type[SocketStream] = SocketStream,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        ours, self._socket = socket.socketpair()
        self._socket.setblocking(False)
        if user is None:
            hub.adopt(ours, monitor)
        else:
            hub.serve(stream(ours), monitor, Peer(os.getpid(), user, 0, frozenset()))
        self._data = b""

    async def message(self) -> Any:
        while b"\n" not in self._data:
            chunk = await asyncio.wait_for(self._loop.sock_recv(self._socket, 65536), PATIENCE)
            if not chunk:
                return None
            self._data += chunk
        line, self._data = self._data.split(b"\n", 1)
        return json.loads(line)

    async def send(self, data: bytes) -> None:
        await asyncio.wait_for(self._loop.sock_sendall(self._socket, data), PATIENCE)

    async def negotiate(self) -> None:
        await self._loop.sock_sendall(self._socket, b'{"execute":"qmp_capabilities"}')
        assert await self.message() == {"return": {}}

    def is_turned_away(self) -> bool:
        """Whether the connection was closed at once; to be asked before anything is read."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False

    def close(self) -> None:
        self._socket.close()


def new_hub(**limits: Any) -> Hub:
    loop = asyncio.get_running_loop()
    return Hub(loop, dispatch, lambda: GREETING, Compat.V10_0, Limits(**limits))


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


async def test_events_go_to_clients_that_have_negotiated() -> None:
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


async def test_what_clients_have_started_counts_for_them_and_leaves_room_for_others() -> None:
    """Also after its command has ended, as a migration does."""
    hub, user, others = new_hub(), STRANGER, STRANGER + 1
    go_on, begun, done = threading.Event(), threading.Semaphore(0), asyncio.Event()

    def stall() -> None:
        begun.release()
        go_on.wait()

    async def stalled() -> None:
        await Job(stall)

    async def quick() -> None:
        await Job(int)
        done.set()

    most = (UNKNOWN - SPARE * len({0, os.geteuid()})) * 3 // 4
    for _ in range(UNKNOWN):
        hub.spawn(stalled(), "what stalls", user)
    hub.spawn(quick(), "another user's work", others)
    await asyncio.wait_for(done.wait(), PATIENCE)
    # The daemon's own is begun as well.
    await asyncio.wait_for(hub.in_thread(int), PATIENCE)
    for _ in range(most):
        assert await asyncio.to_thread(begun.acquire, timeout=PATIENCE)
    assert not begun.acquire(blocking=False)
    go_on.set()
    await hub.end_jobs(lambda: None, PATIENCE)
    await hub.close()


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
    await asyncio.wait_for(hub.close(patience=0.05), PATIENCE)
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


async def note_the_end(event: threading.Event, ended: list[bool]) -> None:
    ended.append(await Job(event.wait))


async def test_at_the_end_jobs_are_given_up_and_waited_for() -> None:
    hub = new_hub()
    told = threading.Event()
    undone: list[bool] = []
    hub.spawn(note_the_end(told, undone), "waiting")
    await hub.end_jobs(told.set, PATIENCE)
    assert undone == [True]
    stuck = threading.Event()
    hub.spawn(note_the_end(stuck, undone), "waiting")
    await hub.end_jobs(lambda: None, patience=0.02)
    assert undone == [True]
    stuck.set()
    await hub.end_jobs(lambda: None)
    await hub.close()


async def test_one_client_too_many_is_let_go(caplog: pytest.LogCaptureFixture) -> None:
    hub, monitor = new_hub(clients=2), Monitor("m0")
    clients = [Client(hub, monitor) for _ in range(2)]
    for client in clients:
        assert await client.message() == GREETING
        await client.negotiate()
    for _ in range(3):
        late = Client(hub, monitor)
        assert await late.message() is None
        late.close()
    assert monitor.clients == 2
    told = "a client was turned away: there are 2, 2 of its user, see docs/limits.md"
    assert caplog.messages[0] == told
    # Once a second.
    assert all(each.startswith(told) for each in caplog.messages)
    clients[0].close()
    while monitor.clients == 2:
        await asyncio.sleep(0)
    clients.append(Client(hub, monitor))
    assert await clients[-1].message() == GREETING
    await hub.close()
    for client in clients:
        client.close()


@pytest.mark.parametrize("own", [0, 5])
async def test_one_user_leaves_room_for_another(own: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose clients negotiate, and where few clients may connect."""
    monkeypatch.setattr("os.geteuid", lambda: own)
    for most in (4, 8, 16, 32, 33):
        hub, monitor = new_hub(clients=most), Monitor("m0")
        clients: list[Client] = []
        while not (clients and clients[-1].is_turned_away()):
            clients.append(Client(hub, monitor, 1000))
            if not clients[-1].is_turned_away():
                await clients[-1].message()
                await clients[-1].negotiate()
        assert most // 2 <= monitor.clients < most
        clients.append(Client(hub, monitor, 1001))
        assert await clients[-1].message() == GREETING
        await hub.close()
        for client in clients:
            client.close()


async def test_one_user_whose_clients_are_silent_leaves_itself_room() -> None:
    hub, monitor = new_hub(clients=0, clients_per_user=4), Monitor("m0")
    clients = [Client(hub, monitor) for _ in range(4)]
    assert clients[-1].is_turned_away()
    assert await clients[0].message() == GREETING
    await clients[0].negotiate()
    clients.append(Client(hub, monitor))
    assert await clients[-1].message() == GREETING
    await clients[-1].negotiate()
    clients.append(Client(hub, monitor))
    assert clients[-1].is_turned_away()
    await hub.close()
    for client in clients:
        client.close()


async def test_too_many_who_come_early() -> None:
    hub, monitor = new_hub(clients=1), Monitor("m0")
    hub.hold()
    first, second = Client(hub, monitor), Client(hub, monitor)
    assert await second.message() is None
    hub.release()
    assert await first.message() == GREETING
    await hub.close()
    first.close()
    second.close()


async def test_who_has_been_silent_for_long_makes_room(jump: Callable[[float], None]) -> None:
    hub, monitor = new_hub(clients=2), Monitor("m0")
    served, silent = Client(hub, monitor), Client(hub, monitor)
    for client in (served, silent):
        assert await client.message() == GREETING
    await served.negotiate()
    early = Client(hub, monitor)
    assert await early.message() is None
    early.close()
    jump(GRACE)
    late = Client(hub, monitor)
    assert await late.message() == GREETING
    assert await silent.message() is None
    await late.negotiate()
    later = Client(hub, monitor)
    assert await later.message() is None
    await hub.close()
    for client in (served, silent, late, later):
        client.close()


async def test_who_is_kept_out_by_its_share_disconnects_nobody_else(
    jump: Callable[[float], None],
) -> None:
    hub, monitor = new_hub(clients=4, clients_per_user=2), Monitor("m0")
    silent = [Client(hub, monitor, STRANGER) for _ in range(2)]
    mine = [Client(hub, monitor, STRANGER + 1) for _ in range(2)]
    for client in mine:
        assert await client.message() == GREETING
        await client.negotiate()
    jump(GRACE)
    further = [Client(hub, monitor, STRANGER + 1) for _ in range(3)]
    for client in further:
        assert await client.message() is None
    for client in silent:
        assert await client.message() == GREETING
        await client.negotiate()
    await hub.close()
    for client in (*silent, *mine, *further):
        client.close()


async def test_who_holds_most_is_cut_off_where_it_is_too_much() -> None:
    hub, monitor = new_hub(held=1 << 20), Monitor("m0")
    clients = [Client(hub, monitor) for _ in range(3)]
    for client in clients:
        await client.message()
        await client.negotiate()
    for client, size in zip(clients, (300_000, 500_000, 300_000), strict=True):
        await client.send(b'["' + b"x" * size)
    told = await clients[1].message()
    assert told["error"]["desc"] == "too much is held for all clients together"
    assert await clients[1].message() is None
    for client in (clients[0], clients[2]):
        await client.send(b'"]')
        answer = await client.message()
        assert answer["error"]["desc"] == "QMP input must be a JSON object"
    await hub.close()
    for client in clients:
        client.close()


class Poor(SocketStream):
    """There is no memory for the first bytes that are read."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._refuses = True

    def receive(self, most: int = READ_SIZE) -> tuple[bytes, list[int]]:
        if self._refuses:
            self._refuses = False
            raise MemoryError
        return super().receive(most)


async def test_no_memory_for_what_comes_has_the_client_go_that_has_most() -> None:
    hub, monitor = new_hub(), Monitor("m0")
    clients = [Client(hub, monitor) for _ in range(2)]
    for client, size in zip(clients, (10_000, 500_000), strict=True):
        await client.message()
        await client.negotiate()
        await client.send(b'["' + b"x" * size)
    while hub.held < 500_000:
        await asyncio.sleep(0)
    poor = Client(hub, monitor, os.geteuid(), Poor)
    await poor.message()
    await poor.send(b'{"execute":"qmp_capabilities"}')
    told = await clients[1].message()
    assert told["error"]["desc"] == "Cannot allocate memory"
    assert await clients[1].message() is None
    assert await poor.message() == {"return": {}}
    await clients[0].send(b'"]')
    assert (await clients[0].message())["error"]["desc"] == "QMP input must be a JSON object"
    await hub.close()
    for client in (*clients, poor):
        client.close()


async def test_a_hub_without_a_thread_says_so() -> None:
    hub = new_hub()
    with no_more_threads(), pytest.raises(RuntimeError):
        hub.prepare()
    hub.prepare()
    await hub.close()
