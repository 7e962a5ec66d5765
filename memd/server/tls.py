"""TLS under a monitor: the handshake on the loop, then a stream that encrypts.

OpenSSL works on memory only (`ssl.MemoryBIO`): sockets stay non-blocking, and
what it has to say is sent when the socket takes it. Imported where a monitor has
credentials, since `ssl` takes longer to import than memd to start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable

from memd.errors import QMPError
from memd.hostmem.sockets import close_socket, has_hung_up, keep_urgent, receive
from memd.places import SHARE, Places
from memd.server.peer import user_of
from memd.server.stream import READ_SIZE, Stream, origin_of, tune_network

log = logging.getLogger("memd")

HANDSHAKE_TIME = 10.0
"""Seconds for a handshake. Its few messages take milliseconds; a client that sends
nothing for so long would else hold a descriptor for ever."""

MAX_HANDSHAKES = 256
"""Handshakes under way at one monitor, of which a user has a share; the user's oldest one is
ended for one more, so that idle connections cannot use up the descriptors."""

CHUNK_SIZE = 64 * 1024
"""Bytes encrypted at once: four records of TLS, some 20 µs of work."""

UNASKED_LIMIT = 256 * 1024
"""Bytes of answers to the protocol's own messages (key updates, alerts) held
for a peer that asks for them and does not read, before it is disconnected."""

_RECORD_HEADER = 5
"""Bytes before a record's content: type, version, length (RFC 8446, section 5.1)."""


def _certified(tls: ssl.SSLObject) -> dict[str, str]:
    """The common name in the other end's certificate, if one was asked for and verified."""
    # As typed, it may be None; of one that was not verified it is empty.
    for part in (tls.getpeercert() or {}).get("subject", ()):
        for pair in part:
            if pair[0] == "commonName":
                return {"certificate": str(pair[1])}
    return {}


class TLSStream(Stream):
    """A connected socket with TLS, the handshake done; see `Stream`.

    A chunk counts as sent once the last byte of what it was encrypted to is:
    until then `send` raises `BlockingIOError`, and has to be called again with
    the same bytes, maybe more of them, as is OpenSSL's own rule.
    """

    passes_fds = False

    def __init__(
        self, sock: socket.socket, tls: ssl.SSLObject, into: ssl.MemoryBIO, out: ssl.MemoryBIO
    ) -> None:
        self._socket = sock
        self._tls = tls
        self._in = into
        self._out = out
        # Encrypted and not sent yet, and how many bytes of `send` that stands for.
        self._sealed = memoryview(b"")
        self._owed = 0
        self.read_fd = self.write_fd = sock.fileno()
        self.origin = origin_of(sock) | _certified(tls)

    def receive(self, most: int = READ_SIZE) -> tuple[bytes, list[int]]:
        data = receive(self._socket, most)
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()
        plain = []
        ended = False
        while not ended:
            # All of it: nothing wakes the loop for what stays behind here.
            try:
                chunk = self._tls.read(READ_SIZE)
            except ssl.SSLWantReadError:
                break
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                chunk = b""
            if chunk:
                plain.append(chunk)
            else:
                ended = True
        self._answer()
        if ended and data:
            # The peer has ended the stream within TLS. Now the socket says so
            # too, for as long as it is asked.
            self._socket.shutdown(socket.SHUT_RD)
        if plain:
            return b"".join(plain), []
        if ended:
            return b"", []
        raise BlockingIOError

    def _answer(self) -> None:
        """Send TLS's own records, as far as the socket takes them."""
        if not self._out.pending:
            return
        try:
            self._flush()
        except BlockingIOError:
            if len(self._sealed) + self._out.pending > UNASKED_LIMIT + 2 * CHUNK_SIZE:
                raise ConnectionAbortedError from None

    def send(self, data: bytes | memoryview, fds: tuple[int, ...]) -> int:
        sent = 0
        view = memoryview(data)
        try:
            self._flush()
            sent, self._owed = self._owed, 0
            while sent < len(view):
                # The buffers are empty: nothing is held beyond one chunk.
                self._owed = self._tls.write(view[sent : sent + CHUNK_SIZE])
                self._flush()
                sent += self._owed
                self._owed = 0
        except BlockingIOError:
            if not sent:
                raise
        return sent

    def _flush(self) -> None:
        """Send what is encrypted; raises `BlockingIOError` where some of it stays."""
        while True:
            if not self._sealed:
                if not self._out.pending:
                    return
                self._sealed = memoryview(self._out.read())
            self._sealed = self._sealed[self._socket.send(self._sealed) :]

    def hung_up(self) -> bool:
        return has_hung_up(self.read_fd)

    def close(self, then: Callable[[], object] | None = None) -> None:
        if self._socket.fileno() < 0:
            return
        if not self._owed:
            # Says that this was all, and does not wait for the answer.
            with contextlib.suppress(ssl.SSLError, ValueError):
                self._tls.unwrap()
        with contextlib.suppress(OSError):
            self._flush()
        close_socket(self._socket, then)


