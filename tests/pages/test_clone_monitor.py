"""What a clone's monitor may say: answers, and nothing that memd would have to hold."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from memd.errors import QMPError
from memd.pages.clone_monitor import CloneMonitor
from memd.pages.reach import Reach
from tests.descriptors import lingering, wait_for_closing

VERSION = {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": ""}
GREETING = {"QMP": {"version": VERSION, "capabilities": ["oob"]}}


class Machine:
    """A monitor that answers with what it is told to."""

    def __init__(self, *answers: object, before: bytes = b"") -> None:
        self.answers = list(answers)
        self.before = before
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(GREETING).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                number = json.loads(line)["id"]
                value: object = {}
                if b"qmp_capabilities" not in line:
                    value = self.answers.pop(0)
                    writer.write(self.before)
                writer.write(json.dumps({"return": value, "id": number}).encode() + b"\n")
                await writer.drain()
        writer.close()
        self.ended.set()


@contextlib.asynccontextmanager
async def connected(machine: Machine, directory: Path) -> AsyncIterator[CloneMonitor]:
    server = await asyncio.start_unix_server(machine.serve, directory / "qmp")
    monitor = await CloneMonitor.connect(str(directory / "qmp"), Reach())
    try:
        yield monitor
    finally:
        monitor.close()
        server.close()
        await machine.ended.wait()


async def test_events_are_not_kept(directory: Path) -> None:
    event = b'{"event": "STOP", "data": {"x": "%s"}}\n' % (b"y" * 1000)
    async with connected(Machine("pc-machine", before=event * 1000), directory) as monitor:
        await monitor.check_machine("pc")
        assert monitor._client.events.empty()


async def test_an_answer_without_an_end(directory: Path) -> None:
    machine = Machine("pc-machine", before=b'{"return": "' + b"x" * (2 << 20))
    async with connected(machine, directory) as monitor:
        with pytest.raises(QMPError, match=r"the monitor .* is lost: a message of more than"):
            await monitor.check_machine("pc")


async def test_descriptors_are_not_taken(directory: Path) -> None:
    """Nor is their last close waited for."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "qmp"))
        listening.listen()
        connecting = asyncio.ensure_future(CloneMonitor.connect(str(directory / "qmp"), Reach()))
        await asyncio.sleep(0)
        theirs, _address = await asyncio.to_thread(listening.accept)
    with theirs, socket.create_server(("127.0.0.1", 0)) as peer:
        with lingering(peer) as sent:
            socket.send_fds(theirs, [json.dumps(GREETING).encode()], [sent.fileno()] * 2)
        with pytest.raises(QMPError, match="cannot connect to the monitor"):
            await connecting
    wait_for_closing()


@pytest.mark.parametrize("answers", [(True, "x"), (True, {}), ([], {}), (True, -4096)])
async def test_sizes_that_are_none(directory: Path, answers: tuple[object, ...]) -> None:
    """A negative one is refused where the template would be sent in pages of it."""
    async with connected(Machine(*answers, {}, {}), directory) as monitor:
        assert await monitor.page_size("/objects/ram") in (4096, -4096)


async def test_a_path_that_no_socket_can_have(directory: Path) -> None:
    """A QEMU that is asked to listen there can't be asked to listen anywhere else."""
    machine = Machine()
    async with connected(machine, directory) as monitor:
        with pytest.raises(
            QMPError, match=r"cannot listen at unix:/x.*: a socket's path has 107 bytes at most"
        ):
            await monitor.listen(f"unix:/{'x' * 107}")


async def test_a_memfd_of_ordinary_pages(directory: Path) -> None:
    """Nothing more is asked: each answer takes a turn of the machine's main loop."""
    machine = Machine(False, {})
    async with connected(machine, directory) as monitor:
        assert await monitor.page_size("/objects/ram") == 4096
        assert machine.answers == [{}]
