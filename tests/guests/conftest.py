"""One machine is recorded for all tests of guests, and a daemon's servers run for each."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import subprocess
from array import array
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memd.pages.servers import Servers, Settings
from memd.pages.store import Store
from memd.work import Completion, Event, Resume, Wait, begin
from tests.conftest import NOT_HERE
from tests.guests import image
from tests.guests.guest import Guest, memory, record


@pytest.fixture(scope="session")
def kernel() -> None:
    """What a guest needs is here."""
    if platform.machine() != "x86_64":
        pytest.skip(f"{NOT_HERE}an x86-64 machine")
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("needs qemu-system-x86_64: it is not on PATH")
    try:
        image.make()
    except (OSError, subprocess.CalledProcessError) as failed:
        reason = getattr(failed, "stderr", "") or str(failed)
        pytest.skip(f"needs Debian's cloud kernel and busybox: {reason.strip()[-200:]}")
    opened = Path("/proc/sys/vm/unprivileged_userfaultfd")
    if os.geteuid() != 0 and opened.exists() and opened.read_text().strip() == "0":
        pytest.skip(f"{NOT_HERE}userfaultfd for ordinary users")


@pytest.fixture(scope="session")
def recorded(kernel: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with the `memory` and the `devices` of a guest that has booted."""
    place = tmp_path_factory.mktemp("recorded")
    with (place / "memory").open("wb") as file:
        file.truncate(128 << 20)
    source = Guest(place / "m", memory("file", mem_path=place / "memory", share="on"), boots=True)
    try:
        source.hear("READY")
        source.check()
        record(source, place / "devices")
    finally:
        source.close()
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="session")
def store(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store that has the recorded machine as the template `guest`."""
    place = tmp_path_factory.mktemp("store")
    templates = Store(str(place))
    with (recorded / "memory").open("rb") as file:
        devices = (recorded / "devices").read_bytes()
        writer = templates.begin("guest")
        writer.store(file.fileno(), 128 << 20, devices=devices, machine="q35")
    templates.close()
    yield place
    shutil.rmtree(place)


class Serving:
    """A daemon's servers, and what they have told.

    Attributes:
        events: what clients would be told.
        learnt: the working sets that would be stored.
    """

    def __init__(self, store: Path, most: int | None = None) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.learnt: dict[str, array[int]] = {}
        self.servers = Servers(Settings(str(store)), self._emit, self.learnt.__setitem__, most=most)

    def _emit(self, events: tuple[Event, ...]) -> None:
        for event in events:
            self.events.put_nowait(event)

    async def serve(self, **request: Any) -> None:
        """Serve a clone; returns once it is connected to."""
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(_value: Any, refusal: BaseException | None) -> None:
            if refusal is None:
                begun.set_result(None)
            else:
                begun.set_exception(refusal)

        def start(wait: Wait, resume: Resume) -> None:
            assert isinstance(wait, Completion)
            wait.then(lambda: resume(None, None))

        named = {key.replace("_", "-"): value for key, value in request.items()}
        begin(self.servers.serve({"template": "guest", **named}), start, done)
        await asyncio.wait_for(begun, 60)

    async def ended(self) -> dict[str, Any]:
        """What is told of the next clone that has ended."""
        event = await asyncio.wait_for(self.events.get(), 60)
        assert event.name == "X_TEMPLATE_SERVED"
        assert event.data is not None
        return event.data


@pytest.fixture
async def serving(store: Path) -> AsyncIterator[Serving]:
    """Servers of that store."""
    made = Serving(store)
    yield made
    await made.servers.close()


@pytest.fixture
def start_guest(directory: Path, kernel: None) -> Iterator[Callable[..., Guest]]:
    """Starts machines, which end with the test: start_guest(backend, *options, **how)."""
    guests: list[Guest] = []

    def start(backend: str, *options: str, **how: Any) -> Guest:
        guests.append(Guest(directory / f"guest{len(guests)}", backend, options, **how))
        return guests[-1]

    yield start
    for guest in guests:
        guest.close()
