from __future__ import annotations

import os
import socket

import pytest

from memd.client.sockets import make, receive


def test_addresses() -> None:
    for address in ("/a/b", b"/a/b"):
        sock, where = make(address)
        assert (sock.family, where) == (socket.AF_UNIX, address)
        sock.close()
    sock, where = make(("127.0.0.1", 5))
    assert (sock.family, where) == (socket.AF_INET, ("127.0.0.1", 5))
    sock.close()


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
