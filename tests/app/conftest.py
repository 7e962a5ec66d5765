"""Starts daemons that serve a socket of their own besides what a test asks for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memd.hostmem import noting
from tests.app.life import Begin, Life
from tests.app.starting import Start
from tests.clients.harness_server import qemu_system_memd
from tests.differential.kernel import regions
from tests.differential.server import Server
from tests.manager import ServiceManager


@pytest.fixture
def start(directory: Path) -> Iterator[Start]:
    """Starts a `qemu-system-memd` that serves a socket of its own besides."""
    servers: list[Server] = []

    def start(*options: str) -> Server:
        place = directory / f"server{len(servers)}"
        place.mkdir()
        argv = [*qemu_system_memd(), "-machine", "none", *options]
        servers.append(Server("qemu-system-memd", argv, place))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def begin(
    manage: Callable[..., ServiceManager], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Begin]:
    """Begins lives on one manager; nothing of the last one may be left."""
    here, nowhere = os.getpid(), Path("/nowhere")
    manager = manage(capacity=64)
    before = regions(here, nowhere), threading.active_count()
    lives: list[Life] = []

    def begin(*objects: dict[str, Any], **config: Any) -> Any:
        lives.append(Life(manager, monkeypatch, objects, **config))
        return lives[-1].begin()

    yield begin
    if lives:
        lives[-1].kill()
    for thread in threading.enumerate():
        if thread.name.startswith("TC "):
            thread.join(20)
    assert (regions(here, nowhere), threading.active_count()) == before
    assert noting.watcher is None
