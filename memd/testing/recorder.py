"""Records what clients and a QMP server say to each other, a real QEMU's above all."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import socket
import threading
import time
from typing import TextIO

from memd.client.sockets import LOST, Address, connect, receive
from memd.errors import QMPError
from memd.wire import Decoder

log = logging.getLogger(__name__)

_LAST_SECONDS = 1.0
"""Seconds that `Recorder.stop` waits: for the end of a connection that one side has
ended, and for a side that does not read what is still to be sent to it."""


class Recorder:
    """A socket that leads to a server's, and writes down what goes through it.

    A context manager. Each line of the file is a message, as `TestMessage` in
    `schemas/test.json` describes it; `Server.replay` answers from such a file.
    Bytes go through as they are, descriptors included, and nothing is read that the
    other side does not take: each direction of each connection has a thread of its
    own, which holds no more than it has read at once. A side whose descriptors this
    process can't receive is disconnected, with a warning.

    Args:
        path: the UNIX socket to make, where clients connect.
        server: where the server is.
        filename: the file to write; one that is there is replaced.
    """

    def __init__(self, path: str, server: Address, filename: str | os.PathLike[str]) -> None:
        self.path = path
        self._server = server
        self._filename = filename
        self._acceptor = threading.Thread(target=self._accept, name="memd-recorder", daemon=True)
        self._threads: list[threading.Thread] = []
        # Closed at the end, which every thread sees at the other one.
        self._hear, self._tell = socket.socketpair()
        self._deadline = 0.0
        self._listener: socket.socket | None = None
        # Guards the file.
        self._lock = threading.Lock()
        self._file: TextIO | None = None
        self._began = 0

    def start(self) -> None:
        """Listen, and begin the file; raises `OSError`."""
        self._listener = socket.socket(socket.AF_UNIX)
        os.fchmod(self._listener.fileno(), 0o600)
        self._listener.bind(self.path)
        self._listener.listen()
        self._file = open(self._filename, "w", encoding="utf-8")  # noqa: SIM115
        self._began = time.monotonic_ns()
        self._acceptor.start()

    def stop(self) -> None:
        """Write down what has come, disconnect everybody, and end the file.

        That takes about a second at most, also if a peer does not read.
        """
        if self._listener is None:
            return
        self._deadline = time.monotonic() + _LAST_SECONDS
        self._tell.close()
        # It may be connecting to a server that takes nobody.
        self._acceptor.join(_LAST_SECONDS)
        for thread in self._threads:
            thread.join()
        self._listener.close()
        self._listener = None
        self._hear.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def __enter__(self) -> Recorder:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def _accept(self) -> None:
        """Serve those who connect, in that order, until the end."""
        listener = self._listener
        assert listener is not None
        number = 0
        while self._wait(listener, select.POLLIN):
            client, _address = listener.accept()
            try:
                server = connect(self._server)
            except OSError:
                # As if nobody had listened.
                client.close()
                continue
            number += 1
            pair = _Pair(number, client, server)
            if self._deadline:
                pair.close()
                return
            self._threads = [each for each in self._threads if each.is_alive()]
            for side in ("client", "server"):
                thread = threading.Thread(target=self._pass_on, args=(pair, side), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _wait(self, sock: socket.socket, event: int) -> bool:
        """Wait until a socket is ready, or the recorder is to end; whether the former."""
        poll = select.poll()
        poll.register(sock, event)
        poll.register(self._hear, select.POLLIN)
        ready = {fd for fd, _event in poll.poll()}
        return sock.fileno() in ready

    def _pass_on(self, pair: _Pair, side: str) -> None:
        """Write down what a side says, and send it to the other one, until one of them ends."""
        here, there = (pair.client, pair.server)[:: 1 if side == "client" else -1]
        decoder = Decoder()
        while self._comes(pair, side, here):
            data: bytes = b""
            fds: list[int] = []
            # An error is an end like any other.
            with contextlib.suppress(OSError):
                data, fds = receive(here)
            if fds == [LOST]:
                # Without them the rest would mean something else there.
                log.warning("a %s's descriptors find no room: it is disconnected", side)
                data = b""
                with contextlib.suppress(OSError):
                    here.shutdown(socket.SHUT_RDWR)
            if not data:
                self._write(pair.number, side, {"end": True})
                pair.ending = True
                # The other one is told so, and may still say something.
                with contextlib.suppress(OSError):
                    there.shutdown(socket.SHUT_WR)
                break
            # Before it is passed on: what comes of it is written after it.
            for item in decoder.feed(data):
                if isinstance(item, QMPError):
                    self._write(pair.number, side, {"text": item.desc})
                else:
                    self._write(pair.number, side, {"message": item})
            try:
                self._send(there, data, fds)
            except TimeoutError:
                break
            except OSError:
                # That end has left: this one is to see it as it would there.
                with contextlib.suppress(OSError):
                    here.shutdown(socket.SHUT_RD)
            finally:
                for fd in fds:
                    os.close(fd)
        pair.leave(side)

    def _comes(self, pair: _Pair, side: str, here: socket.socket) -> bool:
        """Wait for what a side says, its end included; False once the recorder is to end.

        Then what is under way still belongs to the record, and so does an end that must come.
        """
        if self._wait(here, select.POLLIN):
            pair.idle.discard(side)
            return True
        poll = select.poll()
        poll.register(here, select.POLLIN)
        while time.monotonic() < self._deadline:
            pair.idle.add(side)
            if len(pair.idle) == 2 and not pair.ending:
                return False
            if poll.poll(10):
                pair.idle.discard(side)
                return True
        return False

    def _send(self, there: socket.socket, data: bytes, fds: list[int]) -> None:
        """Send it all, as the other side reads.

        Raises:
            TimeoutError: the recorder is to end, and the other side does not read.
            OSError: the other side has left.
        """
        left = memoryview(data)
        while left:
            try:
                sent = socket.send_fds(there, [left], fds) if fds else there.send(left)
            except BlockingIOError:
                self._wait_to_send(there)
                continue
            fds = []
            left = left[sent:]

    def _wait_to_send(self, there: socket.socket) -> None:
        if self._wait(there, select.POLLOUT):
            return
        poll = select.poll()
        poll.register(there, select.POLLOUT)
        if not poll.poll(max(0.0, self._deadline - time.monotonic()) * 1000):
            raise TimeoutError

    def _write(self, number: int, side: str, what: dict[str, object]) -> None:
        with self._lock:
            if self._file is None:
                return
            entry = {
                "time": (time.monotonic_ns() - self._began) // 1000,
                "connection": number,
                "from": side,
                **what,
            }
            self._file.write(json.dumps(entry) + "\n")


class _Pair:
    """A client, and its connection to the server.

    Attributes:
        ending: whether one of them has said its last.
        idle: the sides from which nothing comes, once the recorder is to end.
    """

    def __init__(self, number: int, client: socket.socket, server: socket.socket) -> None:
        self.number = number
        self.client = client
        self.server = server
        for each in (client, server):
            each.setblocking(False)
        self.ending = False
        self.idle: set[str] = set()
        self._left = 0
        self._lock = threading.Lock()

    def leave(self, side: str) -> None:
        """Nothing of what a side says is passed on any more."""
        self.idle.add(side)
        with self._lock:
            self._left += 1
            if self._left == 2:
                self.close()

    def close(self) -> None:
        """Close both ends."""
        self.client.close()
        self.server.close()
