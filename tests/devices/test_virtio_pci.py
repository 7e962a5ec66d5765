"""The two halves of a virtio device on PCI, and its place on the bus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.devices.bench import MIB, Bench

V0 = "/machine/peripheral/v0"
HALF = f"{V0}/virtio-backend"


def test_both_halves_have_its_properties(bench: Bench) -> None:
    bench.add("virtio-mem-pci", id="v0", prealloc=True)
    for path in ("v0", V0, HALF, "v0/virtio-backend"):
        assert bench.get(path, "prealloc") is True
        assert bench.get(path, "memdev") == "/objects/mem-v0"
    assert bench.get(V0, "type") == "virtio-mem-pci"
    assert bench.get(HALF, "type") == "virtio-mem"
    assert bench.get(V0, "virtio-backend") == HALF
    assert bench.get(HALF, "parent_bus") == f"{V0}/virtio-bus"
    assert bench.get(V0, "parent_bus") == "/machine/i440fx/pci.0"
    assert (bench.get(V0, "hotpluggable"), bench.get(HALF, "hotpluggable")) == (True, False)
    assert bench.get(V0, "hotplugged") is bench.get(HALF, "hotplugged") is True
    # A path goes on through what the other half points at.
    assert bench.get(f"{V0}/memdev", "size") == 2 * MIB


def test_it_is_listed_once(bench: Bench) -> None:
    bench.add("virtio-mem-pci", id="v0")
    names = [row["name"] for row in bench("qom-list", path=V0)]
    assert names.count("virtio-backend") == 1
    tree = bench("human-monitor-command", command_line=f"info qom-tree {V0}")
    assert "  /virtio-backend (virtio-mem)\r\n" in tree


def test_a_size_is_asked_of_either(bench: Bench) -> None:
    bench.add("virtio-mem-pci", id="v0")
    bench("qom-set", path=HALF, property="requested-size", value=2 * MIB)
    assert bench.get(V0, "requested-size") == 2 * MIB


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("memaddr", 0, "property 'memaddr' on anonymous device (type 'virtio-mem')"),
        ("memdev", "mem-v0", "link property 'memdev' on device '(null)' (type 'virtio-mem')"),
        ("vectors", 3, "property 'vectors' on device 'v0' (type 'virtio-mem-pci')"),
        ("addr", "3", "property 'addr' on device 'v0' (type 'virtio-mem-pci')"),
    ],
)
def test_what_is_fixed(bench: Bench, name: str, value: Any, text: str) -> None:
    bench.add("virtio-mem-pci", id="v0")
    refused = bench.refusal("qom-set", path="v0", property=name, value=value)[1]
    assert refused == f"Attempt to set {text} after it was realized"


def test_refusals_name_the_half_that_has_it(bench: Bench) -> None:
    bench.add("virtio-mem-pci", id="v0")
    assert bench.refusal("qom-set", path="v0", property="size", value=0)[1] == (
        "Property 'virtio-mem.size' is not writable"
    )
    assert bench.refusal("qom-get", path="v0", property="legacy-memdev")[1] == (
        "Property 'virtio-mem.legacy-memdev' is not readable"
    )
    assert bench.refusal("qom-set", path="v0", property="busnr", value=0)[1] == (
        "Property 'virtio-mem-pci.busnr' is not writable"
    )


def test_places(bench: Bench) -> None:
    for id in ("v0", "v1"):
        bench.add("virtio-mem-pci", id=id)
    assert [bench.get(id, "legacy-addr") for id in ("v0", "v1")] == ["02.0", "03.0"]
    assert bench.get("v0", "addr") == 16
    assert bench.refuse("virtio-pmem-pci", id="p0", memdev="mem-v0", addr="2") == (
        "PCI: slot 2 function 0 not available for virtio-pmem-pci, in use by virtio-mem-pci,id=v0"
    )
    assert bench.refuse("virtio-pmem-pci", id="p0", memdev="mem-v0", addr="2.1") == (
        "PCI: slot 2 function 0 already occupied by virtio-mem-pci, new func virtio-pmem-pci"
        " cannot be exposed to guest."
    )
    bench("device_del", id="v0")
    bench.take()
    bench.add("virtio-pmem-pci", id="p0", addr="0x2")
    assert bench.get("p0", "legacy-addr") == "02.0"


def test_what_is_refused_gives_its_place_back(bench: Bench) -> None:
    bench.add("virtio-mem-pci", id="v0")
    assert bench.refuse("virtio-pmem-pci", id="p0", memdev="mem-v0") == (
        "can't use already busy memdev: mem-v0"
    )
    bench.add("virtio-pmem-pci", id="p0")
    assert bench.get("p0", "legacy-addr") == "03.0"


def test_its_regions(bench: Bench) -> None:
    bench.add("virtio-mem-pci", id="v0")
    path = f"{V0}/virtio-pci-notify-virtio-mem[0]"
    assert bench.get(path, "container") == f"{V0}/virtio-pci[0]"
    assert bench.get(path, "addr") == 12288


def test_the_guest_keeps_it(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(guest_reacts="refuses")
    bench.add("virtio-mem-pci", id="v0")
    for _time in range(2):
        assert bench("device_del", id="v0") == {}
        assert bench.take() == [("DEVICE_UNPLUG_GUEST_ERROR", {"path": V0, "device": "v0"})]
    assert bench.info("v0") is not None


def test_asked_twice(bench: Bench, make_bench: Callable[..., Bench]) -> None:
    bench.add("virtio-mem-pci", id="v0")
    assert bench("device_del", id="v0") == bench("device_del", id="v0") == {}
    assert len(bench.take()) == 2, "it goes once"
    for options in ({"guest_reacts": "never"}, {"running": False}):
        still = make_bench(**options)
        still.add("virtio-mem-pci", id="v0")
        assert still("device_del", id="v0") == {}
        assert still.refusal("device_del", id=V0)[1] == (
            f"Device {V0} is already in the process of unplug"
        )


def test_a_half_does_not_go_alone(bench: Bench) -> None:
    bench.add("virtio-mem-pci", id="v0")
    assert bench.refusal("device_del", id="v0/virtio-backend")[1] == (
        "Bus 'virtio-bus' does not support hotplugging"
    )
