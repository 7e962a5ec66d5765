"""Kata's habits: its Go and Rust runtimes' ways with a monitor."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need_shm
from tests.differential.harness import settle
from tests.differential.kernel import descriptors
from tests.differential.server import PATIENCE, TREE, Monitor, qemu_system_memd

LINE_LIMIT = 64 * 1024
"""Bytes of an answer's line beyond which its reader gives up."""

MIB = 1 << 20

NO_MACHINE = ("-machine", "none")

pytestmark = need_shm

AS_NUMBER_3 = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execv(sys.argv[2], sys.argv[2:])"


class Shim:
    """The runtime's side: it makes the socket, and hands it to the server as number 3."""

    def __init__(self, directory: Path, machine: Sequence[str] = NO_MACHINE) -> None:
        self.path = directory / "qmp.sock"
        self.directory = directory
        self._machine = machine
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
            *("-no-user-config", "-nodefaults", "-nographic", "--no-reboot"),
            *("-qmp", "unix:fd=3,server=on,wait=off"),
            *("-object", "memory-backend-file,id=dimm1,size=4M,mem-path=/dev/shm,share=off"),
            *self._machine,
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
def sandbox(directory: Path) -> Iterator[Shim]:
    """A machine as the runtime describes it, as far as memory goes; its image is an NVDIMM."""
    image = directory / "image"
    with image.open("wb") as file:
        file.truncate(4 * MIB)
    shim = Shim(
        directory,
        (
            *("-machine", "q35,nvdimm=on", "-m", "4M,slots=10,maxmem=4096M"),
            *("-smp", "1,cores=1,threads=1,sockets=4,maxcpus=4", "-cpu", "max,pmu=off"),
            "-device",
            "pci-bridge,bus=pcie.0,id=pci-bridge-0,chassis_nr=1,shpc=off,addr=2,io-reserve=4k,"
            "mem-reserve=1m,pref64-reserve=1m",
            *("-device", "nvdimm,id=nv0,memdev=mem0,unarmed=on"),
            "-object",
            f"memory-backend-file,id=mem0,mem-path={image},size={4 * MIB},readonly=on",
            *("-numa", "node,memdev=dimm1", "-rtc", "base=utc,driftfix=slew,clock=host"),
            *("-global", "kvm-pit.lost_tick_policy=discard", "-vga", "none"),
        ),
    )
    yield shim
    shim.close()


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
    # They are closed in a thread.
    pid = shim.process.pid
    assert settle(lambda: descriptors(pid), lambda found: found == before) == before


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


def plug(connection: Connection, name: str, kind: str, **more: Any) -> dict[str, Any]:
    """What the runtime does to add memory; its backend goes again if that fails."""
    backend = {"qom-type": kind, "id": name, "size": 4 * MIB, **more}
    answer = connection.execute("object-add", backend)
    if "error" in answer:
        return answer
    device = {"driver": "pc-dimm", "id": f"dimm{name}", "memdev": name}
    answer = connection.execute("device_add", device)
    if "error" in answer:
        assert connection.execute("object-del", {"id": name}) == {"return": {}}
    return answer


def test_memory_is_added(sandbox: Shim) -> None:
    connection = sandbox.connect()
    base = 1 << 32
    kinds: dict[str, dict[str, Any]] = {
        "memory-backend-ram": {},
        "memory-backend-file": {"mem-path": str(sandbox.directory), "share": True},
        "memory-backend-memfd": {"share": True},
    }
    for number, (kind, more) in enumerate(kinds.items(), start=1):
        assert plug(connection, f"mem{number}", kind, **more) == {"return": {}}
        # It tells the guest where the last one begins.
        last = connection.execute("query-memory-devices")["return"][-1]
        assert last["type"] == "dimm"
        assert last["data"]["id"] == f"dimmmem{number}"
        assert last["data"]["slot"] == number
        assert last["data"]["addr"] > base
        base = last["data"]["addr"]
    summary = connection.execute("query-memory-size-summary")["return"]
    assert summary == {"base-memory": 4 * MIB, "plugged-memory": 4 * 4 * MIB}


def test_what_fails_is_rolled_back(sandbox: Shim) -> None:
    connection = sandbox.connect()
    before = connection.execute("query-memdev")["return"]
    odd = plug(connection, "mem1", "memory-backend-ram", size=3 * MIB)
    assert odd["error"]["desc"] == "backend memory size must be multiple of 0x200000"
    large = plug(connection, "mem1", "memory-backend-ram", size=8 << 30)
    assert large["error"]["desc"].startswith("not enough space, currently 0x")
    assert connection.execute("query-memdev")["return"] == before
    assert plug(connection, "mem1", "memory-backend-ram") == {"return": {}}


def test_an_image_is_rom(sandbox: Shim) -> None:
    connection = sandbox.connect()
    (image,) = connection.execute("query-memory-devices")["return"]
    assert (image["type"], image["data"]["id"]) == ("nvdimm", "nv0")
    further = sandbox.directory / "further"
    with further.open("wb") as file:
        file.truncate(4 * MIB)
    backend = {
        "qom-type": "memory-backend-file",
        "id": "nvdimm1",
        "mem-path": str(further),
        "size": 4 * MIB,
        "share": True,
        "pmem": False,
    }
    assert connection.execute("object-add", {**backend, "readonly": True}) == {"return": {}}
    device = {"driver": "nvdimm", "memdev": "nvdimm1", "id": "nv1"}
    refused = connection.execute("device_add", device)["error"]["desc"]
    assert refused == "'unarmed' property must be 'on' since memdev nvdimm1 is read-only"
    assert connection.execute("object-del", {"id": "nvdimm1"}) == {"return": {}}
    assert connection.execute("object-add", backend) == {"return": {}}
    assert connection.execute("device_add", device) == {"return": {}}
    device = {**device, "id": "nv2", "memdev": "mem0", "unarmed": "on"}
    refused = connection.execute("device_add", device)["error"]["desc"]
    assert refused == "Invalid parameter type for 'unarmed', expected: boolean"


def test_memory_by_virtio_is_resized(sandbox: Shim) -> None:
    connection = sandbox.connect()
    backend = {"qom-type": "memory-backend-memfd", "id": "virtiomem", "size": 64 * MIB}
    assert connection.execute("object-add", {**backend, "share": True}) == {"return": {}}
    device = {"driver": "virtio-mem-pci", "id": "virtiomem0", "memdev": "virtiomem"}
    where = {"bus": "pci-bridge-0", "addr": "01"}
    assert connection.execute("device_add", {**device, **where}) == {"return": {}}
    for size in (64 * MIB, 16 * MIB):
        request = {"path": "virtiomem0", "property": "requested-size", "value": size}
        assert connection.execute("qom-set", request) == {"return": {}}
        event = connection.monitor.read_event("MEMORY_DEVICE_SIZE_CHANGE")
        assert (event["data"]["id"], event["data"]["size"]) == ("virtiomem0", size)
        *_others, last = connection.execute("query-memory-devices")["return"]
        assert (last["type"], last["data"]["size"]) == ("virtio-mem", size)


def test_cpus_are_as_many_as_it_asked_for(sandbox: Shim) -> None:
    connection = sandbox.connect()
    assert len(connection.execute("query-cpus-fast")["return"]) == 1
    assert len(connection.execute("query-hotpluggable-cpus")["return"]) == 4


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
