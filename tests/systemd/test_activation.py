"""Sockets, readiness, status, options, instances: what the manager and memd say to each other."""

from __future__ import annotations

import os
import stat

import pytest

from memd.client import Client
from tests.differential.harness import settle
from tests.systemd.documents import drop_in
from tests.systemd.machine import PATIENCE, Machine

SOCKET = "/run/memd/qmp.sock"

MEMFD = "memory-backend-memfd"

CONNECT = f"""
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    try:
        client.connect({SOCKET!r})
    except OSError as error:
        sys.exit(error.strerror)
    print(client.recv(7))
"""


def add(client: Client, id: str, **arguments: object) -> None:
    client.execute("object-add", {"qom-type": MEMFD, "id": id, "size": 1 << 20, **arguments})


def backends(client: Client) -> list[str]:
    return sorted(backend["id"] for backend in client.execute("query-memdev"))


def test_the_first_client_starts_it(fresh: Machine) -> None:
    fresh.systemctl("start", "memd.socket")
    assert fresh.show("memd.service", "ActiveState") == "inactive"
    with fresh.client() as client:
        assert client.execute("query-status")["running"] is True
    assert fresh.show("memd.service", "SubState") == "running"


def test_whose_the_socket_is(fresh: Machine) -> None:
    fresh.systemctl("start", "memd.socket")
    found = os.stat(fresh.path(SOCKET))
    group = int(fresh.run("getent", "group", "memd").split(":")[2])
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o660, 0, group)


@pytest.mark.parametrize(
    ("groups", "said"), [("memd", "b'{\"QMP\":'\n"), ("kvm", "Permission denied\n")]
)
def test_who_may_connect(fresh: Machine, groups: str, said: str) -> None:
    """A user of the group memd, and nobody else."""
    fresh.systemctl("start", "memd.socket")
    user = ("setpriv", "--reuid=12345", "--regid=12345", f"--groups={groups}")
    wanted = 0 if groups == "memd" else 1
    assert fresh.run(*user, "python3", "-c", CONNECT, wanted=wanted) == said


def test_started_is_ready(fresh: Machine) -> None:
    """`systemctl start` returns once the objects of the options are there."""
    options = f"--object {MEMFD},id=vm0,size=64M,prealloc=on"
    fresh.path("/etc/memd/memd.conf").write_text(f"MEMD_OPTIONS={options}\n")
    fresh.systemctl("start", "memd.service")
    assert fresh.show("memd.service", "SubState") == "running"
    with fresh.client() as client:
        assert backends(client) == ["vm0"]


def test_a_start_that_fails_says_why(fresh: Machine) -> None:
    fresh.path("/etc/memd/memd.conf").write_text("MEMD_OPTIONS=--object no-such-type,id=x\n")
    fresh.drop_in("memd.service", "[Service]\nRestart=no\n")
    fresh.systemctl("start", "memd.service", wanted=1)
    assert fresh.show("memd.service", "ExecMainStatus") == "1"
    assert "no-such-type" in fresh.journal("memd.service")


def test_the_status_is_shown(fresh: Machine) -> None:
    fresh.systemctl("start", "memd.service")
    with fresh.client() as client:
        add(client, "a")
        add(client, "b")
        shown = settle(
            lambda: fresh.show("memd.service", "StatusText"), lambda text: "2 back" in text
        )
    assert "2 backends" in shown
    assert "2 MiB" in shown


def test_more_sockets(fresh: Machine) -> None:
    """Each that the socket unit names is served, by one daemon."""
    fresh.drop_in("memd.socket", drop_in("memd.socket.d/second.conf"))
    fresh.systemctl("start", "memd.socket")
    with fresh.client("/run/memd/second.sock") as second:
        add(second, "vm0")
        with fresh.client() as first:
            assert backends(first) == ["vm0"]


def test_a_socket_is_known_by_its_name(fresh: Machine) -> None:
    fresh.systemctl("start", "memd.socket")
    with fresh.client() as client:
        labels = [each["label"] for each in client.execute("query-chardev")]
    assert labels == ["qmp"]


def test_a_stop_leaves_the_socket(fresh: Machine) -> None:
    """Who connects meanwhile is served by the next one."""
    fresh.systemctl("start", "memd.service")
    fresh.systemctl("stop", "memd.service")
    assert fresh.show("memd.service", "Result") == "success"
    with fresh.client() as client:
        assert client.execute("query-status")["running"] is True


def test_reload(fresh: Machine) -> None:
    """The same process goes on, and says when it is done."""
    fresh.systemctl("start", "memd.service")
    with fresh.client() as client:
        before = fresh.show("memd.service", "MainPID")
        fresh.systemctl("reload", "memd.service")
        assert fresh.show("memd.service", "SubState") == "running"
        assert fresh.show("memd.service", "MainPID") == before
        assert client.execute("query-status")["running"] is True


def test_quit_is_an_end(fresh: Machine) -> None:
    """It is not started again before somebody wants it."""
    fresh.systemctl("start", "memd.service")
    with fresh.client() as client:
        client.execute("quit")
    state = settle(
        lambda: fresh.show("memd.service", "ActiveState"), lambda now: now == "inactive", PATIENCE
    )
    assert state == "inactive"
    assert fresh.show("memd.service", "NRestarts") == "0"


def test_nothing_listens_once_the_socket_is_stopped(fresh: Machine) -> None:
    fresh.systemctl("start", "memd.service")
    fresh.systemctl("stop", "memd.socket")
    assert fresh.show("memd.service", "ActiveState") == "inactive"
    assert not fresh.path(SOCKET).exists()


def test_instances(fresh: Machine) -> None:
    """A socket, a name, options, objects and directories of each one's own."""
    fresh.path("/etc/memd/memd@b.conf").write_text("MEMD_OPTIONS=--compat 11.1\n")
    fresh.systemctl("start", "memd@a.socket", "memd@b.socket", "memd.socket")
    with (
        fresh.client("/run/memd/a.sock") as a,
        fresh.client("/run/memd/b.sock") as b,
        fresh.client() as other,
    ):
        names = [client.execute("query-name") for client in (a, b, other)]
        assert names == [{"name": "a"}, {"name": "b"}, {}]
        versions = [client.execute("query-version")["qemu"]["major"] for client in (a, b)]
        assert versions == [10, 11]
        add(a, "vm0")
        assert [backends(client) for client in (a, b, other)] == [["vm0"], [], []]
        file = {"qom-type": "memory-backend-file", "id": "f", "size": 4096, "share": True}
        a.execute("object-add", {**file, "mem-path": "/var/lib/memd-a/f"})
        with pytest.raises(Exception, match="Read-only file system"):
            b.execute("object-add", {**file, "mem-path": "/var/lib/memd-a/g"})
    for directory in ("/var/lib/memd", "/var/lib/memd-a", "/var/lib/memd-b"):
        assert stat.S_IMODE(os.stat(fresh.path(directory)).st_mode) == 0o700
