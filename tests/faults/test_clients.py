"""A thousand bad clients, a flood of commands: clients that behave are served all the same.

The worst wait of a good client is printed (`pytest -s`), not asserted: this machine
may be busy with other things. docs/limits.md has figures.
"""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import NOT_HERE
from tests.differential.harness import settle
from tests.differential.kernel import descriptors, regions
from tests.differential.server import PATIENCE, TREE, Died, Monitor, Server
from tests.faults.conftest import MIB, arguments, error, memory
from tests.faults.crowd import KINDS

COUNT = 1000
ANSWERS = 60
"""Answers that a good client gets meanwhile."""


@pytest.fixture
def descriptors_for_a_crowd() -> Iterator[None]:
    """Descriptors for the clients, and as many for the daemon, which inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3 * COUNT:
        pytest.skip(f"{NOT_HERE}descriptors for {COUNT} clients")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3 * COUNT), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def crowd(kind: str, server: Server, count: int) -> Iterator[None]:
    """Bad clients for the length of a `with` block, in a process of their own."""
    command = [sys.executable, "-m", "tests.faults.crowd", kind, str(server.path), str(count)]
    with subprocess.Popen(command, cwd=TREE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield
        finally:
            process.kill()


def worst_wait(monitor: Monitor) -> float:
    """The longest that a client waited for one of its answers, in seconds."""
    worst = 0.0
    for _ in range(ANSWERS):
        begun = time.monotonic()
        assert monitor.execute("query-status")["return"]["running"] is True
        worst = max(worst, time.monotonic() - begun)
        time.sleep(0.001)
    return worst


@pytest.mark.usefixtures("descriptors_for_a_crowd")
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_thousand_of_a_kind(start_memd: Callable[..., Server], kind: str) -> None:
    server = start_memd("--max-held", "64M")
    monitor = server.monitor()
    worst_wait(monitor)
    before = descriptors(server.pid)
    used = memory(server.pid)
    with crowd(kind, server, COUNT):
        worst = worst_wait(monitor)
        # A newcomer is served, too.
        newcomer = settle(lambda: newcomer_of(server), bool, PATIENCE)
        assert newcomer is not None
        assert newcomer.execute("query-name") == {"return": {}}
        newcomer.close()
        more = memory(server.pid) - used
        assert more < 256 * MIB
    print(f"\n{kind}: worst wait {worst * 1000:.1f} ms, {more / MIB:.0f} MiB more")
    left = settle(lambda: descriptors(server.pid), lambda now: now == before, PATIENCE)
    assert left == before
    # A client that leaves at the right moment has its object made, and what would delete it
    # dropped: such an object stays, as with QEMU. Nothing else does.
    made, kept = settle(
        lambda: (monitor.execute("query-memdev")["return"], regions(server.pid, TREE)),
        lambda now: len(now[0]) == len(now[1]),
        PATIENCE,
    )
    assert len(kept) == len(made)
    assert kind == "leave" or made == []
    for backend in made:
        assert monitor.execute("object-del", {"id": backend["id"]}) == {"return": {}}
    assert settle(lambda: regions(server.pid, TREE), lambda now: now == [], PATIENCE) == []


def newcomer_of(server: Server) -> Monitor | None:
    """A further client; None where too many wait to be accepted just now (connect(2), EAGAIN)."""
    try:
        return server.monitor()
    except BlockingIOError:
        return None


FLOODS = {
    "commands": b'{"execute":"query-status"}' * 100_000,
    "errors": b"}" * 200_000,
    "objects": b"".join(
        b'{"execute":"object-add","arguments":{"qom-type":"memory-backend-memfd","id":"f%d",'
        b'"size":65536}}{"execute":"object-del","arguments":{"id":"f%d"}}' % (number, number)
        for number in range(3000)
    ),
}


@pytest.mark.parametrize("kind", sorted(FLOODS))
def test_a_flood_of_commands(start_memd: Callable[..., Server], kind: str) -> None:
    """One client's hundred thousand commands at once, and another that wants an answer."""
    server = start_memd()
    good, flood = server.monitor(), server.monitor()
    good.execute("query-status")
    data = FLOODS[kind]
    expected = len(data) if kind == "errors" else data.count(b"execute")
    flood.socket.setblocking(False)
    sent = answered = waits = 0
    worst = 0.0
    while answered < expected:
        with contextlib.suppress(BlockingIOError):
            sent += flood.socket.send(data[sent : sent + (1 << 20)])
        begun = time.monotonic()
        assert good.execute("query-status")["return"]["running"] is True
        worst, waits = max(worst, time.monotonic() - begun), waits + 1
        with contextlib.suppress(BlockingIOError):
            answered += flood.socket.recv(1 << 22).count(b"\n")
    print(f"\nflood of {kind}: worst wait {worst * 1000:.1f} ms of {waits}")
    assert answered == expected
    assert waits > 5


