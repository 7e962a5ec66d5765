"""Opening what a monitor sits on: listening sockets, connected ones, inherited ones.

Refusals are worded as QEMU words them on its standard error (observed on
QEMU 10.0.2). Two are memd's own: a socket path that another process serves
is left to it, and what is not a socket is never removed to make room.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from typing import Any

from memd.commands.chardev import host_and_port
from memd.errors import QMPError
from memd.json_types import JSON
from memd.server.listener import BACKLOG, listen_unix

UNIX_PATH_MAX = 108
"""Bytes of a socket's path, its closing NUL included (unix(7))."""


def open_unix(path: str, *, server: bool, mode: int = 0o600) -> socket.socket:
    """Listen at, or connect to, a UNIX socket.

    Args:
        mode: of a listening socket's file; see `listen_unix`.

    Raises:
        QMPError: when that fails.
    """
    if len(os.fsencode(path)) >= UNIX_PATH_MAX:
        raise QMPError(
            f"UNIX socket path '{path}' is too long",
            hint=f"Path must be less than {UNIX_PATH_MAX} bytes",
        )
    if server:
        try:
            return listen_unix(path, mode)
        except OSError as error:
            raise QMPError(
                f"Failed to bind socket to {path}: {os.strerror(error.errno or 0)}"
            ) from None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise QMPError(f"Failed to connect to '{path}': {os.strerror(error.errno or 0)}") from None
    return sock


_FAMILIES = {"": socket.AF_UNSPEC, "ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}

_Found = Sequence[tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]]


def _resolve(host: str, port: str, family: str, flags: int = 0) -> _Found:
    try:
        return socket.getaddrinfo(
            host or None, port, _FAMILIES[family], socket.SOCK_STREAM, 0, flags
        )
    except socket.gaierror as error:
        raise QMPError(f"address resolution failed for {host}:{port}: {error.strerror}") from None


def connect_tcp(host: str, port: str, family: str = "") -> socket.socket:
    """Connect to the first of a host's addresses that takes it.

    Args:
        host: a name or address, IPv6 without brackets; empty for this machine.
        port: a number or a service's name.
        family: "ipv4" or "ipv6" where only that is wanted.

    Raises:
        QMPError: none does.
    """
    refusal: OSError | None = None
    for kind, type, protocol, _name, address in _resolve(host, port, family):
        sock = socket.socket(kind, type, protocol)
        try:
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            refusal = error
    reason = os.strerror(refusal.errno or 0) if refusal else "No address"
    raise QMPError(f"Failed to connect to '{host}:{port}': {reason}")


def listen_tcp(host: str, port: str, family: str = "") -> list[socket.socket]:
    """Listen on all of a host's addresses that can be listened on, at least on one.

    Args:
        host: as for `connect_tcp`; empty for every address.
        port: a number or a service's name.
        family: "ipv4" or "ipv6" where only that is wanted.

    Raises:
        QMPError: there is none; the first one's reason.
    """
    found: list[socket.socket] = []
    refusal: OSError | None = None
    for kind, type, protocol, _name, address in _resolve(host, port, family, socket.AI_PASSIVE):
        try:
            sock = socket.socket(kind, type, protocol)
        except OSError as error:
            # The kernel has no such family.
            refusal = refusal or error
            continue
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if kind == socket.AF_INET6:
                # "::" is for IPv4 too, unless that is not wanted or has a socket of its own.
                alone = family == "ipv6" or any(each.family == socket.AF_INET for each in found)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, alone)
            sock.bind(address)
            sock.listen(BACKLOG)
            found.append(sock)
        except OSError as error:
            sock.close()
            refusal = refusal or error
    if found:
        return found
    reason = os.strerror(refusal.errno or 0) if refusal else "No address"
    if refusal and refusal.errno == errno.EADDRINUSE:
        raise QMPError(f"Failed to find an available port: {reason}")
    raise QMPError(f"Failed to bind socket: {reason}")


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
        try:
            sock.listen(BACKLOG)
        except OSError as error:
            sock.close()
            raise QMPError(
                f"Failed to listen on fd socket: {os.strerror(error.errno or 0)}"
            ) from None
    return sock


def is_loopback(sock: socket.socket) -> bool:
    """Whether a socket can be reached from this machine only; False where nobody knows."""
    if sock.family == socket.AF_INET:
        return str(sock.getsockname()[0]).startswith("127.")
    if sock.family == socket.AF_INET6:
        return str(sock.getsockname()[0]) == "::1"
    return sock.family == socket.AF_UNIX


def address_of(sock: socket.socket) -> JSON:
    """The QAPI `SocketAddress` of a socket that listens or is connected."""
    name = sock.getsockname() or sock.getpeername()
    if sock.family == socket.AF_UNIX:
        return {"type": "unix", "path": os.fsdecode(name)}
    family = "ipv6" if sock.family == socket.AF_INET6 else "ipv4"
    return {"type": "inet", "host": name[0], "port": str(name[1]), family: True}


def ends_of(sock: socket.socket) -> tuple[str, str] | None:
    """Both ends of a TCP connection, as they are written; None for others."""
    if sock.family == socket.AF_UNIX:
        return None
    try:
        here, there = sock.getsockname(), sock.getpeername()
    except OSError:
        # Gone already.
        return None
    return host_and_port(here[0], here[1]), host_and_port(there[0], there[1])
