"""A client's conversation: what it sent, what runs, what it is answered.

A session is fed bytes and writes bytes to its `Transport`; it knows neither
sockets nor threads. Commands run one after another and are answered in their
order. One that may block is handed to the `Jobs` and the conversation waits
for it, unless the client negotiated `oob`: then up to `QUEUE_LIMIT` commands
queue behind it and out-of-band commands overtake (QMP specification, section
2.3.1; limits observed on QEMU 10.0.2).
"""

from __future__ import annotations

import enum
import os
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from memd.compat import Compat
from memd.errors import QMPError
from memd.outcome import JSON, Blocking, Constant, Encoded, Event, Outcome
from memd.session.envelope import is_out_of_band, open_envelope
from memd.wire import Decoder, encode

QUEUE_LIMIT = 8
"""In-band commands that may wait behind a running one once `oob` is on."""


class Phase(enum.Enum):
    """How far a conversation is; it only ever moves down this list."""

    OPEN = "the client may send"
    DRAINING = "the client sent its last byte, what it sent is still answered"
    CLOSED = "nothing more is run"


class Transport(Protocol):
    """Where a session's bytes go; the server's connection."""

    full: bool
    """More is held than a client that reads lets happen: run nothing until `resume`."""

    def write(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """Queue an answer or event; `fds` are closed once sent or lost."""

    def pause_reading(self) -> None:
        """Stop feeding the session until `resume_reading`."""

    def resume_reading(self) -> None:
        """Feed the session again."""

    def finish(self) -> None:
        """Close once all that was written has been sent."""

    def peer_gone(self) -> bool:
        """Whether the client has closed both directions."""


class Monitor:
    """What outlives a client on the same socket: its named descriptors.

    Descriptor names given by `getfd` belong to the monitor and survive a
    reconnect (observed on QEMU 10.0.2).

    Attributes:
        id: its name.
        pretty: whether answers are spread over lines.
        fds: the named descriptors.
        clients: how many are connected.
    """

    __slots__ = ("clients", "fds", "id", "pretty")

    def __init__(self, id: str, *, pretty: bool = False) -> None:
        self.id = id
        self.pretty = pretty
        self.fds: dict[str, int] = {}
        self.clients = 0

    def client_came(self) -> None:
        """A client has connected."""
        self.clients += 1

    def client_left(self) -> None:
        """A client's connection is gone."""
        self.clients -= 1

    def close(self) -> None:
        """Close every named descriptor."""
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()


Dispatch = Callable[["Session", str, dict[str, Any], bool], JSON]
"""Runs a command: (session, name, arguments, out of band) to a JSON value,
an `Outcome` or a `Blocking`; raises `QMPError`."""


class Hub(Protocol):
    """What a session asks of the daemon around it."""

    @property
    def dispatch(self) -> Dispatch:
        """Runs a command."""

    def broadcast(self, events: tuple[Event, ...]) -> None:
        """Send events to every negotiated client."""

    def start_job(self, job: Blocking, done: Callable[[JSON], None]) -> None:
        """Run a job beside the loop; `done` gets its value, `Outcome` or `QMPError`."""

    def shut_down(self, reason: str) -> None:
        """End the daemon once the present answers are written."""


class Session:
    """One client's conversation, from greeting to farewell."""

    __slots__ = (
        "_backlog",
        "_decoder",
        "_hub",
        "_phase",
        "_queue",
        "_running",
        "_transport",
        "monitor",
        "negotiated",
        "oob_enabled",
        "received_fds",
    )

    def __init__(
        self, hub: Hub, transport: Transport, monitor: Monitor, compat: Compat = Compat.V10_0
    ) -> None:
        self._hub = hub
        self._transport = transport
        self._decoder = Decoder(compat)
        self.monitor = monitor
        self.negotiated = False
        self.oob_enabled = False
        self.received_fds: list[int] = []
        """Descriptors of the last message that carried any, not yet taken."""
        self._running = False
        # Accepted behind the running command (oob) / decoded but not accepted yet.
        self._queue: deque[Any] = deque()
        self._backlog: deque[Any] = deque()
        self._phase = Phase.OPEN

    def greet(self, greeting: JSON) -> None:
        """Send the greeting (QMP specification, section 2.2)."""
        self._transport.write(encode(greeting, self.monitor.pretty))

    def receive(self, data: bytes) -> None:
        """Take bytes from the client, and run what they complete."""
        if self._phase is not Phase.OPEN:
            return
        items = self._decoder.feed(data)
        done = 0
        # Ordinarily each item is answered at once and nothing ever waits.
        if not self._backlog:
            while done < len(items) and self._may_go_on():
                self._run(items[done])
                done += 1
        if done < len(items) or self._running:
            self._backlog.extend(items[done:])
            self._pump()

    def receive_fds(self, fds: list[int]) -> None:
        """Take descriptors that came along; those not taken before are closed.

        As QEMU's socket chardev does, which keeps one message's (observed on
        QEMU 10.0.2).
        """
        for fd in self.received_fds:
            os.close(fd)
        self.received_fds = fds

    def take_fd(self) -> int | None:
        """The first descriptor that came along; the others of its message are closed."""
        if not self.received_fds:
            return None
        first, *others = self.received_fds
        self.received_fds = []
        for fd in others:
            os.close(fd)
        return first

    def receive_eof(self) -> None:
        """The client will send no more.

        Without `oob` all that it sent is answered first, then its connection
        is closed; with it, what is queued is dropped (observed on QEMU 10.0.2).
        """
        if self._phase is not Phase.OPEN:
            return
        self._phase = Phase.DRAINING
        if self.oob_enabled or self._transport.peer_gone():
            self._queue.clear()
            self._backlog.clear()
        else:
            self._backlog.extend(self._decoder.end())
        self._pump()

    def lost(self) -> None:
        """The connection is gone: drop what waits, close what was not taken."""
        self._close()
        self.negotiated = False
        self.receive_fds([])

    def send_event(self, encoded: bytes) -> None:
        """Send an event to this client, if it has negotiated."""
        if self.negotiated:
            self._transport.write(encoded)

    def resume(self) -> None:
        """The transport is no longer full: go on with what waits."""
        self._pump()

    def _may_go_on(self) -> bool:
        return not self._running and self._phase is Phase.OPEN and not self._transport.full

    def _pump(self) -> None:
        """Run or queue what waits, as far as the rules allow."""
        queue, backlog = self._queue, self._backlog
        if self._phase is Phase.CLOSED:
            backlog.clear()
        while not self._transport.full:
            if not self._running:
                if queue:
                    self._run(queue.popleft())
                elif backlog:
                    self._run(backlog.popleft())
                else:
                    break
            elif self.oob_enabled and backlog and len(queue) < QUEUE_LIMIT:
                item = backlog.popleft()
                if is_out_of_band(item):
                    self._run(item)
                else:
                    queue.append(item)
            else:
                break
        if self._running and (backlog or not self.oob_enabled or len(queue) >= QUEUE_LIMIT):
            self._transport.pause_reading()
        elif self._phase is Phase.OPEN:
            self._transport.resume_reading()
        elif not (self._running or queue or backlog):
            self._transport.finish()

    def _run(self, item: Any) -> None:
        if isinstance(item, QMPError):
            self._answer(item, None, has_id=False)
            return
        has_id = type(item) is dict and "id" in item
        request_id = item["id"] if has_id else None
        result: Any
        try:
            name, arguments, oob = open_envelope(item, self.oob_enabled)
            result = self._hub.dispatch(self, name, arguments, oob)
        except QMPError as error:
            result = error
        if type(result) is Blocking:
            self._running = True
            self._hub.start_job(result, lambda value: self._job_done(value, request_id, has_id))
        else:
            self._answer(result, request_id, has_id)

    def _job_done(self, result: JSON, request_id: JSON, has_id: bool) -> None:
        self._running = False
        self._answer(result, request_id, has_id)
        if (self._backlog or self._queue) and self._transport.peer_gone():
            self.lost()
        self._pump()

    def _answer(self, result: JSON, request_id: JSON, has_id: bool) -> None:
        answer: dict[str, Any]
        if type(result) is Constant:
            if not self.monitor.pretty:
                self._transport.write(_encode_constant(result, request_id, has_id))
                return
            result = result.value
        elif type(result) is Encoded:
            if not self.monitor.pretty:
                self._transport.write(_around(result.text, request_id, has_id))
                return
            result = result.value()
        fds: tuple[int, ...] = ()
        shutdown = None
        if type(result) is Outcome:
            if result.events:
                self._hub.broadcast(result.events)
            fds, shutdown = result.fds, result.shutdown
            answer = {"return": result.value}
        elif isinstance(result, QMPError):
            answer = {"error": {"class": result.error_class, "desc": result.desc}}
        else:
            answer = {"return": result}
        if has_id:
            answer["id"] = request_id
        self._transport.write(encode(answer, self.monitor.pretty), fds)
        if shutdown is not None:
            self._close()
            self._hub.shut_down(shutdown)

    def _close(self) -> None:
        self._phase = Phase.CLOSED
        self._queue.clear()
        self._backlog.clear()


def _encode_constant(constant: Constant, request_id: JSON, has_id: bool) -> bytes:
    if constant.encoded is None:
        constant.encoded = encode(constant.value).rstrip()
    return _around(constant.encoded, request_id, has_id)


def _around(text: bytes, request_id: JSON, has_id: bool) -> bytes:
    """An answer around a value that is in JSON already."""
    tail = b', "id": ' + encode(request_id).rstrip() + b"}\r\n" if has_id else b"}\r\n"
    return b'{"return": ' + text + tail
