"""Many clients of one bad kind: `python -m tests.faults.crowd KIND SOCKET COUNT`.

Prints a line once all are connected, and goes on being bad until it is killed.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections.abc import Callable, Iterable

NEGOTIATE = b'{"execute":"qmp_capabilities"}'
MESSAGE = 60 << 20
"""Bytes that a message without an end has here."""


def connect(path: str, count: int, greeting: bytes = NEGOTIATE) -> list[socket.socket]:
    """So many clients that send something and then do not wait."""
    clients = []
    for _ in range(count):
        client = socket.socket(socket.AF_UNIX)
        client.connect(path)
        client.sendall(greeting)
        client.setblocking(False)
        clients.append(client)
    return clients


def ready() -> None:
    """Tell the process that started this."""
    print("ready", flush=True)


def rest(_clients: Iterable[socket.socket]) -> None:
    """Do nothing more."""
    ready()
    time.sleep(3600)


def pour(clients: list[socket.socket], data: bytes, most: int) -> None:
    """Send the same again and again, up to `most` bytes each, as fast as they are taken."""
    sent = dict.fromkeys(clients, 0)
    by_fd = {client.fileno(): client for client in clients}
    poll = select.epoll()
    for fd in by_fd:
        poll.register(fd, select.EPOLLOUT)
    ready()
    while by_fd:
        for fd, _events in poll.poll():
            client = by_fd[fd]
            try:
                sent[client] += client.send(data)
            except BlockingIOError:
                continue
            except OSError:
                sent[client] = most
            if sent[client] >= most:
                poll.unregister(fd)
                del by_fd[fd]
    rest(clients)


def silent(path: str, count: int) -> None:
    """Connect and say nothing."""
    rest(connect(path, count, b""))


def deaf(path: str, count: int) -> None:
    """Ask for much, and never read."""
    pour(connect(path, count), b'{"execute":"query-qmp-schema"}' * 100, 1 << 20)


def slow(path: str, count: int) -> None:
    """Send a byte a second."""
    clients = connect(path, count)
    ready()
    for byte in b'{"execute": "query-status", "id": "' + b"x" * 3600:
        for client in clients:
            client.send(bytes([byte]))
        time.sleep(1)


def endless(path: str, count: int) -> None:
    """Send 60 MiB of a string without an end."""
    pour(connect(path, count, NEGOTIATE + b'{"a":"'), b"x" * 65536, MESSAGE)


def nested(path: str, count: int) -> None:
    """Send 60 MiB of a list without an end."""
    pour(connect(path, count, NEGOTIATE + b"["), b"[[],{}]," * 8192, MESSAGE)


def leave(path: str, count: int) -> None:
    """Leave in the middle of a message, of an answer, of a command that takes long."""
    ready()
    slow = (
        b'{"execute":"object-add","arguments":{"qom-type":"memory-backend-ram","id":"n%d",'
        b'"size":16777216,"prealloc":true}}{"execute":"object-del","arguments":{"id":"n%d"}}'
    )
    while True:
        for number in range(count):
            message = (
                b'{"execute":"query-commands","arg',
                b'{"execute":"query-qmp-schema"}' * 20,
                slow % (number, number),
            )[number % 3]
            (client,) = connect(path, 1, NEGOTIATE + message)
            client.close()


KINDS: dict[str, Callable[[str, int], None]] = {
    each.__name__: each for each in (silent, deaf, slow, endless, nested, leave)
}

if __name__ == "__main__":
    KINDS[sys.argv[1]](sys.argv[2], int(sys.argv[3]))
