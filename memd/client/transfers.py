"""Reading and writing memory through a connection, by commands that the client sends.

Where the connection carries descriptors, what is long goes through a window: a memfd
of this process that goes along with the command, and is sealed against shrinking.
"""

from __future__ import annotations

import base64
import fcntl
import os
import socket
from collections.abc import Awaitable, Callable, Iterator

from memd.errors import NO_DESCRIPTOR, QMPError
from memd.json_types import JSON

CHUNK = 16 << 20
"""Bytes that x-memdev-read and x-memdev-write take at once."""

READ_CHUNK = 4 << 20
"""Bytes that are asked for at once: they stay in a processor's cache."""

LEAST = 256 << 10
"""Bytes from which on a window is worth its making."""

Data = bytes | bytearray | memoryview

Execute = Callable[[str, dict[str, JSON], tuple[int, ...]], Awaitable[JSON]]
"""Executes a command with these arguments, sending these descriptors along."""


class Transfers:
    """Those of one connection, one at a time.

    Args:
        sock: the connection.
        execute: sends a command through it; raises `QMPError`.
    """

    def __init__(self, sock: socket.socket, execute: Execute) -> None:
        self._execute = execute
        self._carries = sock.family == socket.AF_UNIX
        # The window's descriptor, or -1, and what is read from it.
        self._window = -1
        self._buffer = bytearray()

    def close(self) -> None:
        """Close the window."""
        if self._window >= 0:
            os.close(self._window)
            self._window = -1

    async def read(self, id: str, offset: int, length: int, take: Callable[[Data], object]) -> None:
        """Read; `take` is called with each piece, which is good until it returns."""
        for at, size in _pieces(offset, length, READ_CHUNK):
            arguments: dict[str, JSON] = {"id": id, "offset": at, "length": size}
            if self._passes(size):
                try:
                    wanted = {**arguments, "descriptor": True}
                    await self._execute("x-memdev-read", wanted, (self._window,))
                except QMPError as refused:
                    self._expect_none(refused)
                else:
                    self._buffer = self._buffer or bytearray(READ_CHUNK)
                    with memoryview(self._buffer)[:size] as piece:
                        os.preadv(self._window, [piece], 0)
                        take(piece)
                    continue
            value = await self._execute("x-memdev-read", arguments, ())
            take(base64.b64decode(value["data"]))

    async def write(self, id: str, offset: int, data: Data) -> None:
        """Write."""
        with memoryview(data).cast("B") as view:
            for at, size in _pieces(offset, len(view), CHUNK):
                arguments: dict[str, JSON] = {"id": id, "offset": at}
                part = view[at - offset : at - offset + size]
                if self._passes(size):
                    os.pwrite(self._window, part, 0)
                    try:
                        passed = {**arguments, "length": size}
                        await self._execute("x-memdev-write", passed, (self._window,))
                    except QMPError as refused:
                        self._expect_none(refused)
                    else:
                        continue
                text = base64.b64encode(part).decode("ascii")
                await self._execute("x-memdev-write", {**arguments, "data": text}, ())

    def _passes(self, size: int) -> bool:
        """Whether so many bytes go through the window, which is there then."""
        if size < LEAST or not self._carries:
            return False
        if self._window < 0:
            try:
                flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
                self._window = os.memfd_create("memd-window", flags)
                os.ftruncate(self._window, CHUNK)
                fcntl.fcntl(self._window, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
            except OSError:
                # No descriptor is to be had, or no memfd.
                self._carries = False
        return self._carries

    def _expect_none(self, refused: QMPError) -> None:
        """Go on without windows, if no descriptor came to the server.

        Something in between may pass none on, such as ssh(1) forwarding a socket.
        """
        if refused.desc != NO_DESCRIPTOR:
            raise refused
        self._carries = False
        self.close()


def _pieces(offset: int, length: int, most: int) -> Iterator[tuple[int, int]]:
    """A range in pieces of so many bytes at most, one at least: offsets and lengths."""
    for at in range(0, max(length, 1), most):
        yield offset + at, min(most, length - at)
