"""What is asked of a clone's monitor: to wait for its pages, and to recover."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from memd.client import AsyncClient
from memd.errors import QMPError
from memd.pages.recording import PAGE

PATIENCE = 10.0
"""Seconds in which a monitor has to answer what it can answer at once. QEMU serves one client
on a monitor; another one is not greeted until that has left."""

_PAUSE = 0.02
"""Seconds between looks at a migration: QEMU sees within milliseconds that a connection is
lost (0.5 to 6 ms measured)."""


async def prepare(path: str, uri: str) -> None:
    """Have a QEMU of `-incoming defer` wait for a postcopy migration.

    Args:
        path: its monitor's socket.
        uri: where it is to listen.

    Raises:
        QMPError: it refuses, or does not answer.
    """
    async with await _connect(path) as client:
        capability = {"capability": "postcopy-ram", "state": True}
        await client.execute("migrate-set-capabilities", {"capabilities": [capability]})
        await client.execute("migrate-incoming", {"uri": uri})


async def page_size(path: str, block: str) -> int:
    """The size of the pages of the memory backend that a block of RAM belongs to, in bytes.

    Raises:
        QMPError: the monitor does not answer.
    """
    async with await _connect(path) as client:
        backend = "/objects/" + block.rpartition("/")[2]
        try:
            if await client.execute("qom-get", {"path": backend, "property": "hugetlb"}):
                size = await client.execute("qom-get", {"path": backend, "property": "hugetlbsize"})
                return int(size) or _huge_page_size()
        except QMPError:
            pass  # It is a file, or there is no such object.
        try:
            file = await client.execute("qom-get", {"path": backend, "property": "mem-path"})
        except QMPError:
            return PAGE
    try:
        found = await asyncio.to_thread(os.statvfs, file)
    except OSError:
        return PAGE
    return max(PAGE, found.f_bsize)


async def recover(path: str, uri: str) -> bool:
    """Have a QEMU whose migration is paused listen again; False where it has ended or is whole.

    The command is run out of band: QEMU's main thread may itself wait for a page.

    Args:
        path: its monitor's socket.
        uri: where it is to listen.

    Raises:
        QMPError: it neither pauses nor answers.
    """
    try:
        client = await _connect(path)
    except QMPError:
        if os.path.exists(path) and await _listens(path):
            raise
        return False
    async with client:
        asked: asyncio.Task[Any] | None = None
        for _ in range(int(PATIENCE / _PAUSE)):
            try:
                await client.execute("migrate-recover", {"uri": uri}, oob=True)
                return True
            except ConnectionError:
                return False
            except QMPError as error:
                refusal = error
            # It has not seen yet that it is alone, or there is nothing to recover.
            if asked is None:
                asked = asyncio.ensure_future(client.execute("query-migrate"))
            await asyncio.wait((asked,), timeout=_PAUSE)
            if asked.done():
                if asked.exception() is not None:
                    return False
                if asked.result().get("status") in (None, "completed", "failed", "cancelled"):
                    return False
                asked = None
                await asyncio.sleep(_PAUSE)
        raise refusal


async def _connect(path: str) -> AsyncClient:
    try:
        return await asyncio.wait_for(AsyncClient.connect(path, oob=True), PATIENCE)
    except TimeoutError:
        raise QMPError(f"the monitor {path} does not answer: it may have another client") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise QMPError(f"cannot connect to the monitor {path}: {reason or error}") from None


async def _listens(path: str) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        try:
            sock.connect(path)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


def _huge_page_size() -> int:
    """The host's default size of huge pages, in bytes."""
    with open("/proc/meminfo", encoding="ascii") as rows:
        for row in rows:
            if row.startswith("Hugepagesize:"):
                return int(row.split()[1]) << 10
    return 2 << 20
