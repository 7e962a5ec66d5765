"""A client's connection: bytes from a stream to its session, and back.

One read and, as a rule, one write per wake-up: answers gather while the
session works through what was read, and leave together.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from memd.server.stream import Stream, is_pollable
from memd.session import Session

HIGH_WATER = 4 * 1024 * 1024
"""Bytes held for a client that does not read before its commands wait in the
socket. Some 100,000 empty answers: QEMU holds any number, and clients that
send 20,000 commands before they read were seen to rely on it."""

LOW_WATER = HIGH_WATER // 4
"""Bytes held below which its commands are taken again."""

HELD_LIMIT = 64 * 1024 * 1024
"""Bytes held, by events that nobody reads, beyond which the client is
disconnected; the others never notice. Above the high water mark and the
largest single answer (16 MiB of memory, in base64) together."""


class Connection:
    """The `Transport` of a session, on a stream and the event loop."""

    __slots__ = (
        "_corked",
        "_finishing",
        "_held",
        "_loop",
        "_on_lost",
        "_out",
        "_pausing",
        "_pollable",
        "_reading",
        "_stream",
        "_writing",
        "full",
        "session",
    )

    session: Session

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stream: Stream,
        on_lost: Callable[[Connection], None],
    ) -> None:
        self._loop = loop
        self._stream: Stream | None = stream
        self._on_lost = on_lost
        # Bytes not yet sent; descriptors ride on the first byte of their chunk.
        self._out: list[tuple[bytes | memoryview, tuple[int, ...]]] = []
        self._held = 0
        self._corked = False
        self._pausing = False
        self.full = False
        self._reading = False
        self._writing = False
        self._finishing = False
        self._pollable = is_pollable(stream.read_fd)

    def start(self) -> None:
        """Begin to read; the session must be set."""
        self._update_reading()

    # Transport

    def write(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        """See `Transport`."""
        if self._stream is None:
            _close_all(fds)
            return
        self._out.append((data, fds))
        self._held += len(data)
        if not self._corked or self._held > HIGH_WATER:
            self._flush()

    def pause_reading(self) -> None:
        """See `Transport`."""
        self._pausing = True
        self._update_reading()

    def resume_reading(self) -> None:
        """See `Transport`."""
        self._pausing = False
        self._update_reading()

    def finish(self) -> None:
        """See `Transport`."""
        self._finishing = True
        self._update_reading()
        if not self._corked:
            self._flush()

    def peer_gone(self) -> bool:
        """See `Transport`."""
        return self._stream is None or self._stream.hung_up()

    # The loop's side

    def _on_readable(self) -> None:
        if self._stream is None:
            return
        try:
            data, fds = self._stream.receive()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if fds:
            self.session.receive_fds(fds)
        if data:
            self._gathered(lambda: self.session.receive(data))
        else:
            self.pause_reading()
            self._gathered(self.session.receive_eof)
        if self._reading and not self._pollable:
            self._loop.call_soon(self._on_readable)

    def _gathered(self, work: Callable[[], None]) -> None:
        """Do `work` and let what it writes leave in one go."""
        self._corked = True
        try:
            work()
        finally:
            self._corked = False
            self._flush()

    def _flush(self) -> None:
        out = self._out
        try:
            while out and self._stream is not None:
                data, fds = out[0]
                if not fds and len(out) > 1:
                    data = _join_plain(out)
                sent = self._stream.send(data, fds)
                self._held -= sent
                _close_all(fds)
                if sent < len(data):
                    # Not a copy: 16 MiB of memory leave in a hundred pieces.
                    out[0] = (memoryview(data)[sent:], ())
                    break
                del out[0]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self.close()
            return
        if self._stream is not None:
            self._after_flush()

    def _after_flush(self) -> None:
        stream = self._stream
        if stream is None:
            return
        waiting = bool(self._out)
        if waiting != self._writing:
            self._writing = waiting
            if waiting:
                self._loop.add_writer(stream.write_fd, self._flush)
            else:
                self._loop.remove_writer(stream.write_fd)
        if self._held > HELD_LIMIT or (self._finishing and not waiting):
            self.close()
        elif self._held > HIGH_WATER and not self.full:
            self.full = True
            self._update_reading()
        elif self.full and self._held < LOW_WATER:
            self.full = False
            self._update_reading()
            self._loop.call_soon(self._gathered, self.session.resume)

    def _update_reading(self) -> None:
        stream = self._stream
        wanted = not (self._pausing or self.full or self._finishing)
        if stream is None or wanted == self._reading:
            return
        self._reading = wanted
        if not self._pollable:
            if wanted:
                self._loop.call_soon(self._on_readable)
        elif wanted:
            self._loop.add_reader(stream.read_fd, self._on_readable)
        else:
            self._loop.remove_reader(stream.read_fd)

    def close(self) -> None:
        """Close at once; what was not sent is lost, its descriptors are closed."""
        stream = self._stream
        if stream is None:
            return
        self._stream = None
        if self._reading and self._pollable:
            self._loop.remove_reader(stream.read_fd)
        if self._writing:
            self._loop.remove_writer(stream.write_fd)
        for _data, fds in self._out:
            _close_all(fds)
        self._out.clear()
        self.session.lost()
        stream.close()
        self._on_lost(self)


def _join_plain(out: list[tuple[bytes | memoryview, tuple[int, ...]]]) -> bytes:
    """Make one chunk of the leading chunks that carry no descriptors; returns it."""
    count = 0
    for _data, fds in out:
        if fds:
            break
        count += 1
    data = b"".join([chunk for chunk, _fds in out[:count]])
    out[:count] = [(data, ())]
    return data


def _close_all(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)
