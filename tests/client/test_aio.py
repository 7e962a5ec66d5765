from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from memd.client import AsyncClient, QMPError
from memd.client.aio import connect_to_first
from memd.client.sockets import Candidate
from tests.differential.harness import Side
from tests.differential.kernel import descriptors
from tests.differential.server import Server
from tests.ports import free_port

MIB = 1 << 20


@pytest.fixture
async def client(memd: Side) -> AsyncIterator[AsyncClient]:
    before = descriptors(os.getpid())
    async with await AsyncClient.connect(memd.server.path) as client:
        yield client
    assert descriptors(os.getpid()) <= before


async def add(client: AsyncClient, id: str, size: int = MIB) -> None:
    await client.execute("object-add", {"qom-type": "memory-backend-memfd", "id": id, "size": size})


async def test_commands(client: AsyncClient) -> None:
    assert "QMP" in client.greeting
    assert (await client.execute("query-status"))["running"] is True
    with pytest.raises(QMPError) as refused:
        await client.execute("no-such-command")
    assert refused.value.error_class == "CommandNotFound"


async def test_out_of_band(memd: Side) -> None:
    """What can't be run out of band is refused, and so is all of it where it was not asked for."""
    async with await AsyncClient.connect(memd.server.path, oob=True) as client:
        with pytest.raises(QMPError, match="does not support OOB"):
            await client.execute("query-status", oob=True)
    async with await AsyncClient.connect(memd.server.path) as client:
        with pytest.raises(QMPError, match="oob"):
            await client.execute("query-status", oob=True)


async def test_memory(client: AsyncClient) -> None:
    await add(client, "m", 40 * MIB)
    data = os.urandom(MIB) * 33
    await client.write("m", 3, data)
    assert await client.read("m", 3, len(data)) == data


async def test_several_that_read_and_write_much(client: AsyncClient) -> None:
    size = 2 * MIB
    await client.execute(
        "object-add", {"qom-type": "memory-backend-ram", "id": "m", "size": 4 * size}
    )
    datas = [os.urandom(size) for _ in range(4)]
    await asyncio.gather(*(client.write("m", at * size, data) for at, data in enumerate(datas)))
    assert await asyncio.gather(*(client.read("m", at * size, size) for at in range(4))) == datas
    with pytest.raises(QMPError, match="not within"):
        await client.read("m", 0, 5 * size)


async def test_many_exports_at_once(client: AsyncClient) -> None:
    """Each gets its own descriptor, with others refused in between."""
    names = [f"m{number}" for number in range(20)]
    await asyncio.gather(*(add(client, name, (n + 1) * 4096) for n, name in enumerate(names)))

    async def one(name: str) -> int:
        try:
            with await client.export(name) as memory:
                return os.fstat(memory.fd).st_size
        except QMPError:
            return -1

    wanted = [name for pair in zip(names, ["nope"] * 20, strict=True) for name in pair]
    sizes = await asyncio.gather(*map(one, wanted))
    assert sizes == [size for n in range(20) for size in ((n + 1) * 4096, -1)]


async def test_one_that_was_given_up(client: AsyncClient) -> None:
    """Its answer's descriptor is closed, and the next gets its own."""
    await add(client, "m")
    await add(client, "other", 4096)
    giving_up = asyncio.create_task(client.export("m"))
    await asyncio.sleep(0)
    giving_up.cancel()
    with await client.export("other") as memory:
        assert os.fstat(memory.fd).st_size == 4096
    with pytest.raises(asyncio.CancelledError):
        await giving_up


async def test_descriptors_to_the_server(client: AsyncClient) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    assert await client.execute("getfd", {"fdname": "x"}, fds=[fd]) == {}
    os.close(fd)
    await client.execute("closefd", {"fdname": "x"})


async def test_events_and_the_end(start_memd: Callable[..., Server]) -> None:
    server = start_memd()
    client = await AsyncClient.connect(server.path)
    await client.execute("quit")
    assert (await client.events.get())["event"] == "SHUTDOWN"
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await client.execute("query-name")
    client.close()
    with pytest.raises(OSError):
        await AsyncClient.connect(server.path)


async def test_what_greets_with_something_else(directory: Path) -> None:
    path = directory / "sock"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0\r\n")
        await writer.drain()
        await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        with pytest.raises(ValueError):
            await AsyncClient.connect(path)


async def test_over_tcp(start_memd: Callable[..., Server]) -> None:
    port = free_port()
    start_memd("--qmp", f"tcp:127.0.0.1:{port},server=on,wait=off")
    async with await AsyncClient.connect(("127.0.0.1", port)) as client:
        assert await client.execute("query-name") == {}


async def test_each_address_of_a_name_is_tried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        found: list[Candidate] = [
            (socket.AF_INET, socket.SOCK_STREAM, 0, (host, port))
            for host in ("127.0.0.2", "127.0.0.1")
        ]
        with await connect_to_first(found) as sock:
            assert sock.getpeername() == ("127.0.0.1", port)
        with pytest.raises(ConnectionRefusedError):
            await connect_to_first(found[:1])


def test_it_can_be_closed_after_its_loop(memd: Side) -> None:
    """As when a fixture outlives the loop of a test."""
    client = asyncio.run(AsyncClient.connect(memd.server.path))
    client.close()


async def test_commands_that_the_server_cannot_read(client: AsyncClient) -> None:
    """Those beside them are answered, and no other is blamed."""
    wanted = ["query-name", "\udcff", "query-name", "\udcfe", "query-name"]
    async with asyncio.timeout(30):
        found = await asyncio.gather(*map(client.execute, wanted), return_exceptions=True)
        assert [isinstance(each, QMPError) for each in found] == [False, True, False, True, False]
        assert await client.execute("query-name") == {}


async def test_a_command_that_was_given_up_while_it_was_sent(directory: Path) -> None:
    """All that is under way ends, and so does what is asked later."""
    path = directory / "sock"
    asked = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'{"QMP": {}}\r\n')
        await reader.readline()
        writer.write(b'{"return": {}, "id": 1}\r\n')
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await asked.wait()
        writer.close()

    async with asyncio.timeout(30), await asyncio.start_unix_server(serve, path):
        client = await AsyncClient.connect(path)
        waiting = asyncio.create_task(client.execute("query-name"))
        await asyncio.sleep(0)
        large = asyncio.create_task(client.execute("x", {"a": "x" * (8 << 20)}))
        await asyncio.sleep(0.05)
        large.cancel()
        with pytest.raises(asyncio.CancelledError):
            await large
        for late in (waiting, client.execute("query-name")):
            with pytest.raises(ConnectionError, match="sent in part"):
                await late
        asked.set()
