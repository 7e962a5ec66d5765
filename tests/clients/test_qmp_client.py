"""The qemu.qmp library's own client, which sends no newline after a request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from qemu.qmp import ExecuteError, QMPClient

from memd.testing import Server
from tests.differential.harness import Side

MIB = 1 << 20


@pytest.fixture
async def client(memd: Side) -> AsyncIterator[QMPClient]:
    """A client that is connected and has negotiated."""
    client = QMPClient("first")
    await client.connect(str(memd.server.path))
    yield client
    await client.disconnect()


def backend(name: str, **options: Any) -> dict[str, Any]:
    return {"qom-type": "memory-backend-ram", "id": name, "size": MIB, **options}


async def test_a_backend_comes_and_goes(client: QMPClient) -> None:
    assert await client.execute("object-add", backend("m0", share=True)) == {}
    listed = await client.execute("query-memdev")
    assert isinstance(listed, list)
    assert [(item["id"], item["size"], item["share"]) for item in listed] == [("m0", MIB, True)]
    assert await client.execute("qom-get", {"path": "m0", "property": "size"}) == MIB
    assert await client.execute("object-del", {"id": "m0"}) == {}
    assert await client.execute("query-memdev") == []


async def test_errors_are_raised_with_their_class(client: QMPClient) -> None:
    with pytest.raises(ExecuteError) as caught:
        await client.execute("qom-get", {"path": "nope", "property": "size"})
    assert caught.value.error_class == "DeviceNotFound"
    assert str(caught.value) == "Device 'nope' not found"
    with pytest.raises(ExecuteError):
        await client.execute("no-such-command")
    assert await client.execute("query-status") is not None


async def test_events_reach_every_client(client: QMPClient, memd: Side) -> None:
    other = QMPClient("other")
    await other.connect(str(memd.server.path))
    try:
        with client.listener(("STOP", "RESUME")) as mine, other.listener() as theirs:
            await client.execute("stop")
            await other.execute("cont")
            for events in (mine, theirs):
                names = [(await events.get())["event"] for _ in range(2)]
                assert names == ["STOP", "RESUME"]
    finally:
        await other.disconnect()


async def test_many_clients_at_once(memd: Side) -> None:
    """Each makes, sees and deletes a backend of its own."""

    async def life(number: int) -> None:
        client = QMPClient(f"client {number}")
        await client.connect(str(memd.server.path))
        try:
            for turn in range(5):
                name = f"c{number}-{turn}"
                await client.execute("object-add", backend(name))
                listed = await client.execute("query-memdev")
                assert isinstance(listed, list)
                assert name in [item["id"] for item in listed]
                await client.execute("object-del", {"id": name})
        finally:
            await client.disconnect()

    await asyncio.gather(*(life(number) for number in range(8)))
    assert memd.objects() == []


async def test_others_work_while_one_preallocates() -> None:
    """Which goes on until it is told that it may end."""
    with Server() as server:
        stalled = server.fault(syscall="populate", stall=True)
        client, slow = QMPClient("first"), QMPClient("slow")
        for each in (client, slow):
            await each.connect(server.socket)
        request = backend("slow", prealloc=True)
        making = asyncio.create_task(slow.execute("object-add", request))
        while not server.faults[0]["applied"]:
            await asyncio.sleep(0)
        for _ in range(5):
            await client.execute("object-add", backend("quick"))
            await client.execute("object-del", {"id": "quick"})
        assert not making.done()
        server.remove_fault(stalled)
        assert await making == {}
        for each in (client, slow):
            await each.disconnect()


async def test_requests_in_flight_together(client: QMPClient) -> None:
    """Sent without waiting for one another, each gets its own answer."""
    names = [f"m{number}" for number in range(30)]
    await asyncio.gather(*(client.execute("object-add", backend(name)) for name in names))
    sizes = await asyncio.gather(
        *(client.execute("qom-get", {"path": name, "property": "size"}) for name in names)
    )
    assert sizes == [MIB] * len(names)


async def test_the_end_is_announced(start_memd: Any) -> None:
    server = start_memd()
    client = QMPClient("last")
    await client.connect(str(server.path))
    with client.listener("SHUTDOWN") as events:
        await client.execute("quit")
        event = await events.get()
    assert event["data"] == {"guest": False, "reason": "host-qmp-quit"}
    with contextlib.suppress(EOFError):
        await client.disconnect()
    assert server.wait() == 0
