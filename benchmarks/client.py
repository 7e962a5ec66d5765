"""The client that both sides are asked by: as little work as possible between two bytes."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

READ_SIZE = 1 << 18


class Refused(Exception):
    """A command was answered with an error."""


class Client:
    """A QMP client on a UNIX socket, negotiated.

    Args:
        path: of the socket.
        patience: seconds to wait for a server that is only starting.
    """

    def __init__(self, path: Path, patience: float = 30.0) -> None:
        self.socket = connect(path, patience)
        self._left = b""
        self.line()
        self.execute("qmp_capabilities")

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(data)

    def line(self) -> bytes:
        """The next message, events included."""
        parts = [self._left]
        while b"\n" not in parts[-1]:
            data = self.socket.recv(READ_SIZE)
            if not data:
                raise ConnectionError("the server has closed the connection")
            parts.append(data)
        line, _, self._left = b"".join(parts).partition(b"\n")
        return line

    def answer(self) -> Any:
        """The value of the next answer; events are passed over."""
        while True:
            message = json.loads(self.line())
            if "error" in message:
                raise Refused(message["error"]["desc"])
            if "event" not in message:
                return message["return"]

    def execute(self, name: str, arguments: dict[str, Any] | None = None) -> Any:
        """Run a command; raises `Refused`."""
        self.send(command(name, arguments))
        return self.answer()

    def ask(self, request: bytes) -> None:
        """Send a request and read an answer that is short, without looking into it."""
        self.socket.sendall(request)
        data = self.socket.recv(READ_SIZE)
        while not data.endswith(b"\n"):
            data += self.socket.recv(READ_SIZE)
        if b'"error"' in data:
            raise Refused(data.decode())

    def burst(self, requests: bytes, count: int) -> None:
        """Send many requests at once, and read as many answers without looking into them."""
        self.socket.sendall(requests)
        while count > 0:
            data = self.socket.recv(READ_SIZE)
            if not data:
                raise ConnectionError("the server has closed the connection")
            count -= data.count(b"\n")

    def close(self) -> None:
        """Leave."""
        self.socket.close()


def connect(path: Path, patience: float) -> socket.socket:
    """A connected socket; asks again while the server is starting."""
    deadline = time.monotonic() + patience
    while True:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(path))
            return sock
        except OSError:
            sock.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.0002)


def command(name: str, arguments: dict[str, Any] | None = None) -> bytes:
    """A request's bytes."""
    message: dict[str, Any] = {"execute": name}
    if arguments is not None:
        message["arguments"] = arguments
    return json.dumps(message).encode() + b"\n"


def add(kind: str, id: str, size: int, **more: Any) -> bytes:
    """A request that makes a backend of so many bytes; underscores in options are dashes."""
    options = {name.replace("_", "-"): value for name, value in more.items()}
    arguments = {"qom-type": f"memory-backend-{kind}", "id": id, "size": size, **options}
    return command("object-add", arguments)


def delete(id: str) -> bytes:
    """A request that deletes an object."""
    return command("object-del", {"id": id})
