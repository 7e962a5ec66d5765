"""One daemon with --test-faults for all tests of a worker, told everything anew by each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from memd.testing import Server
from tests.differential.server import Monitor

Connect = Callable[..., Monitor]


@pytest.fixture(scope="session")
def kept_server() -> Iterator[Server]:
    with Server() as server:
        # Its descriptors are counted, and the first command connects.
        server.reset()
        yield server


@pytest.fixture
def server(kept_server: Server) -> Iterator[Server]:
    """A daemon without faults and objects, whose next client is its first."""
    yield kept_server
    for client in kept_server._clients:
        client.close()
    kept_server.reset()
    assert kept_server.alive, kept_server.log


@pytest.fixture
def connect(server: Server) -> Iterator[Connect]:
    """Connects clients that share no code with memd."""
    monitors: list[Monitor] = []

    def connect(*, negotiate: bool = True) -> Monitor:
        monitors.append(Monitor(server.socket, negotiate=negotiate))
        return monitors[-1]

    yield connect
    for monitor in monitors:
        monitor.close()
