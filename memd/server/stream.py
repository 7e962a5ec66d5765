"""Byte streams that a monitor can sit on: a socket, or standard input and output.

A stream never blocks: `receive` and `send` raise `BlockingIOError` when the
kernel has no data, or its buffer is full.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import socket
import stat
import termios
from collections.abc import Callable
from typing import ClassVar, Protocol

from memd.fd_passing import receive_with_fds
from memd.hostmem.sockets import (
    brings_fds,
    close_socket,
    ends_of,
    has_hung_up,
    keep_urgent,
)

READ_SIZE = 64 * 1024
"""Bytes asked of the kernel at once. Enough for a burst of 256 pipelined
commands in one wake-up, and little enough to be fair to other clients: the
worst of garbage, an error a byte, takes a tenth of a second for as many."""

MUCH = 124 * 1024
"""Bytes asked of the kernel at once for a large message; the C library maps memory of its
own for what is longer than 128 KiB."""


class Stream(Protocol):
    """A non-blocking, bidirectional byte stream."""

    read_fd: int
    write_fd: int

    passes_fds: bool
    """Whether descriptors come along."""

    opening: ClassVar[bytes] = b""
    """What is sent before anything else."""

    origin: dict[str, str]
    """Who is at the other end of a network, see `memd.session.Session`."""

    def receive(self, most: int = READ_SIZE) -> tuple[bytes, list[int]]:
        """So many bytes at most and the descriptors that came along; empty bytes at the end.

        Raises:
            BlockingIOError: nothing is there yet.
            OSError: the stream is broken.
        """

    def send(self, data: bytes | memoryview, fds: tuple[int, ...]) -> int:
        """Send some of `data`, with `fds` on its first byte; returns how much.

        Raises:
            BlockingIOError: the buffer is full.
            OSError: the stream is broken.
        """

    def brings_fds(self, most: int = READ_SIZE) -> bool:
        """Whether descriptors would come along with the next so many bytes."""
        return False

    def hung_up(self) -> bool:
        """Whether the peer has closed both directions."""

    def unread(self) -> bool:
        """Whether something that was sent has not been read yet, and may carry descriptors."""
        return False

    def shut_down(self) -> None:
        """End both directions of what descriptors come along on; what was sent can be read."""
        return

    def close(self, then: Callable[[], object] | None = None) -> None:
        """Close the stream, at once or soon.

        Args:
            then: called once it is closed, in whatever thread.
        """


class SocketStream(Stream):
    """A connected stream socket; descriptors travel on AF_UNIX (unix(7))."""

    __slots__ = ("_socket", "origin", "passes_fds", "read_fd", "write_fd")

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self.passes_fds = sock.family == socket.AF_UNIX
        self.read_fd = self.write_fd = sock.fileno()
        self.origin: dict[str, str] = {} if self.passes_fds else origin_of(sock)
        if self.passes_fds:
            keep_urgent(sock)
        else:
            tune_network(sock)

    def receive(self, most: int = READ_SIZE) -> tuple[bytes, list[int]]:
        if not self.passes_fds:
            return self._socket.recv(most), []
        data, fds, _flags = receive_with_fds(self._socket, most)
        return data, fds

    def send(self, data: bytes | memoryview, fds: tuple[int, ...]) -> int:
        if fds and self.passes_fds:
            return socket.send_fds(self._socket, [data], fds)
        return self._socket.send(data)

    def brings_fds(self, most: int = READ_SIZE) -> bool:
        return brings_fds(self._socket, most)

    def hung_up(self) -> bool:
        return has_hung_up(self.read_fd)

    def unread(self) -> bool:
        # SIOCOUTQ: on UNIX sockets, what is in the peer's queue.
        return self.passes_fds and any(fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)))

    def shut_down(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self, then: Callable[[], object] | None = None) -> None:
        close_socket(self._socket, then)


class TelnetStream(SocketStream):
    """A socket on which telnet is spoken (RFC 854): commands of the client are passed over."""

    __slots__ = ("_cut",)

    opening = bytes.fromhex("fffb01 fffb03 fffb00 fffd00")
    # A byte of all ones twice is that byte, a break has no operand, and what is cut off goes on
    # with the next data.
    _COMMAND = re.compile(rb"\xff(?:(\xff)|\xf3|[^\xff\xf3].|([^\xff\xf3]?)\Z)", re.DOTALL)

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        # Descriptors that came along with commands alone would be nobody's.
        self.passes_fds = False
        self._cut = b""

    def receive(self, most: int = READ_SIZE) -> tuple[bytes, list[int]]:
        while True:
            data, none = super().receive(most)
            given, self._cut = self._cut + data, b""
            told = self._COMMAND.sub(self._take, given)
            # Nothing at all is the end.
            if told or not data:
                return told, none

    def _take(self, found: re.Match[bytes]) -> bytes:
        if found[2] is not None:
            self._cut = found[0]
        return found[1] or b""


def tune_network(sock: socket.socket) -> None:
    """Have a connection over a network send at once, and end when its peer has vanished."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def origin_of(sock: socket.socket) -> dict[str, str]:
    """The address at the other end of a TCP connection, if it is still there."""
    ends = ends_of(sock)
    return {} if ends is None else {"address": ends[1]}


class StdioStream(Stream):
    """Standard input and output, taken away from the rest of the process.

    Descriptors 0 and 1 are duplicated and replaced by /dev/null, so that a
    stray print can never get between two answers.

    Args:
        raw: have a terminal pass on each key, and echo none, until the end.
    """

    passes_fds = False

    def __init__(self, *, raw: bool = False) -> None:
        self.origin: dict[str, str] = {}
        self.read_fd = os.dup(0)
        self.write_fd = os.dup(1)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.close(null)
        self._was_blocking = [(fd, os.get_blocking(fd)) for fd in (self.read_fd, self.write_fd)]
        for fd in (self.read_fd, self.write_fd):
            os.set_blocking(fd, False)
        self._restore = _make_raw(self.read_fd) if raw else lambda: None

    def receive(self, most: int = READ_SIZE) -> tuple[bytes, list[int]]:
        return os.read(self.read_fd, most), []

    def send(self, data: bytes | memoryview, fds: tuple[int, ...]) -> int:
        return os.write(self.write_fd, data)

    def hung_up(self) -> bool:
        return False

    def close(self, then: Callable[[], object] | None = None) -> None:
        if self._was_blocking:
            self._restore()
        for fd, blocking in self._was_blocking:
            # The terminal's mode is shared with the shell that started us.
            os.set_blocking(fd, blocking)
            os.close(fd)
        self._was_blocking = []
        if then is not None:
            then()


def _make_raw(fd: int) -> Callable[[], None]:
    """Have a terminal pass on keys as QEMU does: signals and line ends of output stay.

    Returns:
        What sets it as it was. What is no terminal is left as it is.
    """
    try:
        before = termios.tcgetattr(fd)
    except termios.error:
        return lambda: None
    mode = termios.tcgetattr(fd)
    mode[0] &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP)
    mode[0] &= ~(termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON)
    mode[1] |= termios.OPOST
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, mode)

    def restore() -> None:
        # It may be gone.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSANOW, before)

    return restore


def is_pollable(fd: int) -> bool:
    """Whether epoll takes this descriptor.

    It refuses files and directories, and devices that never keep anybody waiting,
    such as /dev/null (epoll_ctl(2)).
    """
    kind = stat.S_IFMT(os.fstat(fd).st_mode)
    if kind in (stat.S_IFSOCK, stat.S_IFIFO):
        return True
    with select.epoll() as epoll:
        try:
            epoll.register(fd, 0)
        except PermissionError:
            return False
    return True
