"""The pytest plugin: fixtures, a marker, and the daemon's log in failure reports.

pytest imports it wherever memd is installed, so it imports nothing else until a
fixture is used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from memd.client import AsyncClient, Client
    from memd.testing.server import Server

MARKER = (
    "memd(options=[], faults=[], compat=None, replay=None, scope='test'): how the server of"
    " `memd_server` is started; with scope='session' it is the one of `memd_session_server`,"
    " which is reset after the test"
)

_KEY = pytest.StashKey["Server"]()


def pytest_configure(config: pytest.Config) -> None:
    """Tell of the marker; have fixtures for asyncio where pytest-asyncio is there."""
    config.addinivalue_line("markers", MARKER)
    if config.pluginmanager.hasplugin("asyncio"):
        from memd.testing import plugin_asyncio

        config.pluginmanager.register(plugin_asyncio, "memd-asyncio")


@pytest.fixture(scope="session")
def memd_session_server() -> Iterator[Server]:
    """A server for all tests of this process."""
    from memd.testing.server import Server

    with Server() as server:
        yield server


@pytest.fixture
def memd_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server of this test's own, unless `@pytest.mark.memd` says otherwise."""
    from memd.testing.server import Server

    members: dict[str, Any] = {}
    for marker in request.node.iter_markers("memd"):
        # The closest one comes first.
        members = {**marker.kwargs, **members}
    scope = members.pop("scope", "test")
    if scope == "session":
        if set(members) - {"faults"}:
            raise pytest.UsageError("a server of the session can't be given options")
        server = request.getfixturevalue("memd_session_server")
        request.node.stash[_KEY] = server
        for fault in members.get("faults", ()):
            server.tell("x-test-fault-add", dict(fault))
        yield server
        server.reset()
        return
    server = Server(**members)
    request.node.stash[_KEY] = server
    with server:
        yield server


@pytest.fixture
def memd_qmp(memd_server: Server) -> Iterator[Client]:
    """A client that is connected to `memd_server`."""
    with memd_server.connect() as client:
        yield client


@pytest.fixture
def memd_connect(memd_server: Server) -> Iterator[Callable[[], Awaitable[AsyncClient]]]:
    """Connects clients for asyncio to `memd_server`: `qmp = await memd_connect()`.

    It works in any event loop, whichever plugin runs it. The clients are closed
    after the test.
    """
    clients: list[AsyncClient] = []

    async def connect() -> AsyncClient:
        clients.append(await memd_server.connect_async())
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the server's log, and what was said, to the report of a failure."""
    report = yield
    if report.failed:
        server = item.stash.get(_KEY, None) or getattr(
            getattr(item, "instance", None), "memd", None
        )
        if server is not None and hasattr(server, "log"):
            report.sections += _sections(server)
    return report


def _sections(server: Server) -> list[tuple[str, str]]:
    import json

    sections = [("memd log", server.log or "(empty)")]
    if server.alive:
        try:
            said = server.transcript
        except Exception as error:
            # It may be in any state: that is what the report is about.
            sections.append(("memd transcript", repr(error)))
        else:
            lines = [json.dumps(entry)[:500] for entry in said[-50:]]
            sections.append(("memd transcript, its last 50 messages", "\n".join(lines)))
    return sections
