"""Connections that have ended before their descriptors were read."""

from __future__ import annotations

import asyncio
import os
import socket

from memd.places import Places
from memd.server.stream import SocketStream
from memd.server.unread import Unread


async def test_the_end_that_is_kept_is_counted_too() -> None:
    places = Places(10, apart=())
    unread = Unread(asyncio.get_running_loop(), places)
    here, there = socket.socketpair()
    with open(os.devnull) as file, there:
        stream = SocketStream(here)
        stream.send(b"x", (file.fileno(),))
        places.take(1000)
        unread.keep(stream, 1000, 1)
        unread.look()
        assert places.of(1000) == 2
        _data, fds, _flags, _address = socket.recv_fds(there, 1, 1)
        os.close(*fds)
        unread.look()
        assert (places.of(1000), here.fileno()) == (0, -1)
    unread.close()
