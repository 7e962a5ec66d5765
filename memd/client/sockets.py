"""Connecting and receiving, for both clients."""

from __future__ import annotations

import os
import socket
from typing import Any

from memd.fd_passing import receive_with_fds

READ_SIZE = 256 << 10
"""Bytes asked of the kernel at once."""

LOST = -1
"""Stands for a descriptor that was sent and could not be taken."""

Address = str | bytes | os.PathLike[str] | tuple[str, int]
"""The path of a UNIX socket, or a host and port; only the former carries descriptors."""

Candidate = tuple[int, int, int, Any]
"""A socket's family, type and protocol, and what to connect it to."""


def candidates(address: Address) -> list[Candidate]:
    """The sockets to try for an address, in this order: a name may have several addresses.

    Raises:
        OSError: the host's name is not known.
    """
    if isinstance(address, tuple):
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
        return [(family, kind, number, where) for family, kind, number, _name, where in found]
    return [(socket.AF_UNIX, socket.SOCK_STREAM, 0, os.fspath(address))]


def connect(address: Address, timeout: float | None = None) -> socket.socket:
    """A socket connected to the first of an address's candidates that takes it.

    Args:
        address: where to.
        timeout: seconds for each attempt, and for what is done with the socket later;
            None for ever.

    Raises:
        OSError: none takes it; the last one's reason.
    """
    refusal: OSError | None = None
    for family, kind, number, where in candidates(address):
        sock = socket.socket(family, kind, number)
        try:
            sock.settimeout(timeout)
            sock.connect(where)
            return sock
        except BaseException as failed:
            sock.close()
            if not isinstance(failed, OSError):
                raise
            refusal = failed
    raise refusal or OSError("the host has no address")


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Bytes and descriptors from the other end.

    Returns:
        the bytes, and the descriptors that came along. Where not all of them could be
        taken, as this process may have no more, those that came are closed, and `LOST`
        stands for them.

    Raises:
        ConnectionError: the server has closed the connection.
        OSError: whatever recvmsg(2) says.
    """
    data, fds, flags = receive_with_fds(sock, READ_SIZE)
    if flags & socket.MSG_CTRUNC:
        for fd in fds:
            os.close(fd)
        return data, [LOST]
    if not data:
        raise ConnectionError("the server has closed the connection")
    return data, fds
