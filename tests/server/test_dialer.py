"""Connecting again: the loop, without sockets of a peer."""

from __future__ import annotations

import asyncio
import socket

from memd.errors import QMPError
from memd.server.dialer import Dialer
from memd.work import Command
from tests.stepping import Running


class Peer:
    """Refuses as often as it is told to, then lets in."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.attempts = 0
        self.slow = False
        self.running: Running | None = None
        self.adopted: asyncio.Queue[socket.socket] = asyncio.Queue()
        self.complaints: list[str] = []
        self.dialer = Dialer(
            asyncio.get_running_loop(),
            self.connect,
            self.adopted.put_nowait,
            0.001,
            self.spawn,
            lambda error: self.complaints.append(error.desc),
        )

    def connect(self) -> socket.socket:
        self.attempts += 1
        if self.refusals:
            self.refusals -= 1
            raise QMPError("refused")
        return socket.socket(socket.AF_UNIX)

    def spawn(self, command: Command[None], _what: str) -> None:
        self.running = Running(command)
        if not self.slow:
            self.running.finish()

    async def next(self) -> None:
        (await asyncio.wait_for(self.adopted.get(), 60)).close()


async def test_it_tries_until_it_succeeds_and_complains_once() -> None:
    peer = Peer(3)
    peer.dialer.dial()
    peer.dialer.dial()
    await peer.next()
    assert (peer.attempts, peer.complaints) == (4, ["refused"])


async def test_a_connection_lost_later_is_another_complaint() -> None:
    peer = Peer(1)
    peer.dialer.refused(QMPError("at the start"))
    await peer.next()
    peer.refusals = 2
    peer.dialer.dial()
    await peer.next()
    assert peer.complaints == ["at the start", "refused"]


async def test_closed_it_tries_no_more() -> None:
    peer = Peer(0)
    peer.dialer.dial()
    peer.dialer.close()
    peer.dialer.dial()
    await asyncio.sleep(0.01)
    assert peer.attempts == 0


async def test_a_connection_that_comes_too_late_is_closed() -> None:
    peer = Peer(0)
    peer.slow = True
    peer.dialer.dial()
    while peer.running is None:
        await asyncio.sleep(0.001)
    peer.dialer.close()
    sock = peer.running.job.work()
    peer.running.resume(sock)
    assert sock.fileno() == -1
    assert peer.adopted.empty()
