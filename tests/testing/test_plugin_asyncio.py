"""The fixture for pytest-asyncio, which this run has too."""

from __future__ import annotations

from memd.client import AsyncClient
from memd.testing import Server


async def test_it_is_connected(memd_aqmp: AsyncClient, memd_server: Server) -> None:
    assert await memd_aqmp.execute("query-name") == {}
    memd_server.emit("HELLO")
    assert (await memd_aqmp.events.get())["event"] == "HELLO"
    memd_server.expect("qmp_capabilities", "query-name")
