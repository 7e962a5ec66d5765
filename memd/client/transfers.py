"""Reading and writing memory through a connection, by commands that the client sends.

Where the connection carries descriptors, what is long goes through a window: a memfd
of this process that goes along with the command, and is sealed against shrinking. What
takes several commands goes through two in turn: the server works on one of them while
this process works on the other.
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

PIECE = 4 << 20
"""Bytes that are read, or made to be written, at once: two of them stay in a processor's cache."""

LEAST = 256 << 10
"""Bytes from which on a window is worth its making."""

Data = bytes | bytearray | memoryview

Begin = Callable[[str, dict[str, JSON], tuple[int, ...]], Awaitable[JSON]]
"""Sends a command with these arguments and descriptors, at the latest when what it gives
is awaited: the command's value."""

Begun = tuple[dict[str, JSON], Data, "Window | None", Awaitable[JSON]]
"""A command under way: its arguments; the bytes, if they are to be written; what it goes
through; its value."""


class Window:
    """A memfd that goes along with commands.

    Attributes:
        fd: its descriptor.

    Raises:
        OSError: no descriptor is available, or no memfd.
    """

    def __init__(self) -> None:
        from memd.hostmem.window import Window

        self.fd = os.memfd_create("memd-window", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, CHUNK)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
            self._mapped = Window(self.fd, PIECE, writable=True)
        except BaseException:
            os.close(self.fd)
            raise
        self._first = self._mapped.view[:0]

    def first(self, size: int) -> memoryview:
        """Its first so many bytes, `PIECE` at most, until it is asked again or closed."""
        self._first.release()
        self._first = self._mapped.view[:size]
        return self._first

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)
        self._first.release()
        self._mapped.close()


class Transfers:
    """Those of one connection, one at a time.

    Args:
        sock: the connection.
        begin: sends a command through it; its value raises `QMPError`.
    """

    def __init__(self, sock: socket.socket, begin: Begin) -> None:
        self._begin = begin
        self._carries = sock.family == socket.AF_UNIX
        self._windows: list[Window] = []

    def close(self) -> None:
        """Close the windows."""
        while self._windows:
            self._windows.pop().close()

    async def read(self, id: str, offset: int, length: int, take: Callable[[Data], object]) -> None:
        """Read; `take` is called with each piece, which is good until it returns."""
        ranges = _pieces(offset, length, PIECE)
        begun: Begun | None = self._begin_read(id, *next(ranges), 0)
        turn = 0
        while begun is not None:
            data = await self._end_read(*begun)
            turn = 1 - turn
            following = next(ranges, None)
            begun = None if following is None else self._begin_read(id, *following, turn)
            take(data)

    async def write(self, id: str, offset: int, data: Data) -> None:
        """Write."""
        with memoryview(data).cast("B") as view:
            for at, size in _pieces(offset, len(view), CHUNK):
                part = view[at - offset : at - offset + size]
                if window := self._window(size, 0):
                    os.pwrite(window.fd, part, 0)
                await self._end_write(*self._begin_write(id, at, part, window))

    async def write_each(self, id: str, offset: int, fill: Callable[[memoryview], int]) -> int:
        """Write what `fill` puts at the beginning of the buffer that it is given.

        Args:
            fill: says how many bytes these are; it is called again until they are none,
                while what it gave before is being written.

        Returns:
            How many bytes were written.
        """
        written, turn = 0, 0
        begun: Begun | None = None
        while True:
            window = self._window(PIECE, turn)
            if window is None:
                buffer = memoryview(bytearray(PIECE))
                part = buffer[: fill(buffer)]
            else:
                part = window.first(fill(window.first(PIECE)))
            if begun is not None:
                await self._end_write(*begun)
                if not part:
                    return written
            passes = window if len(part) >= LEAST and self._carries else None
            begun = self._begin_write(id, offset + written, part, passes)
            if not part:
                # Nothing to write is written, too: memory that can't be written says so.
                await self._end_write(*begun)
                return 0
            written, turn = written + len(part), 1 - turn

    def _begin_read(self, id: str, offset: int, size: int, turn: int) -> Begun:
        arguments: dict[str, JSON] = {"id": id, "offset": offset, "length": size}
        if (window := self._window(size, turn)) is None:
            return arguments, b"", None, self._begin("x-memdev-read", arguments, ())
        wanted = {**arguments, "descriptor": True}
        return arguments, b"", window, self._begin("x-memdev-read", wanted, (window.fd,))

    async def _end_read(
        self, arguments: dict[str, JSON], _data: Data, window: Window | None, value: Awaitable[JSON]
    ) -> Data:
        if window is not None:
            try:
                await value
            except QMPError as refused:
                self._expect_none(refused)
                value = self._begin("x-memdev-read", arguments, ())
            else:
                return window.first(arguments["length"])
        return base64.b64decode((await value)["data"])

    def _begin_write(self, id: str, offset: int, part: Data, window: Window | None) -> Begun:
        """Write what the window begins with, if there is one."""
        arguments: dict[str, JSON] = {"id": id, "offset": offset}
        if window is None:
            return arguments, part, None, self._begin_write_text(arguments, part)
        passed = {**arguments, "length": len(part)}
        return arguments, part, window, self._begin("x-memdev-write", passed, (window.fd,))

    async def _end_write(
        self, arguments: dict[str, JSON], part: Data, window: Window | None, value: Awaitable[JSON]
    ) -> None:
        try:
            await value
        except QMPError as refused:
            if window is None:
                raise
            self._expect_none(refused)
            await self._begin_write_text(arguments, part)

    def _begin_write_text(self, arguments: dict[str, JSON], part: Data) -> Awaitable[JSON]:
        text = base64.b64encode(part).decode("ascii")
        return self._begin("x-memdev-write", {**arguments, "data": text}, ())

    def _window(self, size: int, turn: int) -> Window | None:
        """The window that so many bytes go through, if they do; `turn` says which of the two."""
        if not self._carries:
            self.close()
            return None
        if size < LEAST:
            return None
        if len(self._windows) == turn:
            try:
                self._windows.append(Window())
            except OSError:
                self._carries = False
                return None
        return self._windows[turn]

    def _expect_none(self, refused: QMPError) -> None:
        """Go on without windows, if no descriptor came to the server.

        Something in between may pass none on, such as ssh(1) forwarding a socket.
        """
        if refused.desc != NO_DESCRIPTOR:
            raise refused
        self._carries = False


def _pieces(offset: int, length: int, most: int) -> Iterator[tuple[int, int]]:
    """A range in pieces of so many bytes at most, one at least: offsets and lengths."""
    for at in range(0, max(length, 1), most):
        yield offset + at, min(most, length - at)
