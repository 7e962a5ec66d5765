"""What outlives the daemon, with the real manager and its store."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from memd.client import Client
from tests.differential.harness import settle
from tests.differential.kernel import descriptors
from tests.kvm import needs_guest_memfd
from tests.systemd.machine import PATIENCE, Machine

UNIT = "memd.service"

SIZE = 1 << 17

KEPT: list[dict[str, Any]] = [
    {"qom-type": "memory-backend-memfd", "id": "memfd", "prealloc": True, "seal": False},
    {"qom-type": "memory-backend-shm", "id": "shm"},
    {"qom-type": "memory-backend-ram", "id": "ram", "share": True, "dump": False},
    {
        "qom-type": "memory-backend-file",
        "id": "file",
        "share": True,
        "mem-path": "/var/lib/memd/file",
    },
]
"""Backends whose memory has a descriptor."""

PRIVATE = {"qom-type": "memory-backend-ram", "id": "private", "size": SIZE}


def known(id: str) -> bytes:
    """The bytes that a backend gets, in its first and its last page."""
    return f"what was written to {id}".encode()


def fill(client: Client, backends: list[dict[str, Any]]) -> None:
    for backend in backends:
        client.execute("object-add", {"size": SIZE, **backend})
        for offset in (0, SIZE - 4096):
            client.write(backend["id"], offset, known(backend["id"]))


def expect(client: Client, backends: list[dict[str, Any]]) -> None:
    """They are all there, with their properties and every byte."""
    listed = client.execute("query-memdev")
    assert {each["id"] for each in listed} == {each["id"] for each in backends}
    for backend in backends:
        id = backend["id"]
        data = client.read(id, 0, SIZE)
        assert data.startswith(known(id))
        assert data[SIZE - 4096 :].startswith(known(id))
        assert data.strip(b"\0").count(b"\0") == SIZE - 4096 - len(known(id))
        for name in backend.keys() - {"qom-type", "id"}:
            shown = client.execute("qom-get", {"path": id, "property": name})
            assert shown == backend[name], f"{name} of {id}"
        (found,) = client.execute("x-memdev-stat", {"id": id})
        assert found["share"]


def restart(machine: Machine) -> None:
    machine.systemctl("restart", UNIT)


def kill(machine: Machine) -> None:
    os.kill(machine.pid_of(UNIT), signal.SIGKILL)


def stop_and_start(machine: Machine) -> None:
    machine.systemctl("stop", UNIT)
    machine.systemctl("start", UNIT)


def upgrade(machine: Machine) -> None:
    """Another program takes the old one's place, and the service is restarted."""
    machine.path("/opt/memd").write_text('#!/bin/sh\nexec /usr/bin/memd --name upgraded "$@"\n')
    machine.path("/opt/memd").chmod(0o755)
    machine.drop_in(UNIT, "[Service]\nExecStart=\nExecStart=/opt/memd $MEMD_OPTIONS\n")
    machine.systemctl("restart", UNIT)


def reexecute(machine: Machine) -> None:
    """The manager itself is upgraded, and then the daemon dies."""
    machine.systemctl("daemon-reexec")
    kill(machine)


def hang(machine: Machine) -> None:
    """The daemon does nothing any more, and the watchdog sees it."""
    os.kill(machine.pid_of(UNIT), signal.SIGSTOP)


def another(machine: Machine, before: str) -> str:
    """The process id of the daemon after the one of before, once it is ready."""

    def now() -> str:
        if machine.show(UNIT, "SubState") != "running":
            return before
        return machine.show(UNIT, "MainPID")

    after = settle(now, lambda pid: pid not in ("0", before), PATIENCE)
    assert after not in ("0", before), machine.journal(UNIT)
    return after


@pytest.mark.parametrize("end", [restart, kill, stop_and_start, upgrade, reexecute])
def test_memory_outlives_the_daemon(fresh: Machine, end: Callable[[Machine], None]) -> None:
    fresh.systemctl("start", UNIT)
    before = fresh.show(UNIT, "MainPID")
    with fresh.client() as client:
        fill(client, KEPT)
    end(fresh)
    with fresh.client() as client:
        expect(client, KEPT)
        if end is upgrade:
            assert client.execute("query-name") == {"name": "upgraded"}
        assert client.execute("x-memdev-lost") == []
        # And it is not the end: they can go, and others come.
        client.execute("object-del", {"id": "shm"})
        fill(client, [{"qom-type": "memory-backend-memfd", "id": "later"}])
    another(fresh, before)
    fresh.systemctl("restart", UNIT)
    with fresh.client() as client:
        expect(client, [each for each in KEPT if each["id"] != "shm"] + [{"id": "later"}])


def test_the_watchdog(fresh: Machine) -> None:
    """One that hangs is ended and started again, with all that it had."""
    fresh.drop_in(UNIT, "[Service]\nWatchdogSec=2\n")
    fresh.systemctl("start", UNIT)
    with fresh.client() as client:
        fill(client, KEPT)
    before = fresh.show(UNIT, "MainPID")
    hang(fresh)
    another(fresh, before)
    assert "Watchdog timeout" in fresh.journal(UNIT)
    with fresh.client() as client:
        expect(client, KEPT)


def test_one_that_dies_is_replaced_at_once(fresh: Machine) -> None:
    """Before any client wants it."""
    fresh.systemctl("start", UNIT)
    before = fresh.show(UNIT, "MainPID")
    kill(fresh)
    another(fresh, before)
    assert fresh.show(UNIT, "NRestarts") == "1"


