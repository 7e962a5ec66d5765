from __future__ import annotations

import os
import resource
import socket

import pytest

from memd.client.sockets import LOST, candidates, connect, receive
from tests.differential.kernel import descriptors


def test_addresses() -> None:
    for address in ("/a/b", b"/a/b"):
        assert candidates(address) == [(socket.AF_UNIX, socket.SOCK_STREAM, 0, address)]
    ((family, _kind, _number, where),) = candidates(("127.0.0.1", 5))
    assert (family, where) == (socket.AF_INET, ("127.0.0.1", 5))


def test_each_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        answer = [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))
            for host in ("127.0.0.2", "127.0.0.1")
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **how: answer)
        with connect(("memd.example", port), 60) as sock:
            assert sock.getpeername() == ("127.0.0.1", port)
        answer.pop()
        with pytest.raises(ConnectionRefusedError):
            connect(("memd.example", port), 60)


def test_bytes_and_descriptors() -> None:
    ours, theirs = socket.socketpair()
    with ours, open("/dev/null") as null:
        with theirs:
            socket.send_fds(theirs, [b"x"], [null.fileno()] * 2)
            data, fds = receive(ours)
            assert (data, len(fds)) == (b"x", 2)
            for fd in fds:
                assert not os.get_inheritable(fd)
                os.close(fd)
        with pytest.raises(ConnectionError):
            receive(ours)


def test_descriptors_that_find_no_room() -> None:
    """Of what came in part nothing is kept."""
    ours, theirs = socket.socketpair()
    with ours, theirs, open("/dev/null") as null:
        socket.send_fds(theirs, [b"x"], [null.fileno()] * 3)
        before = descriptors(os.getpid())
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limit[1]))
        try:
            found = receive(ours)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        assert found == (b"x", [LOST])
        assert descriptors(os.getpid()) <= before
