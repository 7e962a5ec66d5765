"""The qtest protocol, as far as a test harness speaks it without a machine.

Lines of words in ASCII: QEMU's own harness asks for the endianness, and begins
its work when it is told. What acts on devices, memory or interrupts is unknown
here. Texts and the log's form were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
import time
from collections.abc import Callable

from memd.hostmem.sockets import close_socket, receive
from memd.hostmem.writer import LineWriter
from memd.places import Places
from memd.server.peer import user_of
from memd.server.stream import SocketStream

_PATIENCE = 0.5
"""Seconds that the end waits for what is not in the log yet."""

LINE_LIMIT = 65536
"""Bytes of a line that has not ended, beyond which its client is disconnected."""


def answer(line: bytes) -> bytes:
    """The answer to a line, both without the line's end."""
    word = line.split(b"\0", 1)[0].split(b" ", 1)[0]
    if word == b"endianness":
        return b"OK " + sys.byteorder.encode()
    return b"FAIL Unknown command '" + word + b"'"


class QTestLog:
    """A log of what was said, and when (`-qtest-log`).

    Args:
        path: the file, which is made anew; None for no log.

    Raises:
        OSError: it can't be.
    """

    def __init__(self, path: str | None) -> None:
        self._fd = -1
        self._lines: LineWriter | None = None
        if path is not None:
            from memd.hostmem.paths import open_own

            self._fd = open_own(os.fsencode(path), os.O_WRONLY | os.O_CLOEXEC, 0o666)
            if stat.S_ISREG(os.fstat(self._fd).st_mode):
                os.ftruncate(self._fd, 0)
            self._lines = LineWriter(self._fd, b"lines are lost")
        self._opened = 0.0

    def opened(self) -> None:
        """A client has come; the log's times count from here."""
        self._opened = time.monotonic()
        if self._lines is not None:
            self._lines.write(b"[I 0.000000] OPENED\n")

    def write(self, what: bytes, text: bytes) -> None:
        """Note that something was received ("R"), sent ("S") or happened ("I")."""
        if self._lines is not None:
            passed = f"{time.monotonic() - self._opened:.6f}".encode()
            self._lines.write(b"[" + what + b" +" + passed + b"] " + text + b"\n")

    def close(self) -> None:
        """Close the file once all is written; one that blocks is closed when the process ends."""
        if self._lines is not None and self._lines.flush(_PATIENCE):
            # Brings in ctypes, which a start need not pay for.
            from memd.hostmem.closing import close

            close(self._fd)
        self._lines = None


class QTestConnection:
    """A harness that is connected.

    Args:
        sock: the connected socket, which is owned from here on.
        on_lost: told when the harness is gone.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        log: QTestLog,
        on_lost: Callable[[QTestConnection], None],
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._stream = SocketStream(sock)
        self._log = log
        self._on_lost = on_lost
        self._closed = False
        self._buffer = b""
        log.opened()
        loop.add_reader(self._stream.read_fd, self._on_readable)

    def _on_readable(self) -> None:
        try:
            data = receive(self._socket, LINE_LIMIT)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        out = []
        for line in lines:
            said = answer(line)
            self._log.write(b"R", line)
            self._log.write(b"S", said)
            out.append(said + b"\n")
        if len(self._buffer) > LINE_LIMIT or not self._send(b"".join(out)):
            self.close()

    def _send(self, data: bytes) -> bool:
        """Whether all was sent: answers are short, and a harness waits for each."""
        try:
            return self._stream.send(data, ()) == len(data)
        except OSError:
            return False

    def close(self) -> None:
        """Disconnect the harness."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._stream.read_fd)
        self._stream.close()
        self._log.write(b"I", b"CLOSED")
        self._on_lost(self)


class QTest:
    """The qtest protocol's side of the daemon: its log and who is connected.

    Args:
        places: for connections; each takes one of its user's.
        on_change: told whether anybody is connected.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        log: QTestLog,
        places: Places,
        on_change: Callable[[bool], None] = lambda _connected: None,
    ) -> None:
        self._loop = loop
        self._log = log
        self._on_change = on_change
        self._places = places
        # Each with its user.
        self._connections: dict[QTestConnection, int] = {}

    def adopt(self, sock: socket.socket) -> None:
        """Serve a harness that is connected, or disconnect it where its user has too many."""
        user = user_of(sock)
        if not self._places.has_free_place(user):
            close_socket(sock)
            return
        self._places.take(user)
        self._connections[QTestConnection(self._loop, sock, self._log, self._lost)] = user
        self._on_change(True)

    def _lost(self, connection: QTestConnection) -> None:
        self._places.give_back(self._connections.pop(connection))
        self._on_change(bool(self._connections))

    def cut(self) -> None:
        """Disconnect every harness."""
        for connection in tuple(self._connections):
            connection.close()

    def close(self) -> None:
        """Disconnect every harness, and end the log."""
        self.cut()
        self._log.close()
