"""The connection to a clone: reads QEMU's requests and sends pages."""

from __future__ import annotations

import asyncio
import socket
import time
from itertools import islice

from memd.errors import QMPError
from memd.pages.postcopy import Buffer, Source

_PIECES = 1024
"""Buffers that sendmsg(2) takes at once (IOV_MAX)."""

_READ = 64 << 10
"""Bytes read at once: thousands of requests."""

_ON_THE_WAY = 1 << 20
"""Bytes that a socket may hold, if the kernel lets it: 416 KiB as a rule, 0.4 ms of what QEMU
takes. Of less, it waits for what is sent more often than it has to."""

_IN_A_TURN = 4
"""Times that is sent before other clones have their turn: 1 MiB at most."""


class CloneConnection:
    """A source's connection to its destination, served on the event loop.

    Args:
        source: what is sent.
        sock: the connection; it is closed with `close`.

    Attributes:
        ended: done once the destination has everything; a `QMPError` is why not, an
            `OSError` that the connection is lost.
    """

    __slots__ = ("_at", "_full", "_left", "_loop", "_pending", "_sock", "_source", "ended")

    def __init__(self, source: Source, sock: socket.socket) -> None:
        self._source = source
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        # Buffers that are being sent, how many of them have gone, and bytes of those that have not.
        self._pending: list[Buffer] = []
        self._at = 0
        self._left = 0
        # Whether it is waited for that the socket takes more, and not that it has something:
        # what is asked for can't be sent sooner, and is read then.
        self._full = False
        sock.setblocking(False)
        if sock.family == socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ON_THE_WAY)
        self._loop.add_reader(sock.fileno(), self._readable)
        self.wake()

    def wake(self) -> None:
        """Go on: there may be something to send again."""
        if not self.ended.done():
            self._wait(full=True)

    def _wait(self, *, full: bool) -> None:
        if full == self._full:
            return
        self._full = full
        if full:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.add_writer(self._sock.fileno(), self._send)
        else:
            self._loop.remove_writer(self._sock.fileno())
            self._loop.add_reader(self._sock.fileno(), self._readable)

    def close(self) -> None:
        """Close the connection."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
        self.ended.cancel()

    def _readable(self) -> None:
        self._receive()
        self._send()

    def _receive(self) -> None:
        try:
            data = self._sock.recv(_READ)
            if not data:
                raise ConnectionResetError("the connection is closed")
            self._source.receive(data, time.monotonic())
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, QMPError) as failed:
            self._end(failed)
            return
        if self._source.ended:
            self._end(None)

    def _send(self) -> None:
        for _ in range(_IN_A_TURN):
            if self.ended.done():
                return
            if not self._pending:
                try:
                    self._pending = self._source.next(time.monotonic())
                except (OSError, QMPError) as failed:
                    self._end(failed)
                    return
                if not self._pending:
                    self._wait(full=False)
                    return
                self._left = sum(map(len, self._pending))
            try:
                sent = self._sock.sendmsg(islice(self._pending, self._at, self._at + _PIECES))
            except (BlockingIOError, InterruptedError):
                break
            except OSError as failed:
                self._end(failed)
                return
            self._advance(sent)
            # What was asked for meanwhile comes first.
            self._receive()
        self.wake()

    def _advance(self, sent: int) -> None:
        self._left -= sent
        if not self._left:
            self._pending, self._at = [], 0
            return
        pending, at = self._pending, self._at
        while sent >= len(pending[at]):
            sent -= len(pending[at])
            at += 1
        pending[at] = memoryview(pending[at])[sent:]
        self._at = at

    def _end(self, failure: Exception | None) -> None:
        if self.ended.done():
            return
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        if failure is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(failure)
