"""Receiving descriptors over a UNIX socket (unix(7), SCM_RIGHTS)."""

from __future__ import annotations

import array
import socket

MOST_FDS = 253
"""Descriptors that come with one message at most (the kernel's SCM_MAX_FD)."""

_INT = array.array("i").itemsize

_ANCILLARY_SIZE = socket.CMSG_SPACE(MOST_FDS * _INT)


def receive_with_fds(sock: socket.socket, most: int) -> tuple[bytes, list[int], int]:
    """Receive bytes, and all descriptors that come along, closed on exec.

    Descriptors for which there is no space in the buffer the kernel would close at once,
    which may wait.

    Args:
        most: bytes to receive at most.

    Returns:
        the bytes, the descriptors, and the flags of recvmsg(2): `socket.MSG_CTRUNC` where
        this process could not have all descriptors.

    Raises:
        BlockingIOError: nothing is there yet.
        OSError: the connection is broken.
    """
    data, ancillary, flags, _address = sock.recvmsg(most, _ANCILLARY_SIZE, socket.MSG_CMSG_CLOEXEC)
    if not ancillary:
        return data, [], flags
    fds = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % _INT])
    return data, list(fds), flags
