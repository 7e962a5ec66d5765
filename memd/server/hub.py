"""The daemon around its clients: who is connected, events, jobs, the end."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable

from memd.compat import Compat
from memd.outcome import JSON, Blocking, Event
from memd.server.connection import Connection
from memd.server.jobs import Jobs
from memd.server.progress import watched
from memd.server.stream import SocketStream, Stream
from memd.session import Dispatch, Monitor, Session
from memd.wire import encode

log = logging.getLogger("memd")


class Hub:
    """Every client's connection, and what they share.

    Attributes:
        dispatch: runs a command; see `memd.session.Dispatch`.
        ended: set to the reason (QAPI `ShutdownCause`) once the daemon is to end.
    """

    __slots__ = (
        "_compat",
        "_connections",
        "_early",
        "_greeting",
        "_jobs",
        "_loop",
        "dispatch",
        "ended",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        dispatch: Dispatch,
        greeting: Callable[[], JSON],
        compat: Compat,
    ) -> None:
        self._loop = loop
        self._jobs = Jobs(loop)
        self._greeting = greeting
        self._compat = compat
        self._connections: set[Connection] = set()
        self._early: list[tuple[Stream, Monitor]] | None = None
        self.dispatch = dispatch
        self.ended: asyncio.Future[str] = loop.create_future()

    def hold(self) -> None:
        """Let clients connect, but wait: not everything is there yet."""
        self._early = []

    def release(self) -> None:
        """Serve those who waited, and from now on everybody at once."""
        early, self._early = self._early or [], None
        for stream, monitor in early:
            self.serve(stream, monitor)

    def adopt(self, sock: socket.socket, monitor: Monitor) -> None:
        """Serve a client that has connected."""
        try:
            stream = SocketStream(sock)
        except OSError as error:
            log.warning("cannot serve a client: %s", error.strerror)
            sock.close()
            return
        self.serve(stream, monitor)

    def serve(self, stream: Stream, monitor: Monitor) -> None:
        """Greet whoever is at the other end of `stream`, and go on from there."""
        if self._early is not None:
            self._early.append((stream, monitor))
            return
        connection = Connection(self._loop, stream, self._lost)
        connection.session = Session(self, connection, monitor, self._compat)
        self._connections.add(connection)
        monitor.client_came()
        connection.start()
        connection.session.greet(self._greeting())

    def _lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        connection.session.monitor.client_left()

    def disconnect(self, monitor: Monitor) -> None:
        """Cut the connections of a monitor's clients; what runs for them ends first."""
        for connection in tuple(self._connections):
            if connection.session.monitor is monitor:
                # Later, as one of them may be the one that asks for it.
                self._loop.call_soon(connection.close)

    def broadcast(self, events: tuple[Event, ...]) -> None:
        """Send events to every negotiated client (QMP specification, section 2.5)."""
        for event in events:
            now = time.time_ns()
            message: dict[str, JSON] = {
                "timestamp": {
                    "seconds": now // 1_000_000_000,
                    "microseconds": now // 1000 % 1_000_000,
                },
                "event": event.name,
            }
            if event.data is not None:
                message["data"] = event.data
            encoded: dict[bool, bytes] = {}
            for connection in tuple(self._connections):
                pretty = connection.session.monitor.pretty
                if pretty not in encoded:
                    encoded[pretty] = encode(message, pretty)
                connection.session.send_event(encoded[pretty])

    def start_job(self, job: Blocking, done: Callable[[JSON], None]) -> None:
        """Run a job beside the loop; clients are told how far it is, if it takes long."""
        self._jobs.start(job, watched(self._loop, job, done, self.broadcast))

    def shut_down(self, reason: str) -> None:
        """End the daemon; what is written by now is still sent."""
        if not self.ended.done():
            self.ended.set_result(reason)

    async def close(self, patience: float = 1.0) -> None:
        """Send what is held to clients that read, then close every connection.

        Args:
            patience: seconds given to those that have not read it yet.
        """
        for stream, _monitor in self._early or ():
            stream.close()
        for connection in tuple(self._connections):
            connection.finish()
        deadline = self._loop.time() + patience
        while self._connections and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
        for connection in tuple(self._connections):
            connection.close()
        self._jobs.close()

    async def settle(self, give_up: Callable[[], None], patience: float = 0.5) -> None:
        """Wait for the jobs that still run, so that each undoes what it began.

        Args:
            give_up: makes those end that can be ended; asked again and again, as
                one may only just begin what can.
            patience: seconds given to those that are in the kernel's hands.
        """
        deadline = self._loop.time() + patience
        while self._jobs.running and self._loop.time() < deadline:
            give_up()
            await asyncio.sleep(0.005)