def test_one_message_of_many_pieces(start_memd: Callable[..., Server]) -> None:
    """60 MiB without an end are held; with an end, and in the end too long, it is an error."""
    server = start_memd()
    good, bad = server.monitor(), server.monitor()
    bad.send(b'{"execute": "query-status", "id": "')
    for _ in range(60):
        bad.send(b"x" * MIB)
        assert good.execute("query-status")["return"]["running"] is True
    for _ in range(5):
        bad.send(b"x" * MIB)
    assert error(bad.read_answer()) == "JSON token size limit exceeded"
    assert good.execute("query-status")["return"]["running"] is True


def test_a_smaller_message_limit(start_memd: Callable[..., Server]) -> None:
    server = start_memd("--max-message", "64k")
    monitor = server.monitor()
    fits = {"execute": "query-name", "id": "x" * 65_000}
    monitor.send(json.dumps(fits).encode())
    assert monitor.read_answer() == {"return": {}, "id": fits["id"]}
    monitor.send(json.dumps({**fits, "id": "x" * 65_536}).encode())
    assert error(monitor.read_answer()) == "JSON token size limit exceeded"


def test_the_limit_on_clients(start_memd: Callable[..., Server]) -> None:
    """One too many sees the end of the stream before any greeting; room is made by who leaves."""
    server = start_memd("--max-clients", "3")
    monitors = [server.monitor() for _ in range(3)]
    before = descriptors(server.pid)
    for _ in range(10):
        with pytest.raises(Died):
            server.monitor()
    assert settle(lambda: descriptors(server.pid), lambda now: now == before) == before
    told = "a client was turned away: there are 3, 3 of its user"
    # Once a second.
    assert 0 < server.stderr(told).count(told) < 10
    monitors.pop().close()
    assert settle(lambda: _is_served(server), bool, PATIENCE)
    for monitor in monitors:
        assert monitor.execute("query-status")["return"]["running"] is True


def _is_served(server: Server) -> bool:
    try:
        server.monitor().close()
    except Died:
        return False
    return True


def test_who_does_not_negotiate_in_time(start_memd: Callable[..., Server]) -> None:
    server = start_memd("--negotiation-timeout", "1")
    good, silent = server.monitor(), server.monitor(negotiate=False)
    told = silent.read()
    assert told["error"]["desc"] == "capabilities were not negotiated in time"
    assert silent.at_end()
    assert good.execute("query-status")["return"]["running"] is True


def test_held_output(start_memd: Callable[..., Server]) -> None:
    """A client that asks for more than may be held, and does not read, is disconnected."""
    server = start_memd("--max-held-output", "2M", "--compat", "11.1")
    good, deaf = server.monitor(), server.monitor()
    assert good.execute("object-add", arguments("memfd", size=16 * MIB)) == {"return": {}}
    before = descriptors(server.pid)
    paths = {"paths": ["/objects/m"] * 5000}
    deaf.send(json.dumps({"execute": "qom-list-get", "arguments": paths}).encode())
    assert settle(lambda: descriptors(server.pid), lambda now: now != before, PATIENCE) != before
    # What is made as it is read is not held.
    read = {"id": "m", "offset": 0, "length": 5 * MIB}
    answer = good.execute("x-memdev-read", read)
    assert len(answer["return"]["data"]) == (5 * MIB + 2) // 3 * 4
