"""From the arguments of device_add to a device in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from memd.compat import Compat
from memd.devices.adding import add_device, is_device
from memd.errors import QMPError
from memd.work import run_here
from tests.devices.bench import Bench


@pytest.mark.parametrize("driver", ["pc-dimm", "nvdimm", "virtio-mem-pci", "virtio-pmem-pci"])
def test_there_are_such(driver: str) -> None:
    assert is_device(driver)


@pytest.mark.parametrize("driver", ["", "device", "memory-backend-ram", "nope-dev"])
def test_there_are_no_such(bench: Bench, driver: str) -> None:
    assert not is_device(driver)
    assert bench.refuse(driver) == f"'{driver}' is not a valid device model name"


def test_the_order_of_complaints(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("pc", numa_nodes=[])
    bench.ram("m0")
    bench.add("pc-dimm", id="d0", memdev="m0", slot=1)
    wrong: dict[str, Any] = {
        "bus": "nope",
        "id": "d0",
        "foo": 1,
        "slot": 1,
        "addr": 3,
        "node": 9,
        "memdev": "m0",
    }
    texts = []
    for name in list(wrong):
        texts.append(bench.refuse("pc-dimm", **wrong))
        if name == "id":
            wrong["id"] = "d1"
        elif name != "memdev":
            del wrong[name]
    assert texts == [
        "Bus 'nope' not found",
        "Duplicate device ID 'd0'",
        "Property 'pc-dimm.foo' not found",
        "slot 1 is busy",
        "address must be aligned to 0x200000 bytes",
        "'DIMM property node has value 9' which exceeds the number of numa nodes: 1",
        "can't use already busy memdev: m0",
    ]


def first_refused(bench: Bench, arguments: dict[str, Any]) -> str:
    with pytest.raises(QMPError) as caught:
        run_here(add_device(bench.machine, arguments))
    return caught.value.desc


def test_properties_of_one_bucket_come_as_they_were_sent(bench: Bench) -> None:
    """As a hash table has them in QEMU; observed on 10.0.2."""
    bad = {"unarmed": [], "hotplugged": 1}
    assert "unarmed" in first_refused(bench, {"driver": "nvdimm", **bad})
    turned = dict(reversed(bad.items()))
    assert "hotplugged" in first_refused(bench, {"driver": "nvdimm", **turned})


@pytest.mark.parametrize("id", [1, None, True, []])
def test_ids_that_are_no_texts(bench: Bench, id: Any) -> None:
    bench.add("pc-dimm", id=id, memdev=make(bench))
    assert "id" not in bench("query-memory-devices")[0]["data"]


def make(bench: Bench) -> str:
    bench.ram("some")
    return "some"


@pytest.mark.parametrize("id", ["", "0x", "a b", "a/b", "-a", "\u00e9"])
def test_odd_ids(make_bench: Callable[..., Bench], id: str) -> None:
    bench = make_bench()
    bench.add("pc-dimm", id=id, memdev=make(bench))
    assert bench.info(id) is not None
    later = make_bench(compat=Compat.V11_1)
    assert later.refuse("pc-dimm", id=id, memdev=make(later)) == f"Invalid qdev ID '{id}'"


def test_ids_that_are_taken(bench: Bench) -> None:
    bench.add("pc-dimm", id="d0")
    for id in ("d0", "type"):
        assert bench.refuse("virtio-mem-pci", id=id) == f"Duplicate device ID '{id}'"


def test_numbers_of_devices_without_an_id(bench: Bench) -> None:
    """What is refused for more than its bus is counted, too."""
    bench.ram("m0")
    assert bench.refuse("pc-dimm", memdev="nope")
    assert bench.refuse("pc-dimm", bus="nope")
    bench.add("pc-dimm", memdev="m0")
    names = [row["name"] for row in bench("qom-list", path="/machine/peripheral-anon")]
    assert names == ["type", "device[1]"]


def test_no_machine(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("none")
    assert bench.refuse("pc-dimm", foo=1) == (
        "Device 'pc-dimm' can not be hotplugged on this machine"
    )


def test_no_machine_before_the_start(make_bench: Callable[..., Bench]) -> None:
    """QEMU makes such a device real, without a place for it."""
    bench = make_bench("none", started=False, running=False)
    bench.add("pc-dimm", id="d0")
    row = bench.info("d0")
    assert (row["addr"], row["slot"], row["hotplugged"]) == (0, -1, False)
    bench.machine.started = True
    assert bench.refusal("device_del", id="d0")[1] == (
        "Device 'pc-dimm' can not be hotplugged on this machine"
    )
