"""A session's transport with faults: it sends late, in pieces, together, in part, or not at all.

It stands between a session and its connection. What nothing is to go wrong with
goes straight through, unless something before it still has to be sent.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import struct
import termios
from collections import deque
from collections.abc import Callable

from memd.faulty.fault import Effect, Spec, raw_bytes
from memd.json_types import JSON, JSONObject
from memd.server.connection import Connection
from memd.server.hub import event_message
from memd.wire import encode
from memd.work import Event

_GLANCES = 50
"""How often one looks at once whether the client has read a piece, before
waiting in between: most read it within a fraction of a millisecond."""

_PAUSE = 0.001
"""Seconds between later looks."""

_CALM = 4
"""How often one looks again once it has: what comes while that read is still under
way would be read with it."""


class Step:
    """Something that is to be sent, or done, in its turn.

    Attributes:
        kind: "send", "wait", "stall", "end" or "finish".
        data: what to send.
        fds: the descriptors that ride on it.
        piece: bytes to send at once; 0 for all.
        at: how many bytes were sent.
        seconds: how long to wait.
        sent: called when it is about to be sent.
    """

    def __init__(
        self,
        kind: str,
        data: bytes = b"",
        fds: tuple[int, ...] = (),
        *,
        piece: int = 0,
        seconds: float = 0,
        sent: Callable[[bytes], None] | None = None,
    ) -> None:
        self.kind = kind
        self.data = data
        self.fds = fds
        self.piece = piece
        self.at = 0
        self.seconds = seconds
        self.sent = sent


class FaultyTransport:
    """The `Transport` of a session, in front of its connection.

    Args:
        loop: where it waits.
        connection: where things go in the end.

    Attributes:
        on_write: takes what the session writes, and gives it to `send`.
        on_end: called when the client is to be disconnected.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
        self._loop = loop
        self._connection = connection
        self._steps: deque[Step] = deque()
        self._timer: asyncio.Handle | None = None
        self._glances = 0
        self._calm = 0
        self._stalled = False
        self._ended = False
        self._finishing = False
        # Messages that are held until there are `_missing` more.
        self._gathered: list[Step] = []
        self._missing = 0
        self.on_write: Callable[[bytes, tuple[int, ...]], None] = lambda _data, fds: None
        self.on_end: Callable[[], None] = lambda: None

    # Transport

    @property
    def full(self) -> bool:
        """See `Transport`."""
        return self._connection.full

    @full.setter
    def full(self, full: bool) -> None:
        self._connection.full = full

    def write(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """See `Transport`."""
        self.on_write(data, fds)

    def pause_reading(self) -> None:
        """See `Transport`."""
        self._connection.pause_reading()

    def resume_reading(self) -> None:
        """See `Transport`."""
        self._connection.resume_reading()

    def finish(self) -> None:
        """See `Transport`."""
        self._finishing = True
        if self._ended:
            self._connection.finish()
            return
        if self._stalled:
            self.drop()
        self._ungather()
        self._put(Step("finish"))

    def peer_gone(self) -> bool:
        """See `Transport`."""
        return self._connection.peer_gone()

    def turn_over(self) -> bool:
        """See `Transport`."""
        return self._connection.turn_over()

    def crowded(self) -> bool:
        """See `Transport`."""
        return self._connection.crowded()

    def resume_later(self) -> None:
        """See `Transport`."""
        self._connection.resume_later()

    # As told

    def send(
        self,
        data: bytes,
        fds: tuple[int, ...],
        effect: Effect | None,
        sent: Callable[[bytes], None],
    ) -> None:
        """Send a message, with what is to go wrong with it.

        Args:
            sent: called with what is sent of it.
        """
        if effect is None:
            self._put(Step("send", data, fds, sent=sent))
            return
        spec = effect.spec
        if effect.delay:
            self._put(Step("wait", seconds=effect.delay / 1000))
        if spec.get("stall"):
            self._put(Step("stall"))
        for event in effect.before:
            self._put(Step("send", told_event(event), sent=sent))
        if not self._missing:
            self._missing = spec.get("gather", 0)
        data = rewritten(data, spec)
        disconnect = spec.get("disconnect")
        if disconnect == "middle":
            data = data[: spec.get("cut", len(data) // 2)]
        if spec.get("drop") or disconnect == "before":
            _close_all(fds)
        else:
            self._put(Step("send", data, fds, piece=spec.get("split", 0), sent=sent))
        for event in effect.after:
            self._put(Step("send", told_event(event), sent=sent))
        if disconnect is not None:
            self.end()

    def end(self) -> None:
        """Disconnect the client once what was written before is sent."""
        self._ungather()
        self._put(Step("end"))

    def lost(self) -> None:
        """The client is gone: everything still to be sent or received is dropped."""
        self._ended = True
        self.drop()

    def drop(self) -> None:
        """Forget what was not sent yet: the client never gets it."""
        self._stalled = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for step in (*self._steps, *self._gathered):
            _close_all(step.fds)
        self._steps.clear()
        self._gathered.clear()
        self._missing = 0

    def _put(self, step: Step) -> None:
        if self._ended:
            _close_all(step.fds)
        elif self._missing and step.kind == "send":
            self._gathered.append(step)
            self._missing -= 1
            if self._missing:
                return
            self._ungather()
        elif self._steps:
            self._steps.append(step)
        else:
            self._steps.append(step)
            self._go_on()

    def _ungather(self) -> None:
        """Put what was gathered in the queue, as one message."""
        self._missing = 0
        gathered, self._gathered = self._gathered, []
        if not gathered:
            return
        for step in gathered:
            if step.sent is not None:
                step.sent(step.data)
        data = b"".join([step.data for step in gathered])
        fds = tuple(fd for step in gathered for fd in step.fds)
        self._put(Step("send", data, fds, piece=gathered[0].piece))

    def _go_on(self) -> None:
        """Do what is next, until something has to be waited for."""
        self._timer = None
        steps = self._steps
        while steps:
            step = steps[0]
            if step.kind == "stall" and self._finishing:
                # A client that has half-closed need not wait for ever.
                self.drop()
                self._connection.finish()
                return
            if step.kind == "stall":
                self._stalled = True
                return
            if step.kind == "wait":
                step.kind = "waited"
                self._timer = self._loop.call_later(step.seconds, self._go_on)
                return
            if step.kind == "send" and step.piece:
                # Not now: what is written while others are gathers with theirs.
                step.kind = "pieces"
                self._timer = self._loop.call_soon(self._go_on)
                return
            if step.kind in ("send", "pieces") and not self._send(step):
                return
            if not steps:
                # It could not be sent, and the client is gone.
                return
            steps.popleft()
            if step.kind == "finish":
                self._connection.finish()
            elif step.kind == "end":
                self.lost()
                self.on_end()
                self._connection.finish()

    def _send(self, step: Step) -> bool:
        """Send a step, or the next piece of it; whether that was all."""
        if step.sent is not None:
            step.sent(step.data)
            step.sent = None
        if not step.piece:
            # They are the connection's from here on, whatever becomes of it.
            fds, step.fds = step.fds, ()
            self._connection.write(step.data, fds)
            return True
        if unread(self._connection.fileno()):
            self._glances += 1
            if self._glances < _GLANCES:
                self._timer = self._loop.call_soon(self._go_on)
            else:
                self._timer = self._loop.call_later(_PAUSE, self._go_on)
            self._calm = 0
            return False
        if self._calm < _CALM:
            self._calm += 1
            self._timer = self._loop.call_soon(self._go_on)
            return False
        self._glances = self._calm = 0
        end = step.at + step.piece
        piece, step.at = step.data[step.at : end], end
        fds, step.fds = step.fds, ()
        self._connection.write(piece, fds)
        if end < len(step.data):
            self._timer = self._loop.call_soon(self._go_on)
        return end >= len(step.data)


def unread(fd: int) -> int:
    """Bytes that the other end of a UNIX socket has not read; of others, 0 where it can't be told.

    For UNIX sockets SIOCOUTQ (unix(7)) counts what is held for the reader, with
    the kernel's own bookkeeping; what matters here is only whether it is 0.
    """
    if fd < 0:
        return 0
    try:
        answer = fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return 0
    count: int = struct.unpack("i", answer)[0]
    return count


def rewritten(data: bytes, spec: Spec) -> bytes:
    """A message as it is told to be sent."""
    raw = raw_bytes(spec)
    if raw is not None:
        return raw
    if not {"answer-id", "timestamp"} & spec.keys() and not spec.get("no-id"):
        return data
    message: JSONObject = json.loads(data)
    if "timestamp" in spec:
        _set_time(message, spec["timestamp"])
    else:
        message.pop("id", None)
    if "answer-id" in spec:
        message["id"] = spec["answer-id"]
    return encode(message, b"\n" in data.rstrip())


def told_event(event: Spec) -> bytes:
    """An event of one's choice (`TestEvent`), in JSON."""
    message = event_message(Event(event["event"], event.get("data")))
    if "timestamp" in event:
        _set_time(message, event["timestamp"])
    return encode(message)


def _set_time(message: JSONObject, timestamp: JSON) -> None:
    """Have an event tell this of its time; None for nothing."""
    message["timestamp"] = timestamp
    if timestamp is None:
        del message["timestamp"]


def _close_all(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)
