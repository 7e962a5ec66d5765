"""Messages between the daemon and a process that serves: JSON, one a line."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]

_READ = 256 << 10


class Channel:
    """An end of a socket pair, on the running event loop.

    Args:
        sock: it is owned by this.
        on_message: told each message.
        on_end: told once that the other end is gone, or says what is no message.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[Message], None],
        on_end: Callable[[], None],
    ) -> None:
        self._socket = sock
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        # What is to be sent.
        self._out = bytearray()
        self._open = True
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, message: Message) -> None:
        """Send a message. Nothing where nobody is there."""
        if self._open:
            waits = bool(self._out)
            self._out += json.dumps(message).encode() + b"\n"
            if not waits:
                self._writable()

    def close(self) -> None:
        """Leave; what is not sent yet is not."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_READ)
            if not data:
                raise ConnectionResetError("the other end is gone")
            *lines, rest = data.split(b"\n")
            for line in lines:
                self._parts.append(line)
                message = json.loads(b"".join(self._parts))
                self._parts.clear()
                self._on_message(message)
            if rest:
                self._parts.append(rest)
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, ValueError):
            if self._open:
                self.close()
                self._on_end()

    def _writable(self) -> None:
        try:
            del self._out[: self._socket.send(self._out)]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            # What there is to read says that the other end is gone.
            self._out.clear()
        if self._out:
            self._loop.add_writer(self._socket.fileno(), self._writable)
        else:
            self._loop.remove_writer(self._socket.fileno())
