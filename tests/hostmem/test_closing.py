"""Closing of descriptors whose close(2) may wait."""

from __future__ import annotations

import socket
import threading

from memd.hostmem.closing import close
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