class _Handshake:
    """One handshake on the loop; `done` gets a stream, or None and why there is none."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        context: ssl.SSLContext,
        host: str | None,
        done: Callable[[_Handshake, TLSStream | None, str], None],
        patience: float,
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._done = done
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._in, self._out, server_side=host is None, server_hostname=host
        )
        self._sealed = b""
        self._header = b""
        # Bytes up to the end of a record's header, or of its content.
        self._missing = _RECORD_HEADER
        self._over = False
        self._writing = False
        sock.setblocking(False)
        keep_urgent(sock)
        self._timer = loop.call_later(patience, self.end, "the handshake took too long")
        loop.add_reader(sock.fileno(), self._guarded, self._read)
        # A client speaks first.
        loop.call_soon(self._guarded, self._advance)

    def _guarded(self, work: Callable[[], None]) -> None:
        if self._socket.fileno() < 0:
            return
        try:
            work()
        except (BlockingIOError, InterruptedError):
            pass
        except ssl.SSLError as error:
            # The alert, as far as the socket takes it.
            self._sealed += self._out.read()
            with contextlib.suppress(OSError):
                self._socket.send(self._sealed)
            self.end(getattr(error, "verify_message", "") or error.reason or str(error))
        except OSError as error:
            self.end(error.strerror or "the connection broke")

    def _read(self) -> None:
        # Record by record: what comes after the handshake has to stay in the
        # socket, where it wakes the reader of the stream.
        while not self._over:
            data = receive(self._socket, self._missing)
            if not data:
                self.end("the peer left")
                return
            self._in.write(data)
            self._missing -= len(data)
            if len(self._header) < _RECORD_HEADER:
                self._header += data
                if not self._missing:
                    self._missing = int.from_bytes(self._header[3:], "big")
            if not self._missing:
                self._header = b""
                self._missing = _RECORD_HEADER
            self._advance()

    def _advance(self) -> None:
        if not self._over:
            try:
                self._tls.do_handshake()
                self._over = True
            except ssl.SSLWantReadError:
                pass
        self._sealed += self._out.read()
        self._write()

    def _write(self) -> None:
        try:
            while self._sealed:
                self._sealed = self._sealed[self._socket.send(self._sealed) :]
        except BlockingIOError:
            if not self._writing:
                self._writing = True
                self._loop.add_writer(self._socket.fileno(), self._guarded, self._write)
            if self._over:
                self._loop.remove_reader(self._socket.fileno())
            return
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._socket.fileno())
        if self._over:
            self._leave()
            self._done(self, TLSStream(self._socket, self._tls, self._in, self._out), "")

    def end(self, reason: str) -> None:
        """Give up and disconnect."""
        self._leave()
        with contextlib.suppress(OSError):
            # What the peer has sent on top must not turn the alert into a reset.
            receive(self._socket, READ_SIZE)
        close_socket(self._socket)
        self._done(self, None, reason)

    def _leave(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())


class TLSPort:
    """Makes streams of the connections of one character device.

    Args:
        context: what a connection is made with, or raises `QMPError`.
        host: the name that the other end has to have, None where this end
            listens.
        served: takes a stream, and the socket that it is on.
        refused: told where no stream comes of a connection.
        places: for connections; one whose handshake is under way takes one of its user's.

    Attributes:
        handshake_time: see `HANDSHAKE_TIME`; `max_handshakes` as well.
    """

    handshake_time = HANDSHAKE_TIME
    max_handshakes = MAX_HANDSHAKES

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: Callable[[], ssl.SSLContext],
        host: str | None,
        served: Callable[[TLSStream, socket.socket], None],
        refused: Callable[[], None],
        places: Places,
    ) -> None:
        self._loop = loop
        self._places = Places(self.max_handshakes, SHARE, within=places)
        self._context = context
        self._host = host
        self._served = served
        self._refused = refused
        self._pending: dict[_Handshake, tuple[socket.socket, int, asyncio.Future[bool]]] = {}

    def start(self, sock: socket.socket) -> asyncio.Future[bool]:
        """Begin a handshake; whether a stream came of it."""
        outcome: asyncio.Future[bool] = self._loop.create_future()
        user, places = user_of(sock), self._places
        if not places.has_free_place(user):
            pending = ((each, whose) for each, (_sock, whose, _outcome) in self._pending.items())
            if (oldest := places.to_end_for(user, pending)) is not None:
                oldest.end("too many handshakes at once")
        try:
            if not places.has_free_place(user):
                raise QMPError("too many connections are open for its user")
            tune_network(sock)
            handshake = _Handshake(
                *(self._loop, sock, self._context(), self._host, self._ended),
                patience=self.handshake_time,
            )
        except (QMPError, OSError, ValueError) as error:
            # ValueError: a name that no certificate could have.
            close_socket(sock)
            self._tell(str(error))
            outcome.set_result(False)
        else:
            places.take(user)
            self._pending[handshake] = (sock, user, outcome)
        return outcome

    def _ended(self, handshake: _Handshake, stream: TLSStream | None, reason: str) -> None:
        sock, user, outcome = self._pending.pop(handshake)
        # A client takes a place of its own.
        self._places.give_back(user)
        if stream is None:
            self._tell(reason)
        else:
            self._served(stream, sock)
        if not outcome.done():
            outcome.set_result(stream is not None)

    def _tell(self, reason: str) -> None:
        log.info("no TLS connection: %s", reason)
        self._refused()

    def close(self) -> None:
        """Give up the handshakes under way."""
        self._refused = lambda: None
        for handshake in tuple(self._pending):
            handshake.end("the end")
