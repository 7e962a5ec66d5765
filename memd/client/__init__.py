"""Talking to memd, or to any QMP server, and taking the descriptors that it hands out.

    from memd.client import Client

    with Client("/run/memd/qmp.sock") as client:
        client.execute("object-add", {"qom-type": "memory-backend-memfd", "id": "m0",
                                      "size": 64 << 20})
        client.write("m0", 0, b"hello")
        with client.export("m0") as memory:
            mapped = mmap.mmap(memory.fd, memory.size, offset=memory.offset)

`AsyncClient` is the same for asyncio, with any number of commands under way at
once. What the server refuses is raised as `QMPError`, with its `error_class` and
`desc`. The package imports nothing beyond the standard library; qemu.qmp, which
serves QMP without descriptors, is not needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.client.blocking import Client
from memd.client.conversation import Export
from memd.errors import QMPError

if TYPE_CHECKING:
    from memd.client.aio import AsyncClient

__all__ = ["AsyncClient", "Client", "Export", "QMPError"]


def __getattr__(name: str) -> type[AsyncClient]:
    # asyncio takes 35 ms to import, which a short command need not pay.
    if name == "AsyncClient":
        from memd.client.aio import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
