"""Connections on real sockets: batching, clients that do not read, descriptors, the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from math import inf

import pytest

from memd.errors import QMPError
from memd.json_types import JSON
from memd.places import ANYBODY, Places
from memd.server import connection as room
from memd.server.connection import Connection
from memd.server.limits import MOST_REFUSED, ConnectionBudget, Limits
from memd.server.scheduler import FairScheduler
from memd.server.stream import SocketStream
from memd.session import Monitor, Session
from memd.work import Event, Job, Outcome, Pieces, Resume, Wait
from tests.descriptors import open_descriptors
from tests.users import STRANGER


class Hub:
    """Commands: anything is answered by its own name, `big` by much, `give` with a descriptor.

    `pieces` is answered by so many that are made by turns at once and by a job.
    """

    def __init__(self) -> None:
        self.run = 0
        self.descriptors = self.refused = Places()
        self.made = 0
        self.ended = 0
        self.stale = False

    def _pieces(self, count: int) -> Iterator[bytes | Job[bytes]]:
        for number in range(count):
            self.made += 1
            yield PIECE if number % 2 else Job(lambda: PIECE)
        if count == 1:
            raise QMPError("no more")

    def _end(self) -> None:
        self.ended += 1

    def has_descriptor_to_spare(self, user: int) -> bool:
        return True

    def dispatch(self, session: Session, name: str, args: dict[str, JSON], oob: bool) -> JSON:
        self.run += 1
        if name == "big":
            return "x" * args["size"]
        if name == "pieces":
            made = self._pieces(args["count"])
            return Pieces("data", made, Job(self._end), lambda: self.stale)
        if name == "give":
            return Outcome({}, fds=(os.open(os.devnull, os.O_RDONLY),))
        return name

    def broadcast(self, events: tuple[Event, ...]) -> None:
        raise AssertionError("no command here has events")

    def start(self, wait: Wait, resume: Resume) -> None:
        assert isinstance(wait, Job)
        asyncio.get_running_loop().call_soon(resume, wait.work(), None)

    def shut_down(self, reason: str) -> None:
        raise AssertionError("no command here ends the daemon")


class Served:
    """A connection and the client's end of it."""

    def __init__(
        self, limits: Limits | None = None, shared: ConnectionBudget | None = None
    ) -> None:
        ours, self.client = socket.socketpair()
        self.client.setblocking(False)
        self.hub = Hub()
        self.loop = asyncio.get_running_loop()
        self.lost: list[Connection] = []
        self.shared = shared or ConnectionBudget(self.loop, limits)
        self.stream = Counted(ours)
        self.connection = Connection(self.loop, self.stream, self.lost.append, self.shared)
        self.session = Session(self.hub, self.connection, Monitor("m"))
        self.connection.session = self.session
        self.session.negotiated = True
        self.connection.start()

    async def ask(self, *names: str) -> None:
        await self.loop.sock_sendall(
            self.client, b"".join(b'{"execute":"%s"}' % name.encode() for name in names)
        )

    async def read(self, size: int) -> bytes:
        data = b""
        async with asyncio.timeout(30):
            while len(data) < size:
                chunk = await self.loop.sock_recv(self.client, size - len(data))
                if not chunk:
                    break
                data += chunk
        return data

    def close(self) -> None:
        self.connection.close()
        self.client.close()


class Counted(SocketStream):
    """Takes note of how many bytes are sent at a time."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.sends: list[int] = []

    def send(self, data: bytes | memoryview, fds: tuple[int, ...]) -> int:
        self.sends.append(len(data))
        return super().send(data, fds)


class LongTurns(FairScheduler):
    """On a busy machine a burst may take longer than a client's turn."""

    def begin(self) -> float:
        return inf


