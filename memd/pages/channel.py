"""Messages between the daemon and a process that serves: JSON, one a line."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]


class Channel(asyncio.Protocol):
    """An end of a socket pair, once `open` was called.

    Args:
        on_message: told each message.
        on_end: told once that the other end is gone, or says what is not a message.
    """

    def __init__(self, on_message: Callable[[Message], None], on_end: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_end = on_end
        # The beginning of a message whose end is yet to come.
        self._parts: list[bytes] = []
        self._transport: asyncio.Transport | None = None

    async def open(self, sock: socket.socket) -> None:
        """Begin, on the running event loop, with a socket that is owned by this."""
        await asyncio.get_running_loop().create_connection(lambda: self, sock=sock)

    def send(self, message: Message) -> None:
        """Send a message. Nothing where nobody is there."""
        if self._transport is not None:
            self._transport.write(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        """Leave; what is not sent yet is not."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        try:
            for line in lines:
                message = json.loads(b"".join((*self._parts, line)))
                self._parts.clear()
                self._on_message(message)
        except ValueError:
            self._end()
        if rest:
            self._parts.append(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        if self._transport is not None:
            self.close()
            self._on_end()
