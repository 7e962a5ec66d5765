"""A client's connection: bytes from a stream to its session, and back.

One read and, as a rule, one write per wake-up: answers gather while the
session works through what was read, and leave together.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from time import monotonic

from memd.named_tuple import NamedTuple
from memd.places import USER
from memd.server.limits import UNREAD_DESCRIPTORS, ConnectionBudget
from memd.server.state import NEXT, Phase, Transition
from memd.server.stream import MUCH, READ_SIZE, Stream, is_pollable
from memd.session import Session, Transport
from memd.work import Pieces, Start

log = logging.getLogger("memd")

# To look a member up in its class takes Python 3.11 ten times as long as to read a name.
_OPEN, _FINISHING = Phase.OPEN, Phase.FINISHING

HIGH_WATER = 4 * 1024 * 1024
"""Bytes held for a client that does not read before its commands wait in the
socket. Some 100,000 empty answers: QEMU holds any number, and clients that
send 20,000 commands before they read were seen to rely on it."""

CROWD = 8
"""Clients that wait for their turn, beyond which a client that sends much at once waits, too."""

BULK = 64 * 1024
"""Bytes of an unfinished message from which on the rest of it is read in turns."""

LOOK_PAUSE = 0.02
"""Seconds between checks whether a client has read its descriptors."""

PRESSED_WATER = 64 * 1024
"""`HIGH_WATER` once half of what may be held for all clients is held."""

JOINED = 256 * 1024
"""Bytes of short answers that leave in one write: as many as a socket takes."""

STALE = 1.0
"""Seconds between checks whether an answer in pieces has to wait for its reader."""


_Chunk = tuple[bytes | memoryview, tuple[int, ...]]
"""Bytes that are not sent yet, and descriptors that ride on the first of them."""


class _InPieces(NamedTuple):
    """The arguments of `write_pieces`."""

    pieces: Pieces
    tail: bytes
    start: Start
    done: Callable[[], None]


class Connection(Transport):
    """The `Transport` of a session, on a stream and the event loop."""

    __slots__ = (
        *("_accounted", "_behind", "_corked", "_descriptors", "_held", "_in_pieces", "_look"),
        *("_loop", "_making", "_mark", "_on_lost", "_out", "_pausing", "_phase", "_pollable"),
        *("_queued", "_reading", "_shared", "_stale", "_stream", "_turn_end", "_writing"),
        *("full", "session"),
    )

    session: Session

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stream: Stream,
        on_lost: Callable[[Connection], None],
        shared: ConnectionBudget,
    ) -> None:
        self._loop = loop
        self._stream: Stream | None = stream
        self._on_lost = on_lost
        self._shared = shared
        # Bytes that `shared` was last told are held for this client.
        self._accounted = 0
        self._turn_end = 0.0
        self._queued = False
        # Bytes not yet sent; descriptors ride on the first byte of their chunk.
        self._out: list[_Chunk] = []
        self._held = 0
        # An answer that is made as it is read, whether more of it is being made, what was
        # written since, and the timer that checks whether it has to wait.
        self._in_pieces: _InPieces | None = None
        self._making = False
        self._behind: list[_Chunk] = []
        self._stale: asyncio.TimerHandle | None = None
        # How many descriptors were written and may still be unread; the timer that checks
        # again, while commands wait for that.
        self._descriptors = 0
        self._look: asyncio.TimerHandle | None = None
        # Bytes of `_held` from which on `write` flushes although it is corked.
        self._mark = 0
        self._corked = False
        self._pausing = False
        self.full = False
        self._reading = False
        self._writing = False
        self._phase = _OPEN
        self._pollable = is_pollable(stream.read_fd)

    def fileno(self) -> int:
        """The descriptor that it writes to; -1 once it is closed."""
        return -1 if self._stream is None else self._stream.write_fd

    def start(self) -> None:
        """Begin to read; the session must be set."""
        self._update_reading()

    # Transport

    def write(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        if self._stream is None:
            _close_all(fds)
            return
        (self._out if self._in_pieces is None else self._behind).append((data, fds))
        self._held += len(data)
        if fds:
            self._descriptors += len(fds)
            self._shared.descriptors.take(self.session.user, len(fds))
        many = fds and self._descriptors >= UNREAD_DESCRIPTORS
        if not self._corked or self._held > self._mark or many:
            # What the socket does not take yet is not tried again for each event.
            self._after_flush() if self._writing else self._flush()

    def write_pieces(
        self, head: bytes, pieces: Pieces, tail: bytes, start: Start, done: Callable[[], None]
    ) -> None:
        self.write(head)
        if self._stream is None:
            pieces.close(start)
            return
        self._in_pieces = _InPieces(pieces, tail, start, done)
        self._stale = self._loop.call_later(STALE, self._check_pieces)
        self._flush()

    def pause_reading(self) -> None:
        self._pausing = True
        self._update_reading()

    def resume_reading(self) -> None:
        self._pausing = False
        self._update_reading()

    def finish(self) -> None:
        self._phase = NEXT[self._phase, Transition.FINISH]
        self._update_reading()
        if not self._corked:
            self._flush()

    def peer_gone(self) -> bool:
        return self._stream is None or self._stream.hung_up()

    def turn_over(self) -> bool:
        return monotonic() > self._turn_end

    def crowded(self) -> bool:
        return self._shared.turns.waiting > CROWD

    def resume_later(self) -> None:
        if not self._queued:
            self._queued = True
            self._update_reading()
            self._shared.turns.wait(self._take_turn)

    # The loop's side

    def _on_readable(self) -> None:
        # No more is unfinished than was counted as held after the last read.
        if self._accounted > BULK and self.session.unfinished > BULK:
            # The rest of a large message is read in turns with other clients.
            if self._shared.turns.claim():
                self._take_turn()
            else:
                self.resume_later()
        elif self._read() and self._reading and not self._pollable:
            self._loop.call_soon(self._on_readable)

    def _read(self, most: int = READ_SIZE) -> bool:
        """Read once, and pass it to the session; returns whether there may be more."""
        if self._stream is None:
            return False
        stream, user = self._stream, self.session.user
        if stream.passes_fds and not self._shared.takes_fds(user) and stream.brings_fds(most):
            self._shared.log.warn(
                "a client was disconnected: too many descriptors are open to receive any"
            )
            self.close()
            return False
        try:
            data, fds = stream.receive(most)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self.close()
            return False
        except MemoryError:
            # The client that most is held for is disconnected.
            self._shared.relieve(True)
            return False
        if fds:
            self.session.receive_fds(fds)
        if data:
            self._in_one_write(self.session.receive, data)
            return True
        self.pause_reading()
        self._in_one_write(self.session.receive_eof)
        return False

    def _in_one_write(self, work: Callable[..., None], *args: bytes) -> None:
        """Do `work` and let what it writes leave in one go."""
        self._corked = True
        self._turn_end = self._shared.turns.begin()
        self._mark = self._high_water()
        try:
            work(*args)
        except MemoryError:
            # Freeing what is held for it leaves memory for the others.
            log.warning("a client was disconnected: there is no memory for what it sent")
            self.session.cut_off("Cannot allocate memory")
        finally:
            self._corked = False
            self._flush()

    def _flush(self) -> None:
        out = self._out
        try:
            while out and self._stream is not None:
                data, fds = out[0]
                if not fds and len(out) > 1:
                    data = _join_short(out)
                sent = self._stream.send(data, fds)
                self._held -= sent
                _close_all(fds)
                if sent < len(data):
                    out[0] = (_rest(memoryview(data), sent), ())
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
        if not (waiting or self._making or self._in_pieces is None):
            self._making = True
            self._shared.turns.wait(self._make_piece)
        if waiting != self._writing:
            self._writing = waiting
            if waiting:
                self._loop.add_writer(stream.write_fd, self._flush)
            else:
                self._loop.remove_writer(stream.write_fd)
        held = self._held
        if held > self._shared.limits.held_output or (
            self._phase is _FINISHING and not waiting and self._in_pieces is None
        ):
            self.close()
            return
        self._account()
        if not (held or self.full or self._descriptors) or self._stream is None:
            return
        high = self._high_water()
        many = self._descriptors >= UNREAD_DESCRIPTORS and not self.descriptors_are_read()
        if many and self._look is None:
            self._look = self._loop.call_later(LOOK_PAUSE, self._look_again)
        if (held > high or many) and not self.full:
            self.full = True
            self._update_reading()
        elif self.full and not many and held < high // 4:
            self.full = False
            self._update_reading()
            self._loop.call_soon(self._resume)

    def _make_piece(self) -> None:
        if self._in_pieces is not None:
            self._in_pieces.pieces.next(self._in_pieces.start, self._take_piece)

    def _take_piece(self, piece: bytes, error: BaseException | None) -> None:
        self._making = False
        if self._in_pieces is None:
            return
        if error is not None:
            self._end_pieces_early(str(error))
        elif piece:
            self._out.append((piece, ()))
            self._held += len(piece)
            self._flush()
        else:
            tail, done = self._in_pieces.tail, self._in_pieces.done
            self._close_pieces()
            self._out += [(tail, ()), *self._behind]
            self._held += len(tail)
            self._behind = []
            self._in_one_write(done)

    def _check_pieces(self) -> None:
        if self._in_pieces is not None:
            if self._in_pieces.pieces.is_stale():
                self._end_pieces_early("what it reads is deleted")
            else:
                self._stale = self._loop.call_later(STALE, self._check_pieces)

    def _end_pieces_early(self, reason: str) -> None:
        log.warning("a client was disconnected in the middle of an answer: %s", reason)
        self.close()

    def _close_pieces(self) -> None:
        in_pieces, self._in_pieces = self._in_pieces, None
        if in_pieces is not None:
            in_pieces.pieces.close(in_pieces.start)
        if self._stale is not None:
            self._stale.cancel()

    def _look_again(self) -> None:
        self._look = None
        self._after_flush()

    def descriptors_are_read(self) -> bool:
        """Whether no descriptor is on its way to the client; if so, none is counted any more."""
        if self._descriptors and self._stream is not None:
            if any(fds for _data, fds in self._out + self._behind) or self._stream.unread():
                return False
            self._shared.descriptors.give_back(self.session.user, self._descriptors)
            self._descriptors = 0
        return True

    def _high_water(self) -> int:
        shared = self._shared
        if shared.held > shared.limits.held // 2:
            return PRESSED_WATER
        return min(HIGH_WATER, shared.limits.held_output // 2)

    def _account(self) -> None:
        """Tell what is held for this client now."""
        held = self._held + self.session.held
        if held != self._accounted:
            more, self._accounted = held - self._accounted, held
            self._shared.hold(more)

    @property
    def held(self) -> int:
        """Bytes held for this client, coming and going."""
        return self._accounted if self._phase is _OPEN else 0

    def cut_off(self, text: str) -> None:
        """Disconnect a client and free what is held for it; tell it why if it may listen."""
        if self._held or self._in_pieces is not None:
            self.close()
        else:
            self.session.cut_off(text)

    def _take_turn(self) -> None:
        self._queued = False
        self._resume()
        end = self._shared.turns.begin()
        while not (self._queued or self._pausing or self.full) and self._read(MUCH):
            if monotonic() > end:
                break
        self._update_reading()

    def _resume(self) -> None:
        self._in_one_write(self.session.resume)

    def _update_reading(self) -> None:
        stream = self._stream
        stopped = self._pausing or self.full or self._queued
        wanted = self._phase is _OPEN and not stopped
        if stream is None or wanted == self._reading:
            return
        self._reading = wanted
        if not self._pollable:
            if wanted:
                self._loop.call_soon(self._on_readable)
        elif wanted:
            # To set it for each command takes 4 % of the time of a short one.
            context = copy_context()
            context.run(USER.set, self.session.user)
            context.run(self._loop.add_reader, stream.read_fd, self._on_readable)
        else:
            self._loop.remove_reader(stream.read_fd)

    def close(self) -> None:
        """Close at once; what was not sent is lost, its descriptors are closed."""
        stream = self._stream
        if stream is None:
            return
        self._stream = None
        self._phase = NEXT[self._phase, Transition.CLOSE]
        if self._reading and self._pollable:
            self._loop.remove_reader(stream.read_fd)
        if self._writing:
            self._loop.remove_writer(stream.write_fd)
        if self._look is not None:
            self._look.cancel()
        for _data, fds in self._out + self._behind:
            _close_all(fds)
        self._out.clear()
        self._behind.clear()
        self._close_pieces()
        self._shared.hold(-self._accounted)
        self._accounted = 0
        self.session.lost()
        shared, user = self._shared, self.session.user
        if self._descriptors and stream.unread():
            # They stay where the client can read them, and count until then.
            stream.shut_down()
            shared.unread.keep(stream, user, self._descriptors)
            shared.clients.give_back(user)
        else:
            shared.descriptors.give_back(user, self._descriptors)
            # It may have sent what has not been read, and is slow to close.
            stream.close(partial(shared.clients.give_back_soon, user))
        self._descriptors = 0
        self._on_lost(self)


def _rest(view: memoryview, sent: int) -> memoryview:
    """The rest of a chunk, which keeps no more than twice as much in memory.

    16 MiB of memory leave in a hundred pieces: a copy each time would be too many.
    """
    whole, left = view.obj, view[sent:]
    if isinstance(whole, bytes) and len(left) * 2 < len(whole):
        return memoryview(bytes(left))
    return left


def _join_short(out: list[_Chunk]) -> bytes | memoryview:
    """Make one chunk of the leading ones, without descriptors, that are short together."""
    count = size = 0
    for data, fds in out:
        size += len(data)
        if fds or (size > JOINED and count):
            break
        count += 1
    if count > 1:
        out[:count] = [(b"".join([data for data, _fds in out[:count]]), ())]
    return out[0][0]


def _close_all(fds: tuple[int, ...]) -> None:
    if fds:
        from memd.hostmem.closing import close

        for fd in fds:
            close(fd)
