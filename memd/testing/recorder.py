"""Records what clients and a QMP server say to each other, a real QEMU's above all."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import select
import socket
import threading
import time
from collections import defaultdict
from typing import TextIO

from memd.client.sockets import LOST, Address, connect, receive
from memd.errors import QMPError
from memd.wire import Decoder

log = logging.getLogger(__name__)

_LAST_SECONDS = 1.0
"""Seconds that `Recorder.stop` waits: for the end of a connection that one side has
ended, and for a side that does not read what is still to be sent to it. And seconds
that a server has to take a client."""

_QUIET = 10
"""Milliseconds in which nothing comes, after which nothing more is expected at the end."""


class Recorder:
    """A socket that leads to a server's, and writes down what goes through it.

    A context manager. Each line of the file is a message, as `TestMessage` in
    `schemas/test.json` describes it; `Server.replay` answers from such a file.
    Bytes go through as they are, descriptors included, and nothing is read that the
    other side does not take: of each direction of each connection no more is held than
    was read at once. A side whose descriptors this process can't receive is
    disconnected, with a warning.

    Args:
        path: the UNIX socket to make, where clients connect.
        server: where the server is.
        filename: the file to write; one that is there is replaced.
    """

    def __init__(self, path: str, server: Address, filename: str | os.PathLike[str]) -> None:
        self.path = path
        self._server = server
        self._filename = filename
        self._thread = threading.Thread(target=self._run, name="memd-recorder", daemon=True)
        # Closed at the end, which the thread sees at the other one.
        self._hear, self._tell = socket.socketpair()
        self._listener = socket.socket(socket.AF_UNIX)
        self._connections: list[tuple[_Way, _Way]] = []
        self._count = 0
        self._file: TextIO | None = None
        self._began = 0

    def start(self) -> None:
        """Listen, and begin the file; raises `OSError`."""
        os.fchmod(self._listener.fileno(), 0o600)
        self._listener.bind(self.path)
        self._listener.listen()
        self._file = open(self._filename, "w", encoding="utf-8")  # noqa: SIM115
        self._began = time.monotonic_ns()
        self._thread.start()

    def stop(self) -> None:
        """Write down what has come, disconnect everybody, and end the file.

        That takes about a second at most, also if a peer does not read.
        """
        self._tell.close()
        if self._file is not None:
            self._thread.join()
            self._file.close()
            self._file = None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
        self._listener.close()
        self._hear.close()

    def __enter__(self) -> Recorder:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _run(self) -> None:
        """Pass on what comes, until the end, and then what is still under way."""
        deadline = math.inf
        while time.monotonic() < deadline:
            ready = self._ready(ending=deadline < math.inf)
            if not ready and not any(map(_under_way, self._connections)):
                break
            if self._hear.fileno() in ready:
                deadline = time.monotonic() + _LAST_SECONDS
            elif self._listener.fileno() in ready:
                with contextlib.suppress(OSError):
                    self._accept()
            for connection in tuple(self._connections):
                for way in connection:
                    if way.data:
                        if ready.get(way.there.fileno(), 0) & ~select.POLLIN:
                            way.send()
                    elif not way.ended and ready.get(way.here.fileno(), 0) & ~select.POLLOUT:
                        self._read(way)
                if all(way.ended for way in connection):
                    self._connections.remove(connection)
                    connection[0].close()
        for connection in self._connections:
            for way in connection:
                way.close()

    def _ready(self, *, ending: bool) -> dict[int, int]:
        """Wait until there is something to do; the events (poll(2)) by descriptor."""
        wanted: dict[int, int] = defaultdict(int)
        if not ending:
            wanted[self._hear.fileno()] = wanted[self._listener.fileno()] = select.POLLIN
        for connection in self._connections:
            for way in connection:
                if way.data:
                    wanted[way.there.fileno()] |= select.POLLOUT
                elif not way.ended:
                    wanted[way.here.fileno()] |= select.POLLIN
        poll = select.poll()
        for fd, events in wanted.items():
            poll.register(fd, events)
        return dict(poll.poll(_QUIET if ending else None))

    def _accept(self) -> None:
        """Connect a client to the server; where that fails, it is as if nobody listened."""
        client, _address = self._listener.accept()
        try:
            server = connect(self._server, _LAST_SECONDS)
        except OSError:
            client.close()
            return
        self._count += 1
        for each in (client, server):
            each.setblocking(False)
        there = _Way(self._count, "client", client, server)
        back = _Way(self._count, "server", server, client)
        self._connections.append((there, back))

    def _read(self, way: _Way) -> None:
        """Write down what a side says, and send it to the other one."""
        data: bytes = b""
        fds: list[int] = []
        # An error is an end like any other.
        with contextlib.suppress(OSError):
            data, fds = receive(way.here)
        if fds == [LOST]:
            # Without them the rest would mean something else there.
            log.warning("a %s's descriptors find no room: it is disconnected", way.side)
            data = b""
            with contextlib.suppress(OSError):
                way.here.shutdown(socket.SHUT_RDWR)
        if not data:
            self._write(way, end=True)
            way.ended = True
            # The other one is told so, and may still say something.
            with contextlib.suppress(OSError):
                way.there.shutdown(socket.SHUT_WR)
            return
        # Before it is passed on: what comes of it is written after it.
        for item in way.decoder.feed(data):
            if isinstance(item, QMPError):
                self._write(way, text=item.desc)
            else:
                self._write(way, message=item)
        way.data, way.fds = data, fds
        way.send()

    def _write(self, way: _Way, **what: object) -> None:
        now = (time.monotonic_ns() - self._began) // 1000
        entry = {"time": now, "connection": way.number, "from": way.side, **what}
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")


class _Way:
    """A direction of a connection.

    Attributes:
        number: of the connection.
        side: who sends.
        here: the sender.
        there: the receiver.
        decoder: of what is sent.
        data: bytes that were read, and are not sent yet.
        fds: the descriptors that go with them.
        ended: whether nothing more comes.
    """

    def __init__(self, number: int, side: str, here: socket.socket, there: socket.socket) -> None:
        self.number = number
        self.side = side
        self.here = here
        self.there = there
        self.decoder = Decoder()
        self.data = b""
        self.fds: list[int] = []
        self.ended = False

    def send(self) -> None:
        """Send what the receiver takes now."""
        try:
            if self.fds:
                sent = socket.send_fds(self.there, [self.data], self.fds)
            else:
                sent = self.there.send(self.data)
        except BlockingIOError:
            return
        except OSError:
            # That end has left: this one is to see it as it would there.
            with contextlib.suppress(OSError):
                self.here.shutdown(socket.SHUT_RD)
            sent = len(self.data)
        self.data = self.data[sent:]
        self._close_fds()

    def close(self) -> None:
        """Close both ends, and what was not sent."""
        self._close_fds()
        self.here.close()
        self.there.close()

    def _close_fds(self) -> None:
        for fd in self.fds:
            os.close(fd)
        self.fds = []


def _under_way(connection: tuple[_Way, _Way]) -> bool:
    """Whether something is still to be sent, or an end still to come."""
    one, other = connection
    return bool(one.data or other.data) or one.ended != other.ended
