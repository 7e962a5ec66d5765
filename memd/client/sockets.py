"""What both clients do with sockets."""

from __future__ import annotations

import array
import os
import socket

READ_SIZE = 256 << 10
"""Bytes asked of the kernel at once."""

_MAX_FDS = 16
_ANCILLARY = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)

Address = str | bytes | os.PathLike[str] | tuple[str, int]
"""The path of a UNIX socket, or a host and port; only the former carries descriptors."""


def make(address: Address) -> tuple[socket.socket, str | bytes | tuple[str, int]]:
    """A socket of the right family, and what to connect it to."""
    if isinstance(address, tuple):
        host, port = address
        (family, kind, protocol, _name, found), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )
        return socket.socket(family, kind, protocol), (str(found[0]), int(found[1]))
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), os.fspath(address)


def receive(sock: socket.socket) -> tuple[bytes, list[int]]:
    """Bytes and descriptors from the server.

    Raises:
        ConnectionError: it has closed the connection.
        OSError: whatever recvmsg(2) says.
    """
    data, ancillary, _flags, _address = sock.recvmsg(READ_SIZE, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if not data:
        raise ConnectionError("the server has closed the connection")
    return data, list(fds)
