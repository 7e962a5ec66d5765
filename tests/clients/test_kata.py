"""Kata's habits: its Go and Rust runtimes' ways with a monitor."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.harness_server import qemu_system_memd
from tests.differential.kernel import descriptors
from tests.differential.server import PATIENCE, TREE, Monitor

LINE_LIMIT = 64 * 1024
"""Bytes of an answer's line beyond which its reader gives up."""

MIB = 1 << 20


AS_NUMBER_3 = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execv(sys.argv[2], sys.argv[2:])"


class Shim:
    """The runtime's side: it makes the socket, and hands it to the server as number 3."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "qmp.sock"
        self.directory = directory
        self.connections: list[Connection] = []
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(self.path))
            listening.listen(1)
            self.process = self._start(listening.fileno())

    def _start(self, fd: int) -> subprocess.Popen[bytes]:
        options = "-name sandbox-1,debug-threads=on -uuid 6f2d0a5e-3c1b-4b57-9c3c-0a4b1c2d3e4f"
        argv = [
            *qemu_system_memd(),
            *options.split(),
            *("-no-user-config", "-nodefaults", "-nographic", "--no-reboot", "-machine", "none"),
            *("-qmp", "unix:fd=3,server=on,wait=off"),
            *("-object", "memory-backend-file,id=dimm1,size=4M,mem-path=/dev/shm,share=off"),
        ]
        return subprocess.Popen(
            [sys.executable, "-c", AS_NUMBER_3, str(fd), *argv],
            stdin=subprocess.DEVNULL,
            pass_fds=[fd],
            env=dict(os.environ, PYTHONPATH=str(TREE)),
        )

    def connect(self) -> Connection:
        self.connections.append(Connection(self.path))
        return self.connections[-1]

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)


class Connection:
    """A connection that keeps to the runtime's rules."""

    def __init__(self, path: Path) -> None:
        self.monitor = Monitor(path, negotiate=False)
        assert self.monitor.greeting["QMP"]["version"]["qemu"]["major"] >= 5
        assert self.execute("qmp_capabilities") == {"return": {}}

    def execute(
        self, command: str, arguments: dict[str, Any] | None = None, fds: list[int] | None = None
    ) -> dict[str, Any]:
        """Arguments come first and are always there; no newline ends it."""
        request = {"arguments": arguments or {}, "execute": command}
        self.monitor.send(json.dumps(request).encode(), fds or ())
        line = self.monitor.read_line()
        while b'"event"' in line:
            self.monitor.events.append(json.loads(line))
            line = self.monitor.read_line()
        assert len(line) < LINE_LIMIT
        answer: dict[str, Any] = json.loads(line)
        for text in answer.get("error", {}).values():
            assert isinstance(text, str)
        return answer

    def close(self) -> None:
        self.monitor.close()


@pytest.fixture
def shim(directory: Path) -> Iterator[Shim]:
    shim = Shim(directory)
    yield shim
    shim.close()


def test_it_connects_leaves_and_comes_again(shim: Shim) -> None:
    for _ in range(3):
        connection = shim.connect()
        assert connection.execute("query-status")["return"]["status"] == "running"
        connection.close()
    connection = shim.connect()
    assert connection.execute("query-name")["return"] == {"name": "sandbox-1"}
    assert len(connection.execute("query-memdev")["return"]) == 1
    assert connection.execute("quit") == {"return": {}}
    assert [event["event"] for event in connection.monitor.events] == ["SHUTDOWN"]
    assert connection.monitor.at_end()
    assert shim.process.wait(PATIENCE) == 0
    # It was the runtime's, which removes it.
    assert shim.path.exists()


def test_what_it_asks_fits_its_reader(shim: Shim) -> None:
    connection = shim.connect()
    for number in range(64):
        options = {"qom-type": "memory-backend-ram", "id": f"mem{number}", "size": 4096}
        assert connection.execute("object-add", options) == {"return": {}}
    for command in (
        *("query-status", "query-commands", "query-memory-devices", "query-cpus-fast"),
        *("query-hotpluggable-cpus", "query-memdev", "query-migrate-capabilities"),
        *("query-kvm", "query-version", "stop", "cont"),
    ):
        connection.execute(command)


def test_descriptors_ride_without_a_newline(shim: Shim) -> None:
    connection = shim.connect()
    before = descriptors(shim.process.pid)
    with open("/dev/null", "rb") as file:
        fd = file.fileno()
        assert connection.execute("getfd", {"fdname": "f0"}, [fd]) == {"return": {}}
        added = connection.execute("add-fd", {"fdset-id": 7}, [fd])["return"]
    assert added["fdset-id"] == 7
    assert sum((descriptors(shim.process.pid) - before).values()) == 2
    assert connection.execute("remove-fd", {"fdset-id": 7}) == {"return": {}}
    assert connection.execute("closefd", {"fdname": "f0"}) == {"return": {}}
    assert descriptors(shim.process.pid) == before


def test_hotplug_is_refused_and_cleaned_up_after(shim: Shim) -> None:
    connection = shim.connect()
    for name, kind, more in (
        ("mem1", "memory-backend-ram", {}),
        ("mem2", "memory-backend-file", {"mem-path": str(shim.directory), "share": True}),
        ("mem3", "memory-backend-memfd", {"share": True}),
    ):
        backend = {"qom-type": kind, "id": name, "size": 4 * MIB, **more}
        assert connection.execute("object-add", backend) == {"return": {}}
        device = {"driver": "pc-dimm", "id": f"dimm{name}", "memdev": name}
        refused = connection.execute("device_add", device)
        assert refused["error"]["desc"] == "Device 'pc-dimm' can not be hotplugged on this machine"
        assert connection.execute("object-del", {"id": name}) == {"return": {}}
    assert connection.execute("query-memory-devices") == {"return": []}


def test_the_text_that_decides_a_retry(shim: Shim) -> None:
    connection = shim.connect()
    backend = {"qom-type": "memory-backend-ram", "id": "huge", "size": 1 << 46}
    refused = connection.execute("object-add", backend)
    assert "Cannot allocate memory" in refused["error"]["desc"]


def test_a_template_and_a_clone_of_it(shim: Shim) -> None:
    memory = shim.directory / "memory"
    with memory.open("wb") as file:
        file.truncate(2 * MIB)
    connection = shim.connect()
    common = {"qom-type": "memory-backend-file", "mem-path": str(memory), "size": 2 * MIB}
    assert connection.execute("object-add", {**common, "id": "t", "share": True}) == {"return": {}}
    assert connection.execute("object-add", {**common, "id": "c"}) == {"return": {}}
    image = {**common, "id": "image", "readonly": True}
    assert connection.execute("object-add", image) == {"return": {}}
    assert memory.stat().st_size == 2 * MIB
