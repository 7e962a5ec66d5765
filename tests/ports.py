"""Ports for servers that have to be told one."""

from __future__ import annotations

import socket

_held: list[socket.socket] = []


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens at, and that the kernel gives to nobody who asks for any.

    A socket here stays bound to it and does not listen, so that connections are refused. A
    server gets the port all the same, as both set SO_REUSEADDR (socket(7)).
    """
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, 0))
    _held.append(sock)
    return int(sock.getsockname()[1])
