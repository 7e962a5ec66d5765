"""Messages and descriptors between the daemon and a process that serves: JSON, one a line."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from memd.client.sockets import receive

Message = dict[str, Any]


class Channel:
    """An end of a socket pair, on the running event loop.

    Args:
        sock: it is owned by this.
        on_message: told each message, and the descriptors that came with it, which it owns.
        on_end: told once that the other end is gone, or says what is no message.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_message: Callable[[Message, list[int]], None],
        on_end: Callable[[], None],
    ) -> None:
        self._socket = sock
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._fds: deque[int] = deque()
        # What is to be sent, and the descriptors that go with its first byte.
        self._out: deque[tuple[bytes, list[int]]] = deque()
        self._open = True
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send a message; copies of the descriptors go with it. Nothing where nobody is there."""
        if not self._open:
            return
        line = json.dumps({**message, "fds": len(fds)} if fds else message).encode() + b"\n"
        self._out.append((line, [os.dup(fd) for fd in fds]))
        if len(self._out) == 1:
            self._writable()

    def close(self) -> None:
        """Leave; what is not sent yet is not."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._socket.fileno())
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            for fd in self._fds:
                os.close(fd)
            for _line, fds in self._out:
                for fd in fds:
                    os.close(fd)
            self._out.clear()

    def _readable(self) -> None:
        try:
            data, fds = receive(self._socket)
            self._fds.extend(fds)
            *lines, rest = data.split(b"\n")
            for line in lines:
                self._parts.append(line)
                message = json.loads(b"".join(self._parts))
                self._parts.clear()
                count = message.pop("fds", 0)
                self._on_message(message, [self._fds.popleft() for _ in range(count)])
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
            while self._out:
                line, fds = self._out[0]
                if fds:
                    sent = socket.send_fds(self._socket, [line], fds)
                    for fd in fds:
                        os.close(fd)
                else:
                    sent = self._socket.send(line)
                if sent == len(line):
                    self._out.popleft()
                else:
                    self._out[0] = (line[sent:], [])
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._socket.fileno(), self._writable)
        except OSError:
            # What there is to read says that the other end is gone.
            self._loop.remove_writer(self._socket.fileno())
        else:
            self._loop.remove_writer(self._socket.fileno())
