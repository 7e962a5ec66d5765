"""System calls that fail as told, seen where a client sees them; and nothing is left behind."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from memd.faulty.kernel import FaultyHost, refusal_of
from memd.faulty.registry import FaultRegistry
from memd.hostmem import libc
from memd.places import Account
from memd.testing import Server
from tests.differential import kernel
from tests.differential.server import TREE
from tests.faulty.conftest import Connect

SIZE = 1 << 20
RAM = {"qom-type": "memory-backend-ram", "id": "m", "size": SIZE}
MEMFD = {"qom-type": "memory-backend-memfd", "id": "m", "size": SIZE}
NOWHERE = "no place"


def descriptors(server: Server) -> int:
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def regions(server: Server) -> int:
    """How many mappings of backends there are."""
    return len(kernel.regions(server.pid, TREE))


@pytest.mark.parametrize(
    ("call", "error", "options", "text"),
    [
        ("mmap", "ENOMEM", RAM, "cannot set up guest memory 'm': Cannot allocate memory"),
        ("memfd-create", "EMFILE", MEMFD, "failed to create memfd with flags 0x3: Too many open"),
        ("ftruncate", "ENOSPC", MEMFD, "failed to resize memfd to 1048576: No space left on dev"),
        (
            "populate",
            "ENOMEM",
            {**RAM, "prealloc": True},
            "qemu_prealloc_mem: preallocating memory failed: Cannot allocate memory",
        ),
        (
            "mbind",
            "EINVAL",
            {**RAM, "policy": "bind", "host-nodes": [0]},
            "cannot bind memory to host NUMA nodes: Invalid argument",
        ),
        (
            "open",
            "EACCES",
            {"qom-type": "memory-backend-file", "id": "m", "size": SIZE, "mem-path": NOWHERE},
            "for guest RAM: Permission denied",
        ),
    ],
)
def test_a_call_that_fails(
    server: Server,
    connect: Connect,
    tmp_path: Path,
    call: str,
    error: str,
    options: dict[str, Any],
    text: str,
) -> None:
    options = {**options}
    if "mem-path" in options:
        options["mem-path"] = str(tmp_path / "file")
    client = connect()
    client.execute("query-name")
    # Over the control socket, which is connected by now.
    assert server.faults == []
    before = descriptors(server), regions(server)
    server.fault(syscall=call, errno=error, nth=1)
    assert text in client.execute("object-add", options)["error"]["desc"]
    assert list(tmp_path.iterdir()) == []
    while (descriptors(server), regions(server)) != before:
        client.execute("query-name")
    assert client.execute("object-add", options) == {"return": {}}


@pytest.mark.parametrize("there", ["nothing", "file", "link"])
@pytest.mark.parametrize("error", ["EPERM", "EINVAL", "EIO"])
def test_opening_fails_once_whatever_the_error(
    server: Server, connect: Connect, tmp_path: Path, there: str, error: str
) -> None:
    """Also with those that have memd ask the kernel in another way."""
    client, path = connect(), tmp_path / "file"
    if there == "file":
        path.touch()
    elif there == "link":
        path.symlink_to(tmp_path / "other")
        path.resolve().touch()
    # A missing file is looked for before it is made.
    server.fault(syscall="open", errno=error, nth=2 if there == "nothing" else 1)
    options = {"qom-type": "memory-backend-file", "id": "m", "size": SIZE, "mem-path": str(path)}
    text = os.strerror(getattr(errno, error))
    assert text in client.execute("object-add", options)["error"]["desc"]
    assert client.execute("object-add", options) == {"return": {}}
    assert server.faults[0]["applied"] == 1


def test_the_nth_call(server: Server, connect: Connect) -> None:
    client = connect()
    server.fault(syscall="ftruncate", errno="ENOSPC", nth=2, times=2)
    results = [
        "return" in client.execute("object-add", {**MEMFD, "id": f"m{number}"})
        for number in range(5)
    ]
    assert results == [True, False, False, True, True]
    assert (server.faults[0]["seen"], server.faults[0]["applied"]) == (5, 2)


def test_a_disk_that_is_full_while_saving(server: Server, connect: Connect, tmp_path: Path) -> None:
    client = connect()
    client.execute("object-add", RAM)
    client.execute("x-memdev-write", {"id": "m", "offset": 0, "data": "eA=="})
    server.fault(syscall="pwrite", errno="ENOSPC", nth=1)
    server.fault(syscall="fsync", errno="EIO", nth=1)
    target = str(tmp_path / "saved")
    for text in ("No space left on device", "Input/output error"):
        answer = client.execute("x-memdev-save", {"id": "m", "filename": target})
        assert text in answer["error"]["desc"]
        assert list(tmp_path.iterdir()) == []
    assert client.execute("x-memdev-save", {"id": "m", "filename": target}) == {"return": {}}


def test_a_preallocation_without_end(server: Server, connect: Connect) -> None:
    client, other = connect(), connect()
    stalled = server.fault(syscall="populate", stall=True)
    client.send(
        b'{"execute": "object-add", "arguments": {"qom-type": "memory-backend-ram",'
        b' "id": "m", "size": 1048576, "prealloc": true}}'
    )
    while server.faults[0]["applied"] < 3:
        assert other.execute("query-memdev") == {"return": []}
    server.remove_fault(stalled)
    assert client.read_answer() == {"return": {}}


def test_one_without_end_can_be_given_up(server: Server, connect: Connect) -> None:
    client = connect()
    assert client.execute("object-add", RAM) == {"return": {}}
    server.fault(syscall="populate", stall=True)
    setting = {"path": "/objects/m", "property": "prealloc", "value": True}
    other = connect()
    client.send(
        b'{"execute": "qom-set", "arguments": %s}'
        % repr(setting).replace("'", '"').replace("True", "true").encode()
    )
    while not server.faults[0]["applied"]:
        pass
    assert other.execute("object-del", {"id": "m"}) == {"return": {}}
    assert "preallocating memory failed" in client.read_answer()["error"]["desc"]


def test_a_slow_preallocation(server: Server, connect: Connect) -> None:
    client, other = connect(), connect()
    server.fault(syscall="populate", delay=50)
    began = time.monotonic()
    client.send(
        b'{"execute": "object-add", "arguments": {"qom-type": "memory-backend-ram",'
        b' "id": "m", "size": 1048576, "prealloc": true}}'
    )
    assert other.execute("query-name") == {"return": {}}
    assert client.read_answer() == {"return": {}}
    assert time.monotonic() - began >= 0.05
    assert server.faults[0]["applied"] == 1


def test_what_only_looks_never_fails(tmp_path: Path) -> None:
    host = FaultyHost(lambda _kind: errno.EIO)
    os.close(host.open(b"/dev/null", os.O_PATH))
    os.close(host.open_at(libc.AT_FDCWD, b"/dev", os.O_RDONLY | os.O_DIRECTORY))
    for flags in (os.O_RDWR | os.O_TMPFILE, os.O_RDONLY):
        with pytest.raises(OSError, match="Input/output"):
            host.open_at(libc.AT_FDCWD, os.fsencode(tmp_path), flags)


def test_the_event_loop_is_never_kept_waiting() -> None:
    """What is made on it is not delayed; from a thread, it is."""
    faults = FaultRegistry(Account())
    faults.add({"syscall": "populate", "stall": True})
    refusal = refusal_of(faults)
    assert refusal("populate") == 0
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(refusal("populate")))
    thread.start()
    thread.join()
    assert found == [errno.EINTR]
