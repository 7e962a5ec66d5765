"""A connection with faults: it sends late, in pieces, together, in part, or not at all.

What nothing is to go wrong with goes straight through, unless something before it still
has to be sent.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from memd.faulty.fault import Effect, Spec, raw_bytes
from memd.json_types import JSON, JSONObject
from memd.server.connection import Connection
from memd.server.hub import event_message
from memd.wire import encode
from memd.work import Event

_GLANCES = 50
"""Checks without a pause whether the client has read a piece; later ones are `_PAUSE`
apart. Most read it within a fraction of a millisecond."""

_PAUSE = 0.001
"""Seconds between later checks."""

_CALM = 4
"""Checks in a row that have to find it read: what is sent while a read is still under
way would be read with it."""


class Message:
    """A message that is sent in its turn.

    Attributes:
        data: what to send.
        fds: the descriptors that ride on it.
        sent: called with what is sent, when it is about to be.
        piece: bytes to send at once; 0 for all.
    """

    def __init__(
        self,
        data: bytes,
        fds: tuple[int, ...],
        sent: Callable[[bytes], None],
        piece: int = 0,
    ) -> None:
        self.data = data
        self.fds = fds
        self.sent = sent
        self.piece = piece

    def pieces(self) -> Iterator[bytes]:
        """The parts that are sent one by one."""
        size = self.piece or len(self.data)
        for at in range(0, len(self.data) or 1, size or 1):
            yield self.data[at : at + size]


Step = Message | float | Callable[[], None]
"""A step in the queue: a message, a pause in seconds (infinite: a stall), or an act."""


class FaultyConnection(Connection):
    """The connection of a tested client.

    Attributes:
        on_write: takes what the session writes, and gives it to `send`.
        on_end: called when the client is to be disconnected.
    """

    on_write: Callable[[bytes, tuple[int, ...]], None]
    on_end: Callable[[], None]
    # Does the steps; None where there are none.
    _work: Iterator[float] | None = None
    _timer: asyncio.Handle | None = None
    _stalled = _ended = _finishing = False
    _missing = 0

    def __init__(self, *what: Any) -> None:
        super().__init__(*what)
        self._steps: deque[Step] = deque()
        # Messages that are held until there are `_missing` more.
        self._gathered: list[Message] = []

    def write(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        self.on_write(data, fds)

    def finish(self) -> None:
        self._finishing = True
        if self._ended or self._stalled:
            self.drop()
            super().finish()
        else:
            self._ungather()
            self._put(super().finish)

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
            self._put(Message(data, fds, sent))
            return
        spec = effect.spec
        if effect.delay:
            self._put(effect.delay / 1000)
        if spec.get("stall"):
            self._put(math.inf)
        for event in effect.before:
            self._put(Message(told_event(event), (), sent))
        if not self._missing:
            self._missing = spec.get("gather", 0)
        data = rewritten(data, spec)
        disconnect = spec.get("disconnect")
        if disconnect == "middle":
            data = data[: spec.get("cut", len(data) // 2)]
        if spec.get("drop") or disconnect == "before":
            _close_all(fds)
        else:
            self._put(Message(data, fds, sent, spec.get("split", 0)))
        for event in effect.after:
            self._put(Message(told_event(event), (), sent))
        if disconnect is not None:
            self.end()

    def end(self) -> None:
        """Disconnect the client once what was written before is sent."""
        self._ungather()
        self._put(self._disconnect)

    def _disconnect(self) -> None:
        self.lost()
        self.on_end()
        super().finish()

    def lost(self) -> None:
        """The client is gone: everything still to be sent or received is dropped."""
        self._ended = True
        self.drop()

    def drop(self) -> None:
        """Forget what was not sent yet: the client never gets it."""
        self._stalled = False
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._work = None
        for step in (*self._steps, *self._gathered):
            if isinstance(step, Message):
                _close_all(step.fds)
        self._steps.clear()
        self._gathered.clear()
        self._missing = 0

    def _put(self, step: Step) -> None:
        if isinstance(step, Message) and self._ended:
            _close_all(step.fds)
        elif isinstance(step, Message) and self._missing:
            self._gathered.append(step)
            self._missing -= 1
            if not self._missing:
                self._ungather()
        elif not self._ended:
            self._steps.append(step)
            if self._work is None:
                self._work = self._do_steps()
                self._go_on()

    def _ungather(self) -> None:
        """Put what was gathered in the queue, as one message."""
        gathered, self._gathered, self._missing = self._gathered, [], 0
        if not gathered:
            return

        def sent(_data: bytes) -> None:
            for each in gathered:
                each.sent(each.data)

        data = b"".join([each.data for each in gathered])
        fds = tuple(fd for each in gathered for fd in each.fds)
        self._put(Message(data, fds, sent, gathered[0].piece))

    def _go_on(self) -> None:
        """Do what is next, until something has to be waited for."""
        self._timer = None
        for pause in self._work or ():
            if pause < math.inf:
                self._timer = self._loop.call_later(pause, self._go_on)
            elif self._finishing:
                # A client that has half-closed need not wait for ever.
                self.drop()
                super().finish()
            else:
                self._stalled = True
            return
        self._work = None

    def _do_steps(self) -> Iterator[float]:
        """Do what is to be done; yields the seconds to wait."""
        while self._steps:
            step = self._steps[0]
            if isinstance(step, Message):
                yield from self._send(step)
            elif isinstance(step, float):
                yield step
            else:
                step()
            # The client may be gone by now, and with it what was to be done.
            if self._steps:
                self._steps.popleft()

    def _send(self, message: Message) -> Iterator[float]:
        if message.piece:
            # Not now: what is written while others are gathers with theirs.
            yield 0
        message.sent(message.data)
        for piece in message.pieces():
            if message.piece:
                yield from self._until_read()
            # They are the connection's from here on, whatever becomes of it.
            fds, message.fds = message.fds, ()
            super().write(piece, fds)
            if self._ended:
                return

    def _until_read(self) -> Iterator[float]:
        """Wait until the client has read what was sent before."""
        looks = calm = 0
        while calm < _CALM:
            looks += 1
            calm = 0 if self._stream and self._stream.unread() else calm + 1
            yield 0 if calm or looks < _GLANCES else _PAUSE


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
