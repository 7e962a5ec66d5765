"""The fixture that needs pytest-asyncio; only there where that is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest_asyncio

if TYPE_CHECKING:
    from memd.client import AsyncClient
    from memd.testing.server import Server


@pytest_asyncio.fixture
async def memd_aqmp(memd_server: Server) -> AsyncIterator[AsyncClient]:
    """A client for asyncio that is connected to `memd_server`."""
    client = await memd_server.connect_async()
    yield client
    client.close()
