"""Channels that listen."""

from __future__ import annotations

import contextlib
import resource
import socket

from memd.standin.channels import Channel
from memd.work import Completion


async def test_a_listener_goes_on_where_there_is_no_descriptor_for_a_client() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    channel = Channel("socket", [listener.detach()], listening=[{}])
    client = socket.create_connection(address)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        stack.callback(client.close)
        stack.callback(channel.close)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            assert channel.accept() is None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        # Not at once, though the client is still there.
        waiting = channel.ready()
        wait = waiting.send(None)
        assert isinstance(wait, Completion)
        with contextlib.closing(waiting):
            come = channel.accept()
        assert come is not None
        come.close()