async def test_a_burst_is_answered_in_one_write() -> None:
    shared = ConnectionBudget(asyncio.get_running_loop())
    shared.turns = LongTurns(asyncio.get_running_loop())
    served = Served(shared=shared)
    await served.ask(*["a"] * 100)
    answer = b'{"return": "a"}\r\n' * 100
    assert await served.read(len(answer)) == answer
    assert served.stream.sends == [len(answer)]
    served.close()


async def test_a_client_that_does_not_read_is_bounded() -> None:
    """Half of what ends the connection is held for it, if that is less than `HIGH_WATER`."""
    served = Served(Limits(held_output=2 << 20))
    command = b'{"execute":"big","arguments":{"size":100000}}'
    await served.loop.sock_sendall(served.client, command * 200)
    for _ in range(50):
        await asyncio.sleep(0)
    assert served.hub.run < 30, "commands wait while more than the high water mark is held"
    answer = b'{"return": "' + b"x" * 100000 + b'"}\r\n'
    assert await served.read(len(answer) * 200) == answer * 200
    assert served.hub.run == 200
    served.close()


async def test_events_that_nobody_reads_end_the_connection() -> None:
    served, other = Served(Limits(held_output=1 << 20)), Served()
    event = b'{"event": "' + b"x" * 65536 + b'"}\r\n'
    for _ in range(64):
        served.session.send_event(event)
    assert served.lost == [served.connection]
    await other.ask("a")
    assert await other.read(17) == b'{"return": "a"}\r\n'
    served.close()
    other.close()


PIECE = b"x" * 100_000


async def begin_pieces(served: Served, count: int) -> None:
    """Have a client ask for an answer in pieces, and not read it."""
    command = b'{"execute":"pieces","arguments":{"count":%d}}{"execute":"a"}' % count
    await served.loop.sock_sendall(served.client, command)
    while not served.hub.made:
        await asyncio.sleep(0)


async def test_no_more_is_made_than_is_read() -> None:
    served = Served(Limits(held_output=1 << 20))
    await begin_pieces(served, 100)
    event = b'{"event": "x"}\r\n'
    served.session.send_event(event)
    for _ in range(50):
        await asyncio.sleep(0)
    assert served.hub.made < 5
    assert served.connection.held < 2 * len(PIECE)
    answer = b'{"return": {"data": "' + PIECE * 100 + b'"}}\r\n' + event + b'{"return": "a"}\r\n'
    assert await served.read(len(answer)) == answer
    await asyncio.sleep(0)
    assert served.hub.ended == 1
    assert served.shared.held == 0
    served.close()


