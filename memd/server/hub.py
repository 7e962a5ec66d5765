"""The daemon around its clients: who is connected, events, jobs, the end."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from memd.compat import Compat
from memd.errors import QMPError, StartError
from memd.hostmem.sockets import close_socket
from memd.json_types import JSON, JSONObject
from memd.places import ANYBODY
from memd.server.connection import Connection
from memd.server.jobs import Jobs
from memd.server.limits import ConnectionBudget, Limits
from memd.server.peer import peer_of
from memd.server.pending import PendingNegotiation
from memd.server.stream import SocketStream, Stream, TelnetStream
from memd.session import Dispatch, Monitor, Session
from memd.session.peer import Peer
from memd.wire import encode
from memd.work import Command, Event, Job, Resume, Turn, Wait, begin

log = logging.getLogger("memd")


class Hub:
    """Every client's connection, and what they share.

    Attributes:
        dispatch: runs a command; see `memd.session.Dispatch`.
        opened: places for descriptors, as are the next three; see `ConnectionBudget`. Of
            connections that are no clients' those are counted here alone.
        kept, descriptors, refused: the same.
        ended: set to the reason (QAPI `ShutdownCause`) once the daemon is to end.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        dispatch: Dispatch,
        greeting: Callable[[], JSON],
        compat: Compat,
        limits: Limits | None = None,
    ) -> None:
        self._loop = loop
        self._shared = shared = ConnectionBudget(loop, limits, self._relieve)
        self.opened, self.kept = shared.opened, shared.kept
        self.descriptors, self.refused = shared.descriptors, shared.refused
        self._places = shared.clients
        self._relieving = False
        self._jobs = Jobs(loop, self.broadcast)
        self._greeting = greeting
        self._compat = compat
        self._connections: set[Connection] = set()
        self._pending = PendingNegotiation(loop, self._shared.limits.negotiation)
        self._early: list[tuple[Stream, Monitor, Peer | None]] | None = None
        self.dispatch = dispatch
        self.ended: asyncio.Future[str] = loop.create_future()

    def prepare(self) -> None:
        """Get ready to serve; raises `RuntimeError` where there is no thread for jobs."""
        self._jobs.prepare()
        self._shared.make_room()

    def has_descriptor_to_spare(self, user: int) -> bool:
        """Whether one more may be sent to a user's client; those that were read don't count."""
        places = self.descriptors
        if not places.has_free_place(user):
            for connection in self._connections:
                connection.descriptors_are_read()
            self._shared.unread.look()
        return places.has_free_place(user)

    @property
    def clients(self) -> int:
        """How many are connected and served."""
        return len(self._connections)

    @property
    def held(self) -> int:
        """Bytes that are held for all of them."""
        return self._shared.held

    def hold(self) -> None:
        """Let clients connect, but wait: not everything is there yet."""
        self._early = []

    def release(self) -> None:
        """Serve those who waited, and from now on everybody at once."""
        early, self._early = self._early or [], None
        for stream, monitor, peer in early:
            self._greet(stream, monitor, peer)

    def adopt(self, sock: socket.socket, monitor: Monitor) -> None:
        """Serve a client that has connected."""
        try:
            stream = TelnetStream(sock) if monitor.telnet else SocketStream(sock)
        except OSError as error:
            log.warning("cannot serve a client: %s", error.strerror)
            close_socket(sock)
            monitor.client_came()
            monitor.client_left()
            return
        self.serve(stream, monitor, peer_of(sock))

    def serve(self, stream: Stream, monitor: Monitor, peer: Peer | None = None) -> None:
        """Greet the client at the other end of `stream`, and serve it."""
        user = ANYBODY if peer is None else peer.uid
        if not self._has_free_place(user):
            stream.close()
            # Where memd connects by itself, it tries again.
            monitor.client_came()
            monitor.client_left()
            return
        self._places.take(user)
        if self._early is not None:
            self._early.append((stream, monitor, peer))
        else:
            self._greet(stream, monitor, peer)

    def _greet(self, stream: Stream, monitor: Monitor, peer: Peer | None) -> None:
        shared = self._shared
        make_connection, make_session = self._makers(monitor)
        connection = make_connection(self._loop, stream, self._lost, shared)
        connection.session = make_session(
            *(self, connection, monitor, self._compat, peer),
            max_message=shared.limits.message,
            max_tokens=shared.limits.tokens,
        )
        connection.session.origin = stream.origin
        self._connections.add(connection)
        self._pending.came(connection)
        monitor.client_came()
        connection.start()
        if stream.opening:
            connection.write(stream.opening)
        connection.session.greet(self._greeting())

    def _makers(self, monitor: Monitor) -> tuple[type[Connection], Callable[..., Session]]:
        """What makes the connection and the session of a monitor's new client."""
        if monitor.human:
            from memd.session.human import HumanSession

            return Connection, HumanSession
        return Connection, Session

    def _has_free_place(self, user: int) -> bool:
        """Whether one more client of a user's may be served; says so in the log if not."""
        places, pending = self._places, self._pending
        most = places.most(user)
        # Three quarters.
        if most and pending.of(user) >= most - most // 4:
            oldest = next((each for each, whose in pending.overdue() if whose == user), None)
            if oldest is None:
                self._shared.log.warn(
                    "a client was turned away: too many of its user have not negotiated"
                )
                return False
            oldest.close()
        if places.has_free_place(user):
            return True
        if (oldest := places.to_end_for(user, pending.overdue())) is not None:
            oldest.close()
            return True
        self._shared.log.warn(
            "a client was turned away: there are %d, %d of its user, see docs/limits.md",
            places.taken,
            places.of(user),
        )
        return False

    def _relieve(self, no_memory: bool) -> None:
        """Too much is held for clients: have those go for whom it is most."""
        if no_memory:
            greatest = max(self._connections, key=lambda each: each.held, default=None)
            if greatest is not None:
                self._cut_off(greatest, "Cannot allocate memory")
        elif not self._relieving:
            self._relieving = True
            # Later, as one of them may be at work right now.
            self._loop.call_soon(self._cut_off_the_greatest)

    def _cut_off_the_greatest(self) -> None:
        self._relieving = False
        shared = self._shared
        for each in sorted(self._connections, key=lambda each: each.held, reverse=True):
            if not each.held or shared.held <= shared.limits.held:
                break
            self._cut_off(each, "too much is held for all clients together")

    def _cut_off(self, connection: Connection, reason: str) -> None:
        self._shared.log.warn(
            "a client was disconnected: %d bytes were held for it, see --max-held", connection.held
        )
        connection.cut_off(reason)

    def _lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._pending.left(connection)
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
            message = event_message(event)
            encoded: dict[bool, bytes] = {}
            for connection in tuple(self._connections):
                pretty = connection.session.monitor.pretty
                if pretty not in encoded:
                    encoded[pretty] = encode(message, pretty)
                connection.session.send_event(encoded[pretty])

    def start(self, wait: Wait, resume: Resume) -> None:
        """Have what a command waits for end, and then go on; see `memd.work.Start`."""
        if isinstance(wait, Job):
            self._jobs.start(wait, resume)
        elif isinstance(wait, Turn):
            self._shared.turns.wait(partial(resume, None, None))
        else:
            # Later, when the command that it waits for has been answered.
            wait.then(partial(self._loop.call_soon, resume, None, None))

    async def in_thread(self, work: Callable[[], Any], patience: float | None = None) -> Any:
        """Run a function that may wait in a thread; None if it takes too long."""

        async def job() -> Any:
            return await Job(work, patience=patience)

        return await self.begin(job())

    def begin(self, command: Command[Any]) -> asyncio.Future[Any]:
        """Run a command; the future gets its value, or the exception that it raises."""
        done: asyncio.Future[Any] = self._loop.create_future()

        def end(value: Any, error: BaseException | None) -> None:
            if done.cancelled():
                return
            if error is None:
                done.set_result(value)
            else:
                done.set_exception(error)

        begin(command, self.start, end)
        return done

    def spawn(self, command: Command[Any], what: str, user: int | None = None) -> None:
        """Run a command that no client waits for; an error is logged.

        Args:
            what: is done, for the log.
            user: whose client has started it, and whom its jobs count for; None for the daemon.
        """

        def start(wait: Wait, resume: Resume) -> None:
            if isinstance(wait, Job):
                wait.user = user
            self.start(wait, resume)

        def done(_value: Any, error: BaseException | None) -> None:
            if isinstance(error, QMPError):
                log.warning("%s: %s", what, error.desc)
            elif error is not None:
                log.error("%s failed unexpectedly", what, exc_info=error)

        begin(command, start, done)

    def shut_down(self, reason: str) -> None:
        """End the daemon; what is written by now is still sent."""
        if not self.ended.done():
            self.ended.set_result(reason)

    def fail(self, text: str) -> None:
        """End the daemon with an error, for which its process's status is 1."""
        if not self.ended.done():
            self.ended.set_exception(StartError(text))

    async def close(self, patience: float = 1.0) -> None:
        """Send what is held to clients that read, then close every connection.

        Args:
            patience: seconds given to those that have not read it yet.
        """
        for stream, _monitor, _peer in self._early or ():
            stream.close()
        self._pending.close()
        for connection in tuple(self._connections):
            connection.finish()
        deadline = self._loop.time() + patience
        while self._connections and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
        for connection in tuple(self._connections):
            connection.close()
        self._shared.unread.close()
        self._jobs.close()

    async def end_jobs(self, give_up: Callable[[], None], patience: float = 0.5) -> None:
        """Wait for the jobs that still run, so that each undoes what it began.

        Args:
            give_up: makes those end that can be ended; asked again and again, as
                one may only just begin what can.
            patience: seconds given to those that are in the kernel's hands.
        """
        self._jobs.give_up_waiting()
        deadline = self._loop.time() + patience
        while self._jobs.running and self._loop.time() < deadline:
            give_up()
            await asyncio.sleep(0.005)


def event_message(event: Event) -> JSONObject:
    """An event as it is sent, with the time (QMP specification, section 2.5)."""
    now = time.time_ns()
    message: JSONObject = {
        "timestamp": {
            "seconds": now // 1_000_000_000,
            "microseconds": now // 1000 % 1_000_000,
        },
        "event": event.name,
    }
    if event.data is not None:
        message["data"] = event.data
    return message
