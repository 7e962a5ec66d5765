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
from typing import TYPE_CHECKING

from memd.errors import NO_DESCRIPTOR, QMPError
from memd.json_types import JSON

if TYPE_CHECKING:
    from memd.hostmem.window import Window

CHUNK = 16 << 20
"""Bytes that x-memdev-read and x-memdev-write take at once."""

PIECE = 8 << 20
"""Bytes that are read, or made to be written, at once: they stay in a processor's cache."""

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
        # The window's descriptor, or -1, and a mapping of its first `PIECE` bytes.
        self._window = -1
        self._mapped: Window | None = None

    def close(self) -> None:
        """Close the window."""
        if self._window >= 0:
            os.close(self._window)
            self._window = -1
        if self._mapped is not None:
            self._mapped.close()
            self._mapped = None

    async def read(self, id: str, offset: int, length: int, take: Callable[[Data], object]) -> None:
        """Read; `take` is called with each piece, which is good until it returns."""
        for at, size in _pieces(offset, length, PIECE):
            arguments: dict[str, JSON] = {"id": id, "offset": at, "length": size}
            if self._passes(size) and self._mapped is not None:
                try:
                    wanted = {**arguments, "descriptor": True}
                    await self._execute("x-memdev-read", wanted, (self._window,))
                except QMPError as refused:
                    self._expect_none(refused)
                else:
                    with self._mapped.view[:size] as piece:
                        take(piece)
                    continue
            value = await self._execute("x-memdev-read", arguments, ())
            take(base64.b64decode(value["data"]))

    async def write(self, id: str, offset: int, data: Data) -> None:
        """Write."""
        with memoryview(data).cast("B") as view:
            for at, size in _pieces(offset, len(view), CHUNK):
                part = view[at - offset : at - offset + size]
                if self._passes(size):
                    os.pwrite(self._window, part, 0)
                await self._write(id, at, part)

    async def write_each(self, id: str, offset: int, fill: Callable[[memoryview], int]) -> int:
        """Write what `fill` puts at the beginning of the buffer that it is given.

        Args:
            fill: says how many bytes these are; it is called again until they are none.

        Returns:
            How many bytes were written.
        """
        written = 0
        mapped = self._mapped if self._passes(PIECE) else None
        with memoryview(bytearray(PIECE)) if mapped is None else mapped.view[:] as buffer:
            # Nothing to write is written, too: memory that can't be written says so.
            while (count := fill(buffer)) or not written:
                with buffer[:count] as part:
                    await self._write(id, offset + written, part)
                written += count
                if not count:
                    break
        return written

    async def _write(self, id: str, offset: int, part: memoryview) -> None:
        """Write what the window begins with, too, if it passes through it."""
        size = len(part)
        if self._passes(size):
            passed: dict[str, JSON] = {"id": id, "offset": offset, "length": size}
            try:
                await self._execute("x-memdev-write", passed, (self._window,))
            except QMPError as refused:
                self._expect_none(refused)
            else:
                return
        text = base64.b64encode(part).decode("ascii")
        await self._execute("x-memdev-write", {"id": id, "offset": offset, "data": text}, ())

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
                from memd.hostmem.window import Window

                self._mapped = Window(self._window, PIECE, writable=True)
            except OSError:
                # No descriptor is available, or no memfd.
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
