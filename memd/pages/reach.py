"""Where the machines may be that clients name: what is connected to, and what is not.

A client could have memd connect to what it can't reach itself. Sockets are found as
files are: below `--mem-root` if there is one, and through no link of another user's. TCP
leads to this host alone, unless the operator says otherwise: what is sent is a guest's
memory, in clear.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager

from memd.client.aio import connect_to, connect_to_first
from memd.errors import QMPError
from memd.hostmem.paths import Roots, named_by, open_path
from memd.pages.sources import is_loopback


class Reach:
    """The sockets and hosts that may be connected to.

    Args:
        roots: the directories below which sockets have to be, none for anywhere.
        tcp: whether TCP may lead to other hosts.

    Raises:
        OSError: a directory can't be opened.
    """

    def __init__(self, roots: Sequence[str] = (), *, tcp: bool = False) -> None:
        self._tcp = tcp
        self._roots: Roots | None = None
        for each in roots:
            self._roots = self._roots or Roots()
            self._roots.add(each)

    def opened(self, path: str) -> AbstractContextManager[str]:
        """Another name of what a path leads to, for the length of a `with` block.

        Raises:
            OSError: there is nothing, or it may not be reached.
        """
        flags = os.O_PATH | os.O_CLOEXEC
        return named_by(open_path(os.fsencode(path), flags, self._roots))

    def listens(self, path: str) -> bool:
        """Whether somebody listens on a UNIX socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            try:
                with self.opened(path) as place:
                    sock.connect(place)
            except BlockingIOError:
                return True
            except OSError:
                return False
        return True

    async def connect(self, uri: str) -> socket.socket:
        """A connection to a QEMU that listens.

        Args:
            uri: `unix:PATH`, or `tcp:HOST:PORT`.

        Raises:
            QMPError: there is none.
        """
        kind, _, rest = uri.partition(":")
        host, _, port = rest.rpartition(":")
        try:
            if kind == "unix" and rest:
                return await self._connect_unix(rest)
            if kind == "tcp" and host and port.isascii() and port.isdigit():
                return await self._connect_tcp(host.strip("[]"), int(port))
        except (OSError, OverflowError) as failed:
            reason = getattr(failed, "strerror", None) or failed
            raise QMPError(f"cannot connect to the QEMU at {uri}: {reason}") from None
        raise QMPError(f"'{uri}' is not an address: unix:PATH or tcp:HOST:PORT is expected")

    async def _connect_unix(self, path: str) -> socket.socket:
        with self.opened(path) as place:
            return await connect_to(socket.AF_UNIX, socket.SOCK_STREAM, 0, place)

    async def _connect_tcp(self, host: str, port: int) -> socket.socket:
        loop = asyncio.get_running_loop()
        allowed = [
            (family, kind, number, where)
            for family, kind, number, _name, where in await loop.getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
            if self._tcp or is_loopback(str(where[0]))
        ]
        if not allowed:
            raise OSError(0, "it is another host (--insecure-tcp permits that)")
        try:
            return await connect_to_first(allowed)
        except OSError as failed:
            # asyncio says something else for every refusal.
            raise OSError(failed.errno, os.strerror(failed.errno or 0)) from None
