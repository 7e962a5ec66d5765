"""Servers that speak as much QMP as a test needs."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.differential.harness import settle

Talk = Callable[["Peer", dict[str, Any]], None]
"""What a server does about a request."""


class Peer:
    """A client's connection, as the server has it.

    Attributes:
        pid: the client's process.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.pid: int = struct.unpack("3i", credentials)[0]
        self._lock = threading.Lock()

    def say(self, message: dict[str, Any]) -> None:
        with self._lock:
            self.sock.sendall(json.dumps(message).encode() + b"\n")

    def answer(self, request: dict[str, Any], value: Any = None) -> None:
        self.say({"return": {} if value is None else value, **_id(request)})

    def refuse(self, request: dict[str, Any], desc: str, kind: str = "GenericError") -> None:
        self.say({"error": {"class": kind, "desc": desc}, **_id(request)})

    def event(self, name: str, **data: Any) -> None:
        stamp = {"seconds": 0, "microseconds": 0}
        self.say({"event": name, "data": data, "timestamp": stamp})

    def leave(self) -> None:
        self.sock.shutdown(socket.SHUT_RDWR)


def _requests(sock: socket.socket) -> Iterator[dict[str, Any]]:
    """The requests as they come; nothing needs to part them."""
    decoder = json.JSONDecoder()
    text = ""
    while data := sock.recv(1 << 16):
        text += data.decode()
        while text := text.lstrip():
            try:
                request, end = decoder.raw_decode(text)
            except ValueError:
                break
            text = text[end:]
            yield request


def _id(request: dict[str, Any]) -> dict[str, Any]:
    return {"id": request["id"]} if "id" in request else {}


class Fake:
    """A server that greets, negotiates, and leaves all else to a function."""

    def __init__(self, path: Path, talk: Talk) -> None:
        self.path = path
        self._talk = talk
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more clients."""
        self._listening.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with self._listening:
            while True:
                try:
                    sock, _address = self._listening.accept()
                except OSError:
                    return
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            peer = Peer(sock)
            version = {"qemu": {"major": 10, "minor": 0, "micro": 0}, "package": ""}
            peer.say({"QMP": {"version": version, "capabilities": []}})
            try:
                for request in _requests(sock):
                    if request["execute"] == "qmp_capabilities":
                        peer.answer(request)
                    else:
                        self._talk(peer, request)
            except OSError:
                # The client has left.
                pass


def knows_nothing(peer: Peer, request: dict[str, Any]) -> None:
    """What a server does that is not memd."""
    name = request["execute"]
    peer.refuse(request, f"The command {name} has not been found", "CommandNotFound")


def interrupt(pid: int, number: int = signal.SIGINT) -> None:
    """Press Ctrl-C, or send another signal, once another process waits.

    A signal that comes just before the waiting begins is only noted: Python
    looks at it when the system call returns, which this one might never do.
    This process can't be asked: its threads wait for each other as well.
    """
    settle(lambda: _state(pid), lambda state: state == "S", 60)
    os.kill(pid, number)


def _state(pid: int) -> str:
    """What a process does (proc(5)): "R", "S" and so on."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
