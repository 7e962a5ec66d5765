"""Devices of a running daemon: what is heard of them, and what they leave behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.differential.harness import settle
from tests.differential.server import Monitor, Server

MIB = 1 << 20
MACHINE = ("--machine", "pc,nvdimm=on", "-m", "256M,slots=4,maxmem=8G")

Start = Callable[..., Server]


def ask(monitor: Monitor, command: str, **arguments: Any) -> Any:
    named = {name.replace("_", "-"): value for name, value in arguments.items()}
    answer = monitor.execute(command, named)
    assert "return" in answer, answer
    return answer["return"]


def resident(monitor: Monitor, id: str) -> int:
    found: int = ask(monitor, "x-memdev-stat", id=id)[0]["resident"]
    return found


def resize(monitor: Monitor, size: int) -> None:
    ask(monitor, "qom-set", path="v0", property="requested-size", value=size)


def test_memory_comes_and_goes(start_memd: Start) -> None:
    """More than is done in the event loop; other clients hear of it, too."""
    server = start_memd(*MACHINE)
    monitor, other = server.monitor(), server.monitor()
    ask(monitor, "object-add", qom_type="memory-backend-memfd", id="m0", size=192 * MIB)
    ask(monitor, "device_add", driver="virtio-mem-pci", id="v0", memdev="m0", prealloc=True)
    resize(monitor, 96 * MIB)
    event = other.read_event("MEMORY_DEVICE_SIZE_CHANGE")
    assert event["data"] == {
        "id": "v0",
        "size": 96 * MIB,
        "qom-path": "/machine/peripheral/v0",
    }
    assert resident(monitor, "m0") == 96 * MIB
    resize(monitor, 2 * MIB)
    assert other.read_event("MEMORY_DEVICE_SIZE_CHANGE")["data"]["size"] == 2 * MIB
    assert resident(monitor, "m0") == 2 * MIB


@pytest.mark.parametrize("kind", ["none", "pc", "q35", "virt"])
def test_everything_that_is_listed_can_be_read(start_memd: Start, kind: str) -> None:
    monitor = start_memd("--machine", kind, *(("--smp", "2") if kind != "none" else ())).monitor()
    paths = ["/"]
    for path in paths:
        for row in ask(monitor, "qom-list", path=path):
            ask(monitor, "qom-get", path=path, property=row["name"])
            if row["type"].startswith("child<"):
                paths.append(f"{path.rstrip('/')}/{row['name']}")
    assert len(paths) > 10


def test_nothing_is_left_behind(start_memd: Start) -> None:
    server = start_memd(*MACHINE)
    monitor = server.monitor()

    def held() -> tuple[int, int]:
        with open(f"/proc/{server.pid}/maps", encoding="utf-8") as maps:
            mapped = sum("memfd:" in line for line in maps)
        return len(os.listdir(f"/proc/{server.pid}/fd")), mapped

    def once() -> None:
        for driver in ("pc-dimm", "virtio-mem-pci"):
            ask(monitor, "object-add", qom_type="memory-backend-memfd", id="m0", size=2 * MIB)
            refused = monitor.execute("device_add", {"driver": driver, "memdev": "m0", "node": 9})
            assert "error" in refused
            ask(monitor, "device_add", driver=driver, id="d0", memdev="m0")
            ask(monitor, "device_del", id="d0")
            while monitor.read_event("DEVICE_DELETED")["data"].get("device") != "d0":
                pass
            ask(monitor, "object-del", id="m0")

    once()
    before = held()
    for _time in range(3):
        once()
    assert settle(held, lambda now: now == before) == before
    assert ask(monitor, "query-memory-devices") == []


def test_the_end_with_devices(start_memd: Start) -> None:
    server = start_memd(*MACHINE, "--guest-reacts", "after=100000")
    monitor = server.monitor()
    ask(monitor, "object-add", qom_type="memory-backend-ram", id="m0", size=2 * MIB)
    ask(monitor, "device_add", driver="pc-dimm", id="d0", memdev="m0")
    ask(monitor, "device_del", id="d0")
    ask(monitor, "quit")
    assert server.wait() == 0
    assert server.stderr() == ""
