"""Records what clients and a QMP server say to each other, a real QEMU's above all."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import threading
import time
from types import TracebackType
from typing import TextIO

from memd.client.sockets import Address, connect
from memd.errors import QMPError
from memd.wire import Decoder

_READ_SIZE = 256 << 10
_MAX_FDS = 16

_LAST_SECONDS = 1.0
"""Seconds after which a connection that one side has ended need not end any more."""


class Recorder:
    """A socket that leads to a server's, and writes down what goes through it.

    A context manager. Each line of the file is a message, as `TestMessage` in
    `schemas/test.json` describes it; `Server.replay` answers from such a file.
    Bytes go through as they are, descriptors included.

    Args:
        path: the UNIX socket to make, where clients connect.
        server: where the server is.
        filename: the file to write; one that is there is replaced.
    """

    def __init__(self, path: str, server: Address, filename: str | os.PathLike[str]) -> None:
        self.path = path
        self._server = server
        self._filename = filename
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._serve, name="memd-recorder", daemon=True)
        self._hear, self._tell = socket.socketpair()
        self._connections = 0
        self._listener: socket.socket | None = None
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
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._hear, selectors.EVENT_READ, None)
        self._thread.start()

    def stop(self) -> None:
        """Write down what has come, disconnect everybody, and end the file."""
        if self._listener is None:
            return
        self._tell.close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.data, _Pair):
                key.data.close()
        self._selector.close()
        self._hear.close()
        self._listener.close()
        self._listener = None
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Recorder:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _serve(self) -> None:
        while True:
            for key, _events in self._selector.select():
                if key.data is None:
                    self._pass_on_the_rest()
                    return
                if isinstance(key.data, _Pair):
                    self._pass_on(key.data, key.fileobj)
                else:
                    self._accept()

    def _pass_on_the_rest(self) -> None:
        """What is under way still belongs to the record, and so does an end that must come."""
        deadline = time.monotonic() + _LAST_SECONDS
        while time.monotonic() < deadline:
            pairs = [
                key.data for key in self._selector.get_map().values() if isinstance(key.data, _Pair)
            ]
            patience = 0.1 if any(pair.ending for pair in pairs) else 0
            found = [
                key
                for key, _events in self._selector.select(patience)
                if isinstance(key.data, _Pair)
            ]
            if not found and not patience:
                return
            for key in found:
                self._pass_on(key.data, key.fileobj)

    def _accept(self) -> None:
        assert self._listener is not None
        client, _address = self._listener.accept()
        try:
            server = connect(self._server)
        except OSError:
            # As if nobody had listened.
            client.close()
            return
        self._connections += 1
        pair = _Pair(self._connections, client, server)
        for each in (client, server):
            self._selector.register(each, selectors.EVENT_READ, pair)

    def _pass_on(self, pair: _Pair, source: object) -> None:
        """Take what is there, write it down, and send it to the other end."""
        side = "client" if source is pair.client else "server"
        here, there = pair.client, pair.server
        if side == "server":
            here, there = there, here
        data = b""
        fds: list[int] = []
        # An error is an end like any other.
        with contextlib.suppress(OSError):
            data, fds, _flags, _address = socket.recv_fds(here, _READ_SIZE, _MAX_FDS)
        if not data:
            self._write(pair.number, side, {"end": True})
            self._selector.unregister(here)
            pair.end(there)
            return
        # Before it is passed on: what comes of it is written after it.
        for item in pair.decoders[side].feed(data):
            if isinstance(item, QMPError):
                self._write(pair.number, side, {"text": item.desc})
            else:
                self._write(pair.number, side, {"message": item})
        # Where it can't be sent, that end has left, which is seen next.
        with contextlib.suppress(OSError):
            sent = socket.send_fds(there, [data], fds) if fds else 0
            there.sendall(data[sent:])
        for fd in fds:
            os.close(fd)

    def _write(self, number: int, side: str, what: dict[str, object]) -> None:
        assert self._file is not None
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
        decoders: tell the messages of each side apart.
        ending: whether one of them has said its last.
    """

    __slots__ = ("client", "decoders", "ending", "number", "server")

    def __init__(self, number: int, client: socket.socket, server: socket.socket) -> None:
        self.number = number
        self.client = client
        self.server = server
        self.decoders = {"client": Decoder(), "server": Decoder()}
        self.ending = False

    def end(self, other: socket.socket) -> None:
        """One end says no more; `other` is told so, and may still say something."""
        if self.ending:
            self.close()
        self.ending = True
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close both ends."""
        self.client.close()
        self.server.close()
