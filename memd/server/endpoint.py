"""Opening what a monitor is served on: listening sockets, connected ones, inherited ones.

Refusals are worded as QEMU words them on its standard error (observed on
QEMU 10.0.2). Two are memd's own: a socket path that another process serves
is left to it, and what is not a socket is never removed.
"""

from __future__ import annotations

import socket

from memd.config import Chardev
from memd.errors import QMPError, refusing
from memd.hostmem.sockets import BACKLOG, check_path, connect_tcp, listen_tcp, opening
from memd.server.listener import SocketFiles, listen_unix


def open_unix(path: str, *, server: bool, mode: int = 0o600) -> socket.socket:
    """Listen at, or connect to, a UNIX socket.

    Args:
        mode: of a listening socket's file; see `listen_unix`.

    Raises:
        QMPError: when that fails.
    """
    check_path(path)
    if server:
        with refusing(f"Failed to bind socket to {path}"):
            return listen_unix(path, mode)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with opening(sock, f"Failed to connect to '{path}'"):
        sock.connect(path)
    return sock


def open_fd(fd: int, *, server: bool) -> socket.socket:
    """Take over an inherited socket, listening or connected.

    Raises:
        QMPError: when it is not a socket, or cannot listen.
    """
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        raise QMPError(f"File descriptor '{fd}' is not a socket") from None
    sock.set_inheritable(False)
    if server:
        with opening(sock, "Failed to listen on fd socket"):
            sock.listen(BACKLOG)
    return sock


def open_chardev(chardev: Chardev, files: SocketFiles, mode: int = 0o600) -> list[socket.socket]:
    """The sockets that listen for a character device, or the one that is connected.

    Args:
        chardev: of kind "unix", "fd" or "tcp".
        files: told of a file that is made.
        mode: of that file; see `listen_unix`.

    Raises:
        QMPError: when that fails.
    """
    if chardev.kind == "unix":
        sock = open_unix(chardev.path, server=chardev.server, mode=mode)
        if chardev.server:
            files.add(chardev.path)
        return [sock]
    if chardev.kind == "fd":
        return [open_fd(chardev.fd, server=chardev.server)]
    if chardev.server:
        return listen_tcp(chardev.host, chardev.port, chardev.family)
    return [connect_tcp(chardev.host, chardev.port, chardev.family)]


def is_loopback(sock: socket.socket) -> bool:
    """Whether a socket can be reached from this machine only; False where nobody knows."""
    if sock.family == socket.AF_INET:
        return str(sock.getsockname()[0]).startswith("127.")
    if sock.family == socket.AF_INET6:
        return str(sock.getsockname()[0]) == "::1"
    return sock.family == socket.AF_UNIX
