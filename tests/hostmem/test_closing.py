"""Closing of descriptors whose close(2) may wait."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from memd.hostmem.closing import close
from memd.hostmem.sockets import close_listener, close_socket
from tests.descriptors import lingering


def test_one_users_sockets_keep_nobody_elses_descriptors_open() -> None:
    mine, theirs = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        sock = lingering(listening)
        peer, _address = listening.accept()
        close(sock.detach(), mine.set, user=1)
        # All of these are on the kernel's own file system of sockets.
        ours, other = socket.socketpair()
        close(ours.detach(), theirs.set, user=2)
        assert theirs.wait(30)
        assert not mine.is_set()
        # It is answered with a reset.
        peer.close()
    assert mine.wait(30)
    other.close()


@pytest.mark.parametrize("end", [close_listener, close_socket])
def test_a_listener_that_is_closed_goes_on_elsewhere(
    directory: Path, end: Callable[[socket.socket], None]
) -> None:
    """A service manager hands it to the next daemon; a launcher may give one as a connection."""
    path = str(directory / "socket")
    with socket.socket(socket.AF_UNIX) as kept, socket.socket(socket.AF_UNIX) as client:
        kept.bind(path)
        kept.listen()
        given = kept.dup()
        end(given)
        assert given.fileno() < 0
        client.connect(path)
        kept.accept()[0].close()
