"""Messages to another process by a UNIX socket's name, which never wait for a file system.

Each message by the name would have the kernel look its path up, and the file system
that this leads to may stall. So the socket is connected once, and again where the other
process has closed its own, by a thread.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable
from typing import Any

from memd.hostmem.deadline import within

PATIENCE = 10
"""Seconds that the first connection may take, and a message whose sender can wait."""

AT_ONCE = 0.02
"""Seconds that a sender which can't wait gives a connection that has to be made anew."""

_TIMEVAL = struct.Struct("ll")

_GONE = frozenset((errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTCONN, errno.EPIPE))


class Datagrams:
    """A socket that messages go out by.

    Args:
        address: a path, or an abstract name after a zero byte. Nobody need be there yet.
        patience: whole seconds, see `PATIENCE`.
    """

    def __init__(self, address: str, patience: int = PATIENCE) -> None:
        self._address = address
        self._patience = patience
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(patience, 0))
        self._connecting = False

    def connect(self, patience: float | None = None) -> None:
        """Look the address up; what is sent does so where that has not been done.

        Args:
            patience: seconds that it may take; None for as many as a message may.

        Raises:
            BlockingIOError: it takes longer.
            OSError: nobody is there.
        """
        if self._connecting:
            raise BlockingIOError(errno.EAGAIN, "the file system does not answer")
        self._connecting = True
        try:
            within(self._patience if patience is None else patience, self._connect)
        except TimeoutError as late:
            raise BlockingIOError(errno.EAGAIN, late.strerror) from None

    def _connect(self) -> None:
        try:
            self._socket.connect(self._address)
        finally:
            self._connecting = False

    def send(self, data: bytes, about: Iterable[Any] = (), *, wait: bool = False) -> None:
        """Send one message.

        Args:
            about: ancillary data, as for `socket.sendmsg`.
            wait: whether the caller can wait for a receiver that is behind with its
                reading, for so long as its patience lasts.

        Raises:
            BlockingIOError: it can't be sent at present.
            OSError: nobody is there.
        """
        flags = 0 if wait else socket.MSG_DONTWAIT
        try:
            self._socket.sendmsg([data], about, flags)
            return
        except OSError as failed:
            if failed.errno not in _GONE:
                raise
        self.connect(None if wait else AT_ONCE)
        self._socket.sendmsg([data], about, flags)

    def close(self) -> None:
        """Send nothing more."""
        self._socket.close()