@pytest.mark.parametrize("how", ["leaves", "is cut off", "reads what is gone", "fails"])
async def test_an_answer_that_is_not_made_to_its_end(
    how: str, jump: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    served = Served()
    await begin_pieces(served, 1 if how == "fails" else 100)
    if how == "leaves":
        served.client.close()
    elif how == "is cut off":
        served.connection.cut_off("too much")
    elif how == "reads what is gone":
        # It is looked again and again.
        for served.hub.stale in (False, True):
            assert not served.lost
            jump(room.STALE)
            await asyncio.sleep(0.001)
    while not served.lost:
        if how == "fails":
            await served.loop.sock_recv(served.client, 65536)
        await asyncio.sleep(0.001)
    await asyncio.sleep(0)
    assert served.hub.ended == 1
    assert served.shared.held == 0
    reasons = {"fails": "no more", "reads what is gone": "what it reads is deleted"}
    assert caplog.messages == [
        f"a client was disconnected in the middle of an answer: {reasons[each]}"
        for each in reasons
        if each == how
    ]
    served.client.close()


async def test_events_for_who_does_not_read_cost_no_more_each() -> None:
    """What waits is not gone through for each that is added."""
    served = Served()
    served.connection.write(b"x" * 1_000_000)
    tried = len(served.stream.sends)
    for _ in range(10):
        served.session.send_event(b'{"event": "x"}\r\n')
    assert len(served.stream.sends) == tried
    assert (await served.read(1_000_160)).count(b"event") == 10
    served.close()


async def test_descriptors_leave_with_their_answer_and_are_closed() -> None:
    before = len(open_descriptors())
    served = Served()
    await served.ask("a", "give", "b")
    data = b""
    fds: list[int] = []
    while b'"b"' not in data:
        await asyncio.sleep(0)
        with contextlib.suppress(BlockingIOError):
            more, more_fds, _flags, _address = socket.recv_fds(served.client, 65536, 10)
            data, fds = data + more, fds + more_fds
    assert data == b'{"return": "a"}\r\n{"return": {}}\r\n{"return": "b"}\r\n'
    assert len(fds) == 1
    assert os.path.samestat(os.fstat(fds[0]), os.stat(os.devnull))
    os.close(fds[0])
    served.close()
    assert len(open_descriptors()) == before


async def test_descriptors_for_a_client_that_left_are_closed() -> None:
    served = Served()
    before = len(open_descriptors())
    served.client.close()
    served.connection.write(b"x" * 10, (os.dup(0),))
    assert served.lost == [served.connection]
    served.connection.write(b"x" * 10, (os.dup(0),))
    assert len(open_descriptors()) == before - 2
    served.close()


async def test_half_close_gets_every_answer_then_the_end() -> None:
    served = Served()
    await served.ask("a", "b")
    served.client.shutdown(socket.SHUT_WR)
    assert await served.read(1000) == b'{"return": "a"}\r\n{"return": "b"}\r\n'
    assert served.lost == [served.connection]
    served.close()


async def test_leaving_in_the_middle_of_a_message_is_noticed() -> None:
    served = Served()
    await served.loop.sock_sendall(served.client, b'{"execute": "a')
    served.client.close()
    while not served.lost:
        await asyncio.sleep(0)
    assert served.hub.run == 0


async def test_much_that_is_held_for_others_lowers_the_mark() -> None:
    served = Served(Limits(held=2 << 20))
    served.shared.held += 3 << 19
    command = b'{"execute":"big","arguments":{"size":100000}}'
    await served.loop.sock_sendall(served.client, command * 50)
    for _ in range(50):
        await asyncio.sleep(0)
    assert served.hub.run < 10
    assert served.connection.held > room.PRESSED_WATER
    answer = b'{"return": "' + b"x" * 100000 + b'"}\r\n'
    assert await served.read(len(answer) * 50) == answer * 50
    assert served.shared.held == 3 << 19
    served.close()


async def test_what_is_held_is_given_back() -> None:
    told: list[int] = []
    served = Served(Limits(held=1 << 20))
    served.shared.relieve = lambda _at_once: told.append(served.shared.held)
    await served.loop.sock_sendall(served.client, b'["' + b"x" * 1_500_000)
    while not told:
        await asyncio.sleep(0)
    assert served.connection.held > 1 << 20
    served.connection.cut_off("too much")
    assert b'"too much"' in await served.loop.sock_recv(served.client, 1000)
    assert served.shared.held == 0
    assert served.lost == [served.connection]
    served.close()


async def test_a_deaf_client_is_cut_off_without_a_word() -> None:
    served = Served()
    await served.loop.sock_sendall(served.client, b'{"execute":"big","arguments":{"size":3000000}}')
    while not served.connection.held:
        await asyncio.sleep(0)
    served.connection.cut_off("too much")
    assert served.lost == [served.connection]
    assert served.shared.held == 0
    served.close()


async def test_a_large_message_comes_in_turns_and_whole() -> None:
    served = Served()
    text = b"x" * 1_500_000
    command = b'{"execute":"big","arguments":{"size":7,"a":"%s"}}' % text
    sending = asyncio.ensure_future(served.loop.sock_sendall(served.client, command))
    answer = b'{"return": "xxxxxxx"}\r\n'
    assert await served.read(len(answer)) == answer
    await sending
    await served.ask("b")
    assert await served.read(17) == b'{"return": "b"}\r\n'
    served.close()


class Claims(FairScheduler):
    """Notes who could claim a turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.seen: list[bool] = []

    def claim(self) -> bool:
        self.seen.append(super().claim())
        return self.seen[-1]


async def test_of_those_who_send_large_messages_one_goes_on_at_once() -> None:
    """The others wait for a turn, so that together they keep nobody waiting."""
    shared = ConnectionBudget(asyncio.get_running_loop())
    turns = shared.turns = Claims(asyncio.get_running_loop())
    served = [Served(shared=shared) for _ in range(3)]
    for text in (b'{"execute":"a","arguments":{"a":"' + b"x" * 70_000, b"x" * 50_000, b'"}}'):
        for each in served:
            assert each.client.send(text) == len(text)
        for _ in range(10):
            await asyncio.sleep(0)
    # The first read leaves some of the first text.
    assert turns.seen == [True, False, False] * 3
    for each in served:
        assert await each.read(17) == b'{"return": "a"}\r\n'
        each.close()


async def test_a_flood_leaves_room_for_another_client() -> None:
    """A client that keeps 10,000 commands coming is answered, and so is another one."""
    shared = ConnectionBudget(asyncio.get_running_loop())
    flood, other = Served(shared=shared), Served(shared=shared)
    command = b'{"execute":"a"}' * 2000
    answered = 0

    async def keep_on() -> None:
        nonlocal answered
        for _ in range(5):
            await flood.loop.sock_sendall(flood.client, command)

    async def read_on() -> None:
        nonlocal answered
        while answered < 10_000:
            answered += (await flood.loop.sock_recv(flood.client, 1 << 20)).count(b"\n")

    tasks = asyncio.gather(keep_on(), read_on())
    seen = []
    while not tasks.done():
        await other.ask("b")
        assert await other.read(17) == b'{"return": "b"}\r\n'
        seen.append(answered)
    assert answered == 10_000
    assert len({*seen}) > 3, "the other client was answered in between"
    flood.close()
    other.close()


def test_what_is_left_of_a_chunk_keeps_little_in_memory() -> None:
    view = memoryview(bytes(1000))
    assert room._rest(view, 400).obj is view.obj
    assert len(bytes(room._rest(view, 400))) == 600
    left = room._rest(view, 600)
    assert (len(left), left.obj is view.obj) == (400, False)


async def test_no_memory_for_what_a_client_sent(caplog: pytest.LogCaptureFixture) -> None:
    """It is told and disconnected; the loop goes on."""
    served = Served()

    def dispatch(*what: object) -> JSON:
        raise MemoryError

    served.hub.dispatch = dispatch  # type: ignore[assignment]
    await served.ask("a")
    answer = await served.read(92)
    assert b"Cannot allocate memory" in answer
    assert await served.loop.sock_recv(served.client, 100) == b""
    assert caplog.messages == ["a client was disconnected: there is no memory for what it sent"]
    served.client.close()


async def test_descriptors_are_received_where_there_is_room_for_a_messages() -> None:
    """Else who sends any is disconnected, and nothing of it is closed on the loop."""
    shared = ConnectionBudget(asyncio.get_running_loop())
    shared.refused.take(ANYBODY, MOST_REFUSED)
    before, served = len(open_descriptors()), Served(shared=shared)
    await served.ask("a")
    assert await served.read(15) == b'{"return": "a"}'
    socket.send_fds(served.client, [b"{}"], [0])
    while not served.lost:
        await asyncio.sleep(0)
    served.close()
    assert len(open_descriptors()) == before
    shared = ConnectionBudget(asyncio.get_running_loop())
    assert shared.takes_fds(STRANGER)
    shared.opened.take(STRANGER, os.sysconf("SC_OPEN_MAX"))
    assert not shared.takes_fds(STRANGER)
    # Those who are to get in always are trusted to send what is soon closed.
    assert shared.takes_fds(os.geteuid())
