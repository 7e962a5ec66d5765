"""Buses, and the places on them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from memd.devices.bus import ANY_PLACE, visit_place
from memd.errors import QMPError
from memd.json_types import JSON
from tests.devices.bench import Bench


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ("0", 0),
        ("06", 48),
        ("06.0", 48),
        ("0x1f.7", 255),
        (" 1", 8),
        (0, 0),
        (255, 255),
        (-1, ANY_PLACE),
    ],
)
def test_places(value: JSON, place: int) -> None:
    assert visit_place(value) == place


@pytest.mark.parametrize("value", ["", "zz", "20", "1.8", "1.", ".1", "-1", "1_0", "1.0.0"])
def test_texts_that_are_no_places(value: str) -> None:
    assert visit_place(value) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (256, "Parameter 'addr' expects a value between -1 and 255"),
        (-2, "Parameter 'addr' expects a value between -1 and 255"),
        (1 << 31, "Parameter 'addr' expects int32_t"),
        (-(1 << 63), "Parameter 'addr' expects int32_t"),
        (1 << 63, "Invalid parameter type for 'addr', expected: integer"),
        (1.0, "Invalid parameter type for 'addr', expected: integer"),
        (True, "Invalid parameter type for 'addr', expected int or str"),
        (None, "Invalid parameter type for 'addr', expected int or str"),
    ],
)
def test_values_that_are_no_places(value: JSON, text: str) -> None:
    with pytest.raises(QMPError) as caught:
        visit_place(value)
    assert caught.value.desc == text


@pytest.mark.parametrize(
    ("kind", "driver", "bus", "text"),
    [
        ("pc", "pc-dimm", "nope", "Bus 'nope' not found"),
        ("pc", "pc-dimm", "", "Bus '' not found"),
        ("pc", "pc-dimm", "pci.0", "Device 'pc-dimm' can't go on PCI bus"),
        ("pc", "virtio-mem-pci", "isa.0", "Device 'virtio-mem-pci' can't go on ISA bus"),
        ("pc", "virtio-mem-pci", "pcie.0", "Bus 'pcie.0' not found"),
        ("pc", "virtio-mem-pci", "pci.0/x/y", "Device 'x' not found"),
        ("pc", "virtio-mem-pci", "/machine", "Device 'machine' not found"),
        ("q35", "virtio-mem-pci", "pcie.0", "Bus 'pcie.0' does not support hotplugging"),
        ("q35", "virtio-mem-pci", None, "Bus 'pcie.0' does not support hotplugging"),
        ("q35", "virtio-mem-pci", 7, "Bus 'pcie.0' does not support hotplugging"),
        ("virt", "virtio-mem-pci", None, "Bus 'pcie.0' does not support hotplugging"),
        ("none", "virtio-mem-pci", None, "No 'PCI' bus found for device 'virtio-mem-pci'"),
        ("none", "pc-dimm", "main-system-bus", "Device 'pc-dimm' can't go on System bus"),
    ],
)
def test_buses_that_will_not_do(
    make_bench: Callable[..., Bench], kind: str, driver: str, bus: JSON, text: str
) -> None:
    given = {} if bus is None else {"bus": bus}
    assert make_bench(kind).refuse(driver, id="x", memdev="nope", **given) == text


def test_the_bus_of_a_virtio_device(bench: Bench) -> None:
    assert bench.refuse("pc-dimm", bus="virtio-bus") == "Bus 'virtio-bus' not found"
    bench.add("virtio-mem-pci", id="v0")
    assert bench.refuse("pc-dimm", bus="virtio-bus") == "Bus 'virtio-bus' is full"


def test_the_machines_own(make_bench: Callable[..., Bench]) -> None:
    pc = make_bench("pc")
    assert pc.refuse("virtio-mem-pci", memdev="x", addr="1") == "Device 'x' not found"
    pc.ram("m0")
    assert pc.refuse("virtio-mem-pci", memdev="m0", addr="1") == (
        "PCI: slot 1 function 0 not available for virtio-mem-pci, in use by PIIX3,id=(null)"
    )


def test_a_full_bus(bench: Bench) -> None:
    for number in range(30):
        bench.add("virtio-pmem-pci", id=f"p{number}")
    bench.ram("m")
    assert bench.refuse("virtio-pmem-pci", id="p", memdev="m") == (
        "PCI: no slot/function available for virtio-pmem-pci, all in use or reserved"
    )


def test_the_last_slot(bench: Bench) -> None:
    """A device that asks for any place is told that this one is taken; observed on QEMU 10.0.2."""
    bench.add("virtio-pmem-pci", id="p0", addr="1f")
    bench.ram("m")
    assert bench.refuse("virtio-mem-pci", id="v0", memdev="m") == (
        "PCI: slot 31 function 0 already occupied by virtio-pmem-pci, new func virtio-mem-pci"
        " cannot be exposed to guest."
    )
    bench.add("virtio-mem-pci", id="v0", memdev="m", addr="3")


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ("a.0", "a.1", "PCI: single function device can't be populated in function a.1"),
        ("a.1", "a.0", "PCI: a.0 indicates single function, but a.1 is already populated."),
    ],
)
def test_functions_of_a_slot(
    make_bench: Callable[..., Bench], first: str, second: str, text: str
) -> None:
    bench = make_bench("q35", started=False, running=False)
    bench.add("virtio-pmem-pci", id="p0", addr=first)
    bench.ram("m")
    assert bench.refuse("virtio-pmem-pci", id="p1", memdev="m", addr=second) == text
    bench.add("virtio-pmem-pci", id="p2", memdev="m", addr="b.0", multifunction=True)
    bench.add("virtio-pmem-pci", id="p3", addr="b.7")


def test_functions_before_the_first(bench: Bench) -> None:
    """Once it is there, a guest would not see others that come."""
    bench.add("virtio-pmem-pci", id="p0", addr="4.1")
    bench.add("virtio-pmem-pci", id="p1", addr="4.0", multifunction=True)
    bench.ram("m")
    assert bench.refuse("virtio-pmem-pci", id="p2", memdev="m", addr="4.2") == (
        "PCI: slot 4 function 0 already occupied by virtio-pmem-pci, new func virtio-pmem-pci"
        " cannot be exposed to guest."
    )


def test_a_port_has_one_slot(make_bench: Callable[..., Bench]) -> None:
    """Others can be named until the first one is taken; observed on QEMU 10.0.2."""
    bench = make_bench("q35", started=False, running=False)
    assert bench("device_add", driver="pcie-root-port", id="rp0") == {}
    bench.machine.started = True
    bench.add("virtio-mem-pci", id="v0", bus="rp0", addr="1")
    bench.add("virtio-mem-pci", id="v1", bus="rp0")
    assert bench.get("v1", "legacy-addr") == "00.0"
    assert bench.get("v1", "parent_bus") == "/machine/peripheral/rp0/rp0"
    bench.ram("m")
    for addr in ("2", "0.1", "1f"):
        assert bench.refuse("virtio-mem-pci", id="v2", memdev="m", bus="rp0", addr=addr) == (
            "PCI: slot 0 function 0 already occupied by virtio-mem-pci, new func virtio-mem-pci"
            " cannot be exposed to guest."
        )


def test_before_the_start_every_bus_will_do(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("q35", started=False, running=False)
    bench.add("virtio-mem-pci", id="v0", multifunction=True)
    bench.add("virtio-mem-pci", id="v1", addr="1.1")
    assert [bench.get(id, "legacy-addr") for id in ("v0", "v1")] == ["01.0", "01.1"]
    assert bench.get("v0", "hotpluggable") is False
    bench.machine.started = True
    assert bench.refusal("device_del", id="v0")[1] == "Bus 'pcie.0' does not support hotplugging"
