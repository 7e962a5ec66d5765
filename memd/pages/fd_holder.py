"""A process that holds the connections to clones' monitors, for the one that has to recover them.

A QEMU whose main thread waits for a page does not negotiate with new clients: it can
be recovered only on a connection that has negotiated before, out of band. So that
connection has to outlive the process that serves, and the daemon too. The first process
that serves forks one that holds connections; it ends when it holds none and no process is
connected. A connection that its peer closes is held no longer. If it is killed, the next request
starts another, which is given again what it has to hold.

A request is a packet, `keep N` with a descriptor, `take N` or `drop N`; the answer is a
packet of one byte, with the descriptor where one was asked for and is held.
"""

from __future__ import annotations

import fcntl
import logging
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from memd.hostmem.paths import named_by

log = logging.getLogger("memd")

_SOCKET = "monitors"
_LOCK = "monitors.lock"


class Connection(Protocol):
    """What is held a copy of."""

    def fileno(self) -> int:
        """Its descriptor, -1 once it is closed."""


class Holder:
    """A connection to that process. Its methods wait for it, and may be called in any thread.

    Args:
        directory: where its socket is; one process is started for each, by the first that needs it.

    Raises:
        OSError: there can be none.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._kept: dict[int, Connection] = {}
        self._socket = _connect(directory)

    def keep(self, number: int, connection: Connection) -> None:
        """Hold a copy of a descriptor, in the place of one of the same number. Raises `OSError`.

        Args:
            number: of the copy.
            connection: whose descriptor it is; until `drop`, or until it is closed, another
                copy is held if the first one is lost.
        """
        with self._lock:
            self._kept[number] = connection
            self._ask(f"keep {number}", (connection.fileno(),))

    def take(self, number: int) -> int:
        """A copy of a descriptor, -1 where none is held. Raises `OSError`."""
        with self._lock:
            fds = self._ask(f"take {number}")
        return fds[0] if fds else -1

    def drop(self, number: int) -> None:
        """Hold a descriptor no longer. Raises `OSError`."""
        with self._lock:
            self._kept.pop(number, None)
            self._ask(f"drop {number}")

    def close(self) -> None:
        """Leave; what is held stays held."""
        self._socket.close()

    def _ask(self, request: str, fds: tuple[int, ...] = ()) -> list[int]:
        try:
            return self._say(request, fds)
        except ConnectionError:
            log.warning("the process that holds machines' monitors has ended: another one does")
            # If there can be none now, the next request fails again, and starts one.
            connected = _connect(self._directory)
            self._socket.close()
            self._socket = connected
            for number, connection in self._kept.items():
                if (fd := connection.fileno()) >= 0:
                    self._say(f"keep {number}", (fd,))
            return self._say(request, fds)

    def _say(self, request: str, fds: tuple[int, ...]) -> list[int]:
        socket.send_fds(self._socket, [request.encode()], fds)
        answer, found, _flags, _address = socket.recv_fds(self._socket, 1, 1)
        if not answer:
            raise ConnectionResetError("the process that holds monitors has ended")
        return found


def _connect(directory: Path) -> socket.socket:
    """A connection to the process, which is started if there is none."""
    directory.mkdir(mode=0o700, exist_ok=True)
    # A short name, as a socket's has 107 bytes.
    fd = os.open(directory, os.O_PATH | os.O_CLOEXEC)
    with named_by(fd) as place, _locked(directory):
        path = f"{place}/{_SOCKET}"
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            try:
                sock.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                (directory / _SOCKET).unlink(missing_ok=True)
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
                    listening.bind(path)
                    listening.listen()
                    sock.connect(path)
                    # The new one takes no lock that another thread of this one may hold.
                    if not (child := os.fork()):
                        try:
                            # Nobody of these waits for its end.
                            if not os.fork():
                                _run(listening, directory)
                        finally:
                            os._exit(0)
                    # Where nobody is told of the ends of children, the kernel sees to that.
                    with suppress(ChildProcessError):
                        os.waitpid(child, 0)
        except BaseException:
            sock.close()
            raise
    return sock


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Nobody else connects, and the process does not end."""
    with (directory / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(listening: socket.socket, directory: Path) -> None:
    """Hold what is given, in the forked process."""
    os.setsid()
    # Nothing of the other one's stays open.
    own = listening.fileno()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    os.closerange(3, own)
    os.closerange(own + 1, os.sysconf("SC_OPEN_MAX"))
    held: dict[int, int] = {}
    clients: dict[int, socket.socket] = {}
    poll = select.poll()
    poll.register(own, select.POLLIN)
    while True:
        # One at a time: what it closes may be what the next one is about.
        fd, _event = poll.poll()[0]
        if fd == own:
            client, _address = listening.accept()
            clients[client.fileno()] = client
            poll.register(client, select.POLLIN)
        elif fd not in clients:
            # Its other end has been closed.
            _drop(held, next(number for number, each in held.items() if each == fd), poll)
        elif not _answer(clients[fd], held, poll):
            poll.unregister(fd)
            clients.pop(fd).close()
        if not held and not clients:
            with _locked(directory):
                # Who has connected meanwhile is waited for.
                if not poll.poll(0):
                    (directory / _SOCKET).unlink()
                    return


def _answer(client: socket.socket, held: dict[int, int], poll: select.poll) -> bool:
    """Do what a client asks for; False where it has left."""
    try:
        data, fds, _flags, _address = socket.recv_fds(client, 64, 1)
        if not data:
            return False
        word, _, text = data.decode().partition(" ")
        number = int(text)
        if word != "take":
            _drop(held, number, poll)
        if word == "keep":
            (held[number],) = fds
            poll.register(held[number], 0)
        found = [held[number]] if word == "take" and number in held else []
        socket.send_fds(client, [b"."], found)
    except (OSError, ValueError):
        return False
    return True


def _drop(held: dict[int, int], number: int, poll: select.poll) -> None:
    fd = held.pop(number, -1)
    if fd >= 0:
        poll.unregister(fd)
        os.close(fd)
