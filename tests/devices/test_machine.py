"""The machine: what it has in all, and what goes on in it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memd.config import NumaNode
from memd.devices import register
from memd.devices.adding import add_device
from memd.devices.machine import Machine
from memd.work import run_here
from tests.devices.bench import GIB, MIB, Bench
from tests.stepping import close_all


def test_devices_come_by_address(bench: Bench) -> None:
    bench.add("pc-dimm", id="d0", addr=5 * GIB)
    bench.add("virtio-pmem-pci", id="p0")
    bench.add("nvdimm", id="n0")
    ids = [row["data"]["id"] for row in bench("query-memory-devices")]
    assert ids == ["p0", "n0", "d0"]
    assert bench("query-memory-size-summary") == {
        "base-memory": 256 * MIB,
        "plugged-memory": 6 * MIB,
    }


@pytest.mark.parametrize(
    ("driver", "text"),
    [
        ("pc-dimm", "no slots where allocated, please specify the 'slots' option"),
        (
            "virtio-pmem-pci",
            "the configuration is not prepared for memory devices (e.g., for memory hotplug),"
            " consider specifying the maxmem option",
        ),
    ],
)
def test_no_room(make_bench: Callable[..., Bench], driver: str, text: str) -> None:
    bench = make_bench(slots=0, maxmem=0)
    assert bench.refuse(driver) == text


def test_its_area_shows(bench: Bench) -> None:
    path = "/machine/device-memory[0]"
    assert bench.get(path, "addr") == 4 * GIB
    assert bench.get(path, "size") == 12 * GIB - 256 * MIB
    assert bench.get(path, "container") == "/machine/unattached/system[0]"


def test_whose_memory_it_is(bench: Bench) -> None:
    bench.add("pc-dimm", id="d0")
    bench.ram("m0")
    rows = {row["id"]: row.get("mapped-by") for row in bench("x-memdev-stat")}
    assert rows == {"mem-d0": "/machine/peripheral/d0", "m0": None}


def test_numa_nodes(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(numa_nodes=[NumaNode(number) for number in range(3)])
    bench.add("pc-dimm", id="d0", node=2)
    assert bench.info("d0")["node"] == 2
    assert bench.refuse("pc-dimm", memdev="mem-d0", node=3) == (
        "'DIMM property node has value 3' which exceeds the number of numa nodes: 3"
    )


@pytest.mark.parametrize(
    ("id", "text"),
    [
        ("nope", "Device 'nope' not found"),
        ("/machine/nope", "Device '/machine/nope' not found"),
        ("/machine", "/machine is not a device"),
        ("/objects/mem-d0", "/objects/mem-d0 is not a device"),
        ("", " is not a device"),
        ("/machine/i440fx", "Bus 'main-system-bus' does not support hotplugging"),
    ],
)
def test_what_can_not_be_removed(bench: Bench, id: str, text: str) -> None:
    bench.add("pc-dimm", id="d0")
    assert bench.refusal("device_del", id=id)[1] == text


def test_a_guest_that_takes_its_time(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(guest_reacts="after", guest_delay_ms=500)
    bench.add("pc-dimm", id="d0")
    assert bench.take() == []
    bench.clock.wind(0.5)
    assert len(bench.take()) == 1
    bench("device_del", id="d0")
    bench.clock.wind(0.4)
    assert bench.info("d0") is not None
    bench.clock.wind(0.1)
    assert bench.info("d0") is None


def test_a_machine_that_is_stopped(bench: Bench) -> None:
    bench.add("pc-dimm", id="d0")
    bench("stop")
    assert bench("device_del", id="d0") == {}
    bench.clock.wind(5)
    assert bench.info("d0") is not None
    bench("cont")
    bench.clock.wind()
    assert bench.info("d0") is None


def test_without_a_loop_beside_it() -> None:
    """By itself a machine acts at once, and tells nobody."""
    from memd import backends
    from memd.config import MachineConfig
    from memd.qom import Tree

    tree = Tree()
    backends.register(tree)
    register(tree)
    machine = Machine(tree, MachineConfig("pc", slots=1, maxmem=GIB))
    machine.started = True
    machine.set_running(True)
    ram = {"qom-type": "memory-backend-ram", "id": "m0", "size": 2 * MIB}
    run_here(tree.objects.create(ram))
    run_here(add_device(machine, {"driver": "pc-dimm", "id": "d0", "memdev": "m0"}))
    assert machine.del_device("d0") == {}
    assert machine.devices() == []
    close_all(tree)