@needs_guest_memfd
def test_guest_memfd(fresh: Machine) -> None:
    backends = [{"qom-type": "memory-backend-guest-memfd", "id": "guest"}]
    fresh.systemctl("start", UNIT)
    with fresh.client() as client:
        fill(client, backends)
    fresh.systemctl("restart", UNIT)
    with fresh.client() as client:
        expect(client, backends)


def test_huge_pages(fresh: Machine, hugepages: Callable[[int], None]) -> None:
    hugepages(2)
    size = 2 << 20
    fresh.systemctl("start", UNIT)
    with fresh.client() as client:
        huge = {"qom-type": "memory-backend-memfd", "id": "huge", "size": size, "hugetlb": True}
        client.execute("object-add", huge)
        client.write("huge", size - 5, b"known")
    kill(fresh)
    with fresh.client() as client:
        assert client.read("huge", size - 5, 5) == b"known"
        (found,) = client.execute("x-memdev-stat", {"id": "huge"})
        assert found["page-size"] == size


def test_objects_of_the_options_are_the_same_ones_again(fresh: Machine) -> None:
    options = f"--object memory-backend-memfd,id=vm0,size={SIZE}"
    fresh.path("/etc/memd/memd.conf").write_text(f"MEMD_OPTIONS={options}\n")
    fresh.systemctl("start", UNIT)
    with fresh.client() as client:
        client.write("vm0", 0, b"known bytes")
    kill(fresh)
    with fresh.client() as client:
        assert client.read("vm0", 0, 11) == b"known bytes"


def test_what_is_lost_is_named(fresh: Machine) -> None:
    """To clients, in the status and in the log."""
    fresh.systemctl("start", UNIT)
    with fresh.client() as client:
        fill(client, KEPT[:1])
        client.execute("object-add", PRIVATE)
    fresh.systemctl("restart", UNIT)
    with fresh.client() as client:
        expect(client, KEPT[:1])
        assert [each["id"] for each in client.execute("x-memdev-lost")] == ["private"]
    shown = settle(lambda: fresh.show(UNIT, "StatusText"), lambda text: "lost" in text)
    assert "lost: private" in shown
    assert "private" in fresh.journal(UNIT)


def test_the_store_can_be_emptied(fresh: Machine) -> None:
    """What a stop has left in memory goes when it is told to."""
    fresh.systemctl("start", UNIT)
    with fresh.client() as client:
        fill(client, KEPT)
    assert int(fresh.show(UNIT, "NFileDescriptorStore")) > len(KEPT)
    fresh.systemctl("stop", UNIT)
    assert held(fresh) != []
    fresh.systemctl("clean", "--what=fdstore", UNIT)
    # systemd closes them asynchronously.
    assert settle(lambda: held(fresh), lambda now: now == []) == []
    assert fresh.show(UNIT, "NFileDescriptorStore") == "0"
    fresh.systemctl("start", UNIT)
    with fresh.client() as client:
        assert client.execute("query-memdev") == []


def held(machine: Machine) -> list[str]:
    """The memory that the manager holds descriptors of."""
    memory = ("/memfd:memory-", "/dev/shm", "/dev/zero")
    return [name for name in descriptors(machine.leader) if name.startswith(memory)]


@pytest.mark.parametrize("enabled", ["memd.socket", UNIT])
def test_what_is_enabled_is_kept_without_its_socket(fresh: Machine, enabled: str) -> None:
    fresh.systemctl("enable", enabled)
    fresh.systemctl("start", UNIT)
    with fresh.client() as client:
        fill(client, KEPT)
    fresh.systemctl("stop", "memd.socket", UNIT)
    fresh.systemctl("start", UNIT)
    with fresh.client() as client:
        expect(client, KEPT)


def test_what_is_not_enabled_goes_with_its_socket(fresh: Machine) -> None:
    """Then nothing refers to the service any more, and the manager forgets it."""
    fresh.systemctl("start", UNIT)
    with fresh.client() as client:
        fill(client, KEPT)
    fresh.systemctl("stop", "memd.socket", UNIT)
    assert settle(lambda: held(fresh), lambda now: now == []) == []


def test_nothing_is_held_of_what_is_deleted(fresh: Machine) -> None:
    fresh.systemctl("start", UNIT)
    before = fresh.show(UNIT, "NFileDescriptorStore")
    with fresh.client() as client:
        fill(client, KEPT)
        for backend in KEPT:
            client.execute("object-del", {"id": backend["id"]})
    assert settle(lambda: held(fresh), lambda now: now == []) == []
    after = settle(lambda: fresh.show(UNIT, "NFileDescriptorStore"), lambda now: now == before)
    assert after == before


def test_who_connects_meanwhile_is_served(fresh: Machine) -> None:
    """While the daemon is not there the socket is, and nobody is refused."""
    fresh.systemctl("start", UNIT)
    with fresh.client() as client:
        fill(client, KEPT)
        fresh.drop_in(UNIT, "[Service]\nRestartSec=1\n")
        kill(fresh)
        assert client.timeout
        with pytest.raises(ConnectionError):
            client.execute("query-status")
    # The manager waits a second before it starts another.
    with fresh.client() as client:
        expect(client, KEPT)


def test_instances_have_stores_of_their_own(fresh: Machine) -> None:
    fresh.systemctl("start", "memd@a.service", "memd@b.service")
    for name in "ab":
        with fresh.client(f"/run/memd/{name}.sock") as client:
            fill(client, [{"qom-type": "memory-backend-memfd", "id": f"of-{name}"}])
    fresh.systemctl("restart", "memd@a.service")
    fresh.systemctl("stop", "memd@b.service")
    fresh.systemctl("start", "memd@b.service")
    for name in "ab":
        with fresh.client(f"/run/memd/{name}.sock") as client:
            expect(client, [{"id": f"of-{name}"}])
