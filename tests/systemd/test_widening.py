"""What an operator can change, in the words of docs/systemd.md."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from memd.client import Client
from memd.errors import QMPError
from tests.differential.harness import settle
from tests.systemd.documents import drop_in
from tests.systemd.machine import Machine

PAGES_2M = "/sys/kernel/mm/hugepages/hugepages-2048kB"

CONNECT_TCP = """
import socket
with socket.create_connection(("127.0.0.1", 47400)) as client:
    print(client.recv(7))
"""

FIRST_MESSAGE = """
import socket
with socket.socket(socket.AF_UNIX) as client:
    client.connect("/run/memd/qmp.sock")
    print(client.recv(1000))
"""


def add_file(client: Client, path: str, **properties: Any) -> None:
    backend = {"qom-type": "memory-backend-file", "id": "m", "size": 4096, "share": True}
    client.execute("object-add", {**backend, "mem-path": path, **properties})


def test_files_in_shared_memory_outlive_a_stop(fresh: Machine) -> None:
    """RemoveIPC=yes would delete them."""
    fresh.systemctl("start", "memd.service")
    with fresh.client() as client:
        add_file(client, "/dev/shm/m")
        client.write("m", 0, b"known bytes")
    fresh.systemctl("stop", "memd.socket", "memd.service")
    assert fresh.path("/dev/shm/m").read_bytes()[:11] == b"known bytes"


def test_a_directory_that_is_let_in(fresh: Machine) -> None:
    fresh.run("install", "-d", "-o", "memd", "/srv/templates")
    fresh.drop_in("memd.service", drop_in("memd.service.d/templates.conf"))
    fresh.systemctl("start", "memd.service")
    with fresh.client() as client:
        add_file(client, "/srv/templates/m")


def test_files_on_hugetlbfs(fresh: Machine, hugepages: Callable[[int], None]) -> None:
    if not os.path.isdir(PAGES_2M):
        pytest.skip("not here: huge pages of 2 MiB")
    hugepages(2)
    fresh.drop_in("memd.service", drop_in("memd.service.d/hugepages.conf"))
    fresh.systemctl("start", "memd.service")
    with fresh.client() as client:
        add_file(client, "/dev/hugepages/memd", size=2 << 20, prealloc=True)
        (found,) = client.execute("x-memdev-stat", {"id": "m"})
        assert found["page-size"] == 2 << 20


def test_tcp(fresh: Machine) -> None:
    options = "--qmp tcp:127.0.0.1:47400,server=on,wait=off"
    fresh.path("/etc/memd/memd.conf").write_text(f"MEMD_OPTIONS={options}\n")
    fresh.drop_in("memd.service", drop_in("memd.service.d/tcp.conf"))
    fresh.systemctl("start", "memd.service")
    assert fresh.run("python3", "-c", CONNECT_TCP) == "b'{\"QMP\":'\n"


def test_a_socket_of_its_own(fresh: Machine) -> None:
    """In its runtime directory, which goes with it."""
    path = "/run/memd/qmp/look.sock"
    options = f"--qmp unix:{path},server=on,wait=off,readonly=on"
    fresh.path("/etc/memd/memd.conf").write_text(f"MEMD_OPTIONS={options}\n")
    fresh.systemctl("start", "memd.service")
    with fresh.client(path) as look, fresh.client() as usual:
        add_file(usual, "/dev/shm/m")
        assert look.execute("query-memdev") == usual.execute("query-memdev")
        with pytest.raises(QMPError, match="read-only"):
            look.execute("object-del", {"id": "m"})
    fresh.systemctl("stop", "memd.service")
    assert not fresh.path(path).exists()


def test_some_of_the_group_only(fresh: Machine) -> None:
    """`--allow-user` knows who has connected, through the socket of the manager."""
    fresh.path("/etc/memd/memd.conf").write_text("MEMD_OPTIONS=--allow-user root\n")
    fresh.systemctl("start", "memd.service")
    with fresh.client() as client:
        client.execute("query-status")
    user = ("setpriv", "--reuid=12345", "--regid=12345", "--groups=memd")
    said = fresh.run(*user, "python3", "-c", FIRST_MESSAGE)
    assert "QMP" not in said


def test_the_audit_is_in_the_journal(fresh: Machine) -> None:
    fresh.systemctl("start", "memd.service")
    with fresh.client() as client:
        add_file(client, "/dev/shm/m")
    said = settle(lambda: fresh.journal("memd.service"), lambda text: "object-add" in text)
    assert "object-add" in said
