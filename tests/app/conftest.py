"""Starts daemons that serve a socket of their own besides what a test asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.starting import Start
from tests.differential.server import Server, qemu_system_memd


@pytest.fixture
def start(directory: Path) -> Iterator[Start]:
    """Starts a `qemu-system-memd` that serves a socket of its own besides."""
    servers: list[Server] = []

    def start(*options: str) -> Server:
        place = directory / f"server{len(servers)}"
        place.mkdir()
        argv = [*qemu_system_memd(), "-machine", "none", "-clients", "many", *options]
        servers.append(Server("qemu-system-memd", argv, place))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
