"""A clone that does not begin, or can't be recovered, is given up."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from memd.errors import QMPError
from memd.pages import serving
from memd.pages.channel import Channel
from memd.pages.fd_holder import Holder
from memd.pages.reach import Reach
from memd.pages.recording import parse
from memd.pages.store import Store
from memd.pages.template import Template
from memd.pages.template_memory import TemplateMemory
from tests.pages.memory import memory, save
from tests.pages.streams import MEMORY, PAGE, stream


class Told:
    """The daemon's end of a channel, and a process that holds no monitor."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def send(self, message: Any) -> None:
        self.messages.append(message)

    def take(self, number: int) -> int:
        return -1


@pytest.fixture
async def opened(directory: Path) -> AsyncIterator[serving.Opened]:
    store = Store(str(directory / "store"))
    save(store, "a", memory(MEMORY // PAGE), devices=stream())
    template = store.open("a")
    template.fetch(0, template.size)
    made = serving.Opened(parse(template.devices(), template.size), TemplateMemory(template))
    yield made
    await made.memory.close()
    store.close()


def served(**request: object) -> serving._Served:
    """A clone that is to be served."""
    told = Told()
    return serving._Served(
        {"id": 1, **request}, cast("Holder", told), Reach(), cast("Channel", told)
    )


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[Awaitable[object]], Awaitable[None]]:
    """Lets time pass by the second, which takes a moment each, until something has ended."""

    async def until_ended(awaited: Awaitable[object]) -> None:
        running = asyncio.ensure_future(awaited)
        real, passed = time.monotonic, 0.0
        monkeypatch.setattr(time, "monotonic", lambda: real() + passed)
        while not running.done():
            await asyncio.sleep(0.01)
            passed += 1.0
        monkeypatch.undo()
        await running

    return until_ended


@pytest.mark.parametrize("accepts", [True, False])
async def test_what_is_no_machine(
    directory: Path,
    opened: serving.Opened,
    accepts: bool,
    pass_time: Callable[[Awaitable[object]], Awaitable[None]],
) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "in"))
        listening.listen(1)
        running = asyncio.ensure_future(served(uri=f"unix:{directory}/in").run(opened, -1))
        if accepts:
            listening.setblocking(False)
            peer, _address = await asyncio.get_running_loop().sock_accept(listening)
            # It says something, as what serves QMP does.
            peer.sendall(b"\0\1\0\4")
        with pytest.raises(QMPError, match="in has not begun within 60 s"):
            await pass_time(running)
        if accepts:
            peer.close()


async def test_a_machine_that_can_not_be_recovered(
    directory: Path,
    opened: serving.Opened,
    pass_time: Callable[[Awaitable[object]], Awaitable[None]],
) -> None:
    """It hangs, and nothing holds a connection to its monitor."""
    path = str(directory / "qmp")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        with pytest.raises(QMPError) as refused:
            await pass_time(served(qmp=path, recover=True).run(opened, -1))
        assert refused.value.desc == (
            f"the machine can't be recovered, and has to be ended: the monitor {path} does not"
            " answer: it may have another client, or the machine hangs"
        )
    assert await served(qmp=path, recover=True).run(opened, -1) == "left"


async def test_a_template_that_changes_while_it_is_opened(directory: Path) -> None:
    place = str(directory / "store")
    daemon = Store(place)
    save(daemon, "a", memory(MEMORY // PAGE), devices=stream())

    class Changed(Store):
        """Another clone's working set comes when the template is open and not yet in use."""

        def open(self, name: str) -> Template:
            template = super().open(name)
            if not template.manifest.working_set:
                daemon.set_working_set(name, reversed(range(MEMORY // PAGE)))
            return template

    ours, theirs = socket.socketpair()
    with ours, theirs:
        reading = Changed(place, readonly=True)
        process = serving.Process(ours, reading, cast("Holder", Told()), Reach())
        opened = await process._open("a")
        template = opened.memory.template
        template.fetch(0, template.size)
        assert template.manifest == daemon.manifest("a")
        await opened.memory.close()
        reading.close()
    daemon.close()
