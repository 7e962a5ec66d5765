"""What memd promises, kept inside of its sandbox.

The client is outside, as clients are.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import Any

import pytest

from memd.client import Client
from memd.errors import QMPError
from tests.kvm import needs_guest_memfd
from tests.systemd.machine import Machine

MIB = 1 << 20


def add(client: Client, type: str, size: int = MIB, id: str = "m", **properties: Any) -> None:
    """Make a backend; underscores in names are dashes."""
    named = {name.replace("_", "-"): value for name, value in properties.items()}
    backend = {"qom-type": f"memory-backend-{type}", "id": id, "size": size}
    client.execute("object-add", {**backend, **named})


def stat(client: Client, id: str = "m") -> dict[str, Any]:
    (found,) = client.execute("x-memdev-stat", {"id": id})
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("type", "properties"),
    [
        ("ram", {}),
        ("ram", {"share": True}),
        ("ram", {"reserve": False}),
        ("ram", {"merge": True, "dump": False}),
        ("ram", {"policy": "bind", "host-nodes": [0]}),
        ("ram", {"policy": "preferred", "host-nodes": [0], "prealloc": True}),
        ("ram", {"policy": "interleave", "host-nodes": [0]}),
        ("memfd", {}),
        ("memfd", {"seal": False}),
        ("shm", {}),
        ("file", {"mem-path": "/dev/shm/m", "share": True}),
        ("file", {"mem-path": "/dev/shm", "share": True}),
        ("file", {"mem-path": "/var/lib/memd/m", "share": True}),
        ("file", {"mem-path": "/var/lib/memd"}),
        ("file", {"mem-path": "/tmp/m", "share": True}),
    ],
)
def test_backends(client: Client, type: str, properties: dict[str, Any]) -> None:
    """Made, written, read, discarded, measured."""
    add(client, type, **properties)
    client.write("m", 4090, b"known bytes")
    assert client.read("m", 4090, 11) == b"known bytes"
    client.execute("x-memdev-discard", {"id": "m", "offset": 0, "length": 8192})
    assert client.read("m", 4090, 11) == bytes(11)
    client.write("m", 0, b"x" * MIB)
    assert stat(client)["resident"] == MIB


def test_read_only_files(client: Client) -> None:
    """Where the user may read, memd may, and nothing more."""
    add(client, "file", 4096, mem_path="/usr/bin/env", readonly=True)
    assert client.read("m", 0, 4) == b"\x7fELF"
    with pytest.raises(QMPError, match="read-only memory"):
        client.write("m", 0, b"no")


@pytest.mark.parametrize("path", ["/etc/m", "/usr/m", "/var/lib/m", "/run/memd/m", "/srv/m"])
def test_paths_that_are_refused(client: Client, path: str) -> None:
    with pytest.raises(QMPError, match=f"{path} .*: Read-only file system"):
        add(client, "file", mem_path=path, share=True)


def test_threads_fill_memory(client: Client) -> None:
    """Several, on a CPU of choice."""
    context = {"qom-type": "thread-context", "id": "t", "cpu-affinity": [0]}
    client.execute("object-add", context)
    add(client, "memfd", 8 * MIB, prealloc=True, prealloc_threads=4, prealloc_context="t")
    assert stat(client)["resident"] == 8 * MIB


def test_huge_pages(client: Client, hugepages: Callable[[int], None]) -> None:
    """Without a right of its own, and no locked memory."""
    hugepages(4)
    add(client, "memfd", 4 * MIB, hugetlb=True, prealloc=True)
    assert stat(client)["page-size"] == 2 * MIB
    assert stat(client)["resident"] == 4 * MIB


@needs_guest_memfd
def test_guest_memfd(client: Client) -> None:
    """/dev/kvm is the one device that is let in."""
    add(client, "guest-memfd", prealloc=True)
    client.write("m", 0, b"known bytes")
    assert client.read("m", 0, 11) == b"known bytes"


@pytest.mark.parametrize("type", ["memfd", "shm", "ram"])
def test_a_descriptor_for_others(client: Client, type: str) -> None:
    """It leaves the sandbox, and is the same memory."""
    add(client, type, share=True)
    client.write("m", 0, b"from inside")
    with client.export("m") as memory:
        mapped = mmap.mmap(memory.fd, memory.size)
        assert mapped[:11] == b"from inside"
        mapped[:12] = b"from outside"
        mapped.close()
    assert client.read("m", 0, 12) == b"from outside"
    with client.export("m", writable=False) as memory, pytest.raises(PermissionError):
        mmap.mmap(memory.fd, memory.size)


def test_a_descriptor_from_others(client: Client, running: Machine) -> None:
    """What it could not open itself can be handed in."""
    fd = os.memfd_create("handed in")
    try:
        answer = client.execute("add-fd", fds=[fd])
    finally:
        os.close(fd)
    sets = client.execute("query-fdsets")
    assert [each["fdset-id"] for each in sets] == [answer["fdset-id"]]
    client.execute("remove-fd", {"fdset-id": answer["fdset-id"]})


@pytest.mark.parametrize("name", ["/var/lib/memd/saved", "/dev/shm/saved"])
def test_save(client: Client, running: Machine, name: str) -> None:
    """Over an older file, too."""
    add(client, "memfd")
    for text in (b"one", b"two"):
        client.write("m", 8192, text)
        client.execute("x-memdev-save", {"id": "m", "filename": name})
        with running.path(name).open("rb") as file:
            assert os.pread(file.fileno(), 3, 8192) == text


def test_save_elsewhere_is_refused(client: Client) -> None:
    add(client, "memfd")
    with pytest.raises(QMPError, match="Read-only file system"):
        client.execute("x-memdev-save", {"id": "m", "filename": "/etc/saved"})


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("query-version", {}),
        ("query-qmp-schema", {}),
        ("query-memdev", {}),
        ("query-kvm", {}),
        ("qom-list-types", {}),
        ("human-monitor-command", {"command-line": "info memdev"}),
        ("x-memdev-explain", {"qom-type": "memory-backend-ram", "id": "e", "size": 1 << 40}),
    ],
)
def test_questions(client: Client, command: str, arguments: dict[str, Any]) -> None:
    client.execute(command, arguments)


def test_it_plans_for_what_the_sandbox_refuses(client: Client, running: Machine) -> None:
    """`x-memdev-explain` says what `object-add` would."""
    running.run("mkdir", "-p", "-m", "777", "/srv/open")
    backend = {"qom-type": "memory-backend-file", "id": "m", "size": MIB, "share": True}
    texts = []
    for command in ("x-memdev-explain", "object-add"):
        try:
            answer = client.execute(command, {**backend, "mem-path": "/srv/open/m"})
            texts.append(answer["error"]["desc"])
        except QMPError as refused:
            texts.append(refused.desc)
    assert texts[0] == texts[1]
