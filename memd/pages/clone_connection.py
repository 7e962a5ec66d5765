"""The connection to a clone: reads QEMU's requests and sends pages."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from itertools import islice

from memd.errors import QMPError
from memd.hostmem.sockets import close_socket, keep_urgent, receive
from memd.pages.postcopy import Buffer, Sender, Span
from memd.pages.recording import RECORD

_PIECES = 1024
"""Buffers that sendmsg(2) takes at once (IOV_MAX)."""

_LONG = 3 * RECORD
"""Bytes from which on a part of a file is sent by sendfile(2), which copies nothing: a page
costs 0.4 us of it and 1.2 of sendmsg(2), but a call as much as two pages (measured)."""

_READ = 64 << 10
"""Bytes read at once: thousands of requests."""

_ON_THE_WAY = 1 << 20
"""Bytes that a socket may hold, if the kernel lets it: 416 KiB as a rule, 0.4 ms of what QEMU
takes. Of less, it waits for what is sent more often than it has to."""

_IN_A_TURN = 1 << 20
"""Bytes after which other clones have their turn."""


class CloneConnection:
    """A connection to a destination, served on the event loop.

    Args:
        sender: says what is sent.
        sock: the connection; it is closed with `close`.

    Attributes:
        ended: done once the destination has everything; a `QMPError` is why not, an
            `OSError` that the connection is lost.
    """

    def __init__(self, sender: Sender, sock: socket.socket) -> None:
        self._sender = sender
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        # Buffers that are being sent, and how many of them have gone.
        self._pending: list[Buffer] = []
        self._at = 0
        # Whether it is waited for that the socket takes more, and not that it has something:
        # what is asked for can't be sent sooner, and is read then.
        self._full = False
        sock.setblocking(False)
        keep_urgent(sock)
        if sock.family == socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ON_THE_WAY)
        self._loop.add_reader(sock.fileno(), self._send)
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
            self._loop.add_reader(self._sock.fileno(), self._send)

    def _wait_no_more(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())

    def close(self) -> None:
        """Close the connection."""
        if self._sock.fileno() >= 0:
            self._wait_no_more()
            close_socket(self._sock)
        self.ended.cancel()

    def _receive(self) -> None:
        try:
            data = receive(self._sock, _READ)
            if not data:
                raise ConnectionResetError("the connection is closed")
            self._sender.receive(data, time.monotonic())
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, QMPError) as failed:
            self._end(failed)
            return
        if self._sender.ended:
            self._end(None)

    def _send(self) -> None:
        left = _IN_A_TURN
        while left > 0:
            try:
                if self._at == len(self._pending):
                    # What was asked for meanwhile comes first.
                    self._receive()
                    if self.ended.done():
                        return
                    self._pending, self._at = self._sender.next(time.monotonic()), 0
                    if not self._pending:
                        self._wait(full=False)
                        return
                sent = self._send_some()
            except (BlockingIOError, InterruptedError):
                break
            except (OSError, QMPError) as failed:
                self._end(failed)
                return
            left -= sent
            self._advance(sent)
        self.wake()

    def _send_some(self) -> int:
        """Send a part of a file, or what else is pending up to one; gives how many bytes."""
        short: list[bytes | memoryview] = []
        for each in islice(self._pending, self._at, self._at + _PIECES):
            if not isinstance(each, Span):
                short.append(each)
            elif each.end - each.start < _LONG:
                short.append(each.view[each.start : each.end])
            elif short:
                break
            else:
                sent = os.sendfile(self._sock.fileno(), each.fd, each.start, each.end - each.start)
                if not sent:
                    raise QMPError("the template's unpacked copy is cut short")
                return sent
        return self._sock.sendmsg(short)

    def _advance(self, sent: int) -> None:
        pending = self._pending
        while sent:
            first = pending[self._at]
            if sent < len(first):
                pending[self._at] = first[sent:]
                return
            sent -= len(first)
            self._at += 1

    def _end(self, failure: Exception | None) -> None:
        if self.ended.done():
            return
        self._wait_no_more()
        if failure is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(failure)
