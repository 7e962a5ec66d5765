"""Requests to a clone's monitor: to wait for its pages, and to recover."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from typing import Any

from memd.client import AsyncClient
from memd.errors import QMPError
from memd.hostmem.sockets import UNIX_PATH_MAX
from memd.pages.reach import Reach
from memd.pages.recording import PAGE

_MOST = 1 << 20
"""Bytes of a monitor's message: what is asked of it has short answers."""

PATIENCE = 10.0
"""Seconds in which a monitor has to answer what it can answer at once. QEMU serves one client
on a monitor; another one is not greeted until that has left."""

_PAUSE = 0.02
"""Seconds between looks at a migration: QEMU sees within milliseconds that a connection is
lost (0.5 to 6 ms measured)."""


class CloneMonitor:
    """A connection to the monitor of a clone, with commands out of band.

    It is kept for as long as the clone is served, and outlives the process that has it:
    a QEMU whose main thread waits for a page greets nobody.

    Args:
        path: the monitor's socket, for messages.
        client: the connection, which is owned by this.
    """

    def __init__(self, path: str, client: AsyncClient) -> None:
        self._path = path
        self._client = client

    @classmethod
    async def connect(cls, path: str, reach: Reach) -> CloneMonitor:
        """Connect and negotiate.

        Args:
            path: the monitor's socket.
            reach: what may be connected to.

        Raises:
            QMPError: it can't be connected to, or does not answer.
        """
        try:
            with reach.opened(path) as place:
                connecting = AsyncClient.connect(
                    place, oob=True, most=_MOST, events=False, takes_fds=False
                )
                client = await asyncio.wait_for(connecting, PATIENCE)
        except TimeoutError:
            raise QMPError(
                f"the monitor {path} does not answer: it may have another client, or the machine"
                " hangs"
            ) from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise QMPError(f"cannot connect to the monitor {path}: {reason or error}") from None
        return cls(path, client)

    @classmethod
    def adopt(cls, path: str, fd: int) -> CloneMonitor:
        """Go on with a connection of a process that is gone; its descriptor is taken over."""
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        client = AsyncClient(
            sock, random.getrandbits(40), most=_MOST, events=False, takes_fds=False
        )
        return cls(path, client)

    def fileno(self) -> int:
        """The connection's descriptor, -1 once it is closed."""
        return self._client.fileno()

    @property
    def version(self) -> str:
        """The QEMU's, as it greeted."""
        told = self._client.greeting["QMP"]["version"]["qemu"]
        return "{major}.{minor}.{micro}".format_map(told)

    def close(self) -> None:
        """Leave."""
        self._client.close()

    async def check_machine(self, machine: str) -> None:
        """See that it is a machine of that type, such as "pc-q35-10.0".

        Raises:
            QMPError: it is another one, or does not answer.
        """
        found = await self._property("/machine", "type")
        if found != f"{machine}-machine":
            # QEMU would say so too, and end.
            raise QMPError(
                f"the machine is a {str(found).removesuffix('-machine')}, and the template's a"
                f" {machine}"
            )

    async def allow_postcopy(self) -> None:
        """Switch on what a postcopy migration takes. Raises `QMPError`."""
        capability = {"capability": "postcopy-ram", "state": True}
        await self._execute("migrate-set-capabilities", {"capabilities": [capability]})

    async def listen(self, uri: str) -> None:
        """Have a QEMU of `-incoming defer` wait for its migration.

        Args:
            uri: where it is to listen.

        Raises:
            QMPError: it refuses, or would.
        """
        # A QEMU that could not listen is told where to only once.
        if len(os.fsencode(uri.removeprefix("unix:"))) >= UNIX_PATH_MAX:
            raise QMPError(
                f"the machine cannot listen at {uri}: a socket's path has {UNIX_PATH_MAX - 1}"
                " bytes at most"
            )
        await self._execute("migrate-incoming", {"uri": uri})

    async def page_size(self, block: str) -> int:
        """The size of the pages of the memory backend that is a block of RAM, in bytes.

        Raises:
            QMPError: it is lost, or does not answer.
        """
        from memd.hostmem.capacity import default_huge_page_size

        backend = "/objects/" + block.rpartition("/")[2]
        try:
            if not await self._property(backend, "hugetlb"):
                return PAGE
            size = await self._property(backend, "hugetlbsize")
            return int(size) or default_huge_page_size() or 2 << 20
        except (QMPError, TypeError, ValueError):
            pass  # It is not a memfd.
        try:
            file = await self._property(backend, "mem-path")
            found = await asyncio.to_thread(os.statvfs, file)
        except (QMPError, OSError, TypeError, ValueError):
            return PAGE
        return max(PAGE, found.f_bsize)

    async def recover(self, uri: str) -> str:
        """Have a QEMU whose migration is paused listen again; gives what it found.

        "paused": it listens; "complete": it has everything; "left": it is gone or failed.

        Args:
            uri: where it is to listen.

        Raises:
            QMPError: it neither pauses nor ends.
        """
        asked: asyncio.Task[Any] | None = None
        for _ in range(int(PATIENCE / _PAUSE)):
            try:
                # Out of band: the main thread may itself wait for a page.
                await self._client.execute("migrate-recover", {"uri": uri}, oob=True)
                return "paused"
            except (OSError, ValueError):
                return "left"
            except QMPError as error:
                refusal = error
            # It has not seen yet that it is alone, or there is nothing to recover.
            if asked is None:
                asked = asyncio.ensure_future(self._client.execute("query-migrate"))
            await asyncio.wait((asked,), timeout=_PAUSE)
            if asked.done():
                if asked.exception() is not None:
                    return "left"
                status = asked.result().get("status")
                if status in (None, "completed", "failed", "cancelled"):
                    return "complete" if status == "completed" else "left"
                asked = None
                await asyncio.sleep(_PAUSE)
        raise refusal

    async def _property(self, path: str, name: str) -> Any:
        return await self._execute("qom-get", {"path": path, "property": name})

    async def _execute(self, command: str, arguments: dict[str, Any]) -> Any:
        try:
            return await asyncio.wait_for(self._client.execute(command, arguments), PATIENCE)
        except TimeoutError:
            raise QMPError(f"the monitor {self._path} does not answer") from None
        except (OSError, ValueError) as failed:
            raise QMPError(f"the monitor {self._path} is lost: {failed}") from None
