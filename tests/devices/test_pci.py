"""What a PCI device is given beside its memory: which of it can't be, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memd.compat import Compat
from memd.devices import pci
from memd.errors import QMPError
from memd.work import run_here
from tests.devices.bench import Bench

PORT = {"bus": "rp0"}


def refused(bench: Bench, driver: str, **options: Any) -> str:
    """The error's text; names go as they are, since one of them has underscores."""
    arguments = {"driver": driver, "id": "v0", "memdev": "mem-v0", **options}
    with pytest.raises(QMPError) as caught:
        run_here(bench.dispatch(bench.client, "device_add", arguments, False))  # type: ignore[arg-type]
    return caught.value.desc


@pytest.fixture
def ported(make_bench: Callable[..., Bench]) -> Bench:
    """A Q35 that has a port."""
    bench = make_bench("q35", started=False)
    bench("device_add", driver="pcie-root-port", id="rp0")
    bench.machine.started = True
    return bench


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"acpi-index": 16384}, "acpi-index should be less or equal to 16383"),
        ({"acpi-index": 16384, "romsize": 5}, "acpi-index should be less or equal to 16383"),
        ({"romsize": 0}, "ROM size 0 is not a power of two"),
        ({"romsize": 5, "addr": "1"}, "ROM size 5 is not a power of two"),
        (
            {"disable-modern": True, "disable-legacy": "on", "failover_pair_id": "x"},
            "device cannot work as neither modern nor legacy mode is enabled",
        ),
        ({"failover_pair_id": ""}, "failover primary device must be on PCIExpress bus"),
    ],
    ids=str,
)
@pytest.mark.parametrize("driver", ["virtio-mem-pci", "virtio-pmem-pci"])
def test_what_can_not_be(bench: Bench, driver: str, options: dict[str, Any], text: str) -> None:
    bench.ram("mem-v0")
    assert refused(bench, driver, **options) == text
    # Nothing is taken: neither its id, nor its memory, nor its place.
    bench.add(driver, id="v0", memdev="mem-v0")
    assert bench.get("v0", "addr") == 16


def test_what_can_not_be_in_a_port(ported: Bench) -> None:
    """There a device is legacy only if it is told to be."""
    ported.ram("mem-v0")
    modern = {"disable-modern": True, **PORT}
    assert refused(ported, "virtio-mem-pci", **modern) == (
        "device cannot work as neither modern nor legacy mode is enabled"
    )
    assert refused(ported, "virtio-mem-pci", failover_pair_id="x", **PORT) == (
        "failover primary device is not an Ethernet device"
    )
    ported.add("virtio-mem-pci", id="v0", memdev="mem-v0", disable_legacy="off", **modern)
    assert ported.get("v0", "disable-modern") is False
    assert ported.get("v0", "disable-legacy") == "on"


def test_a_refused_one_keeps_its_memory(bench: Bench, tmp_path: Path) -> None:
    """Nothing is thrown away for a device that can't be."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * (2 << 20))
    bench.file("mem-v0", path)
    refused(bench, "virtio-mem-pci", failover_pair_id="x")
    assert path.read_bytes() == b"x" * (2 << 20)


def test_an_index_is_one_device_s(bench: Bench) -> None:
    bench.add("virtio-mem-pci", id="v1", acpi_index=7)
    bench.ram("mem-v0")
    assert refused(bench, "virtio-mem-pci", **{"acpi-index": 7}) == (
        "a PCI device with acpi-index = 7 already exist"
    )
    bench("device_del", id="v1")
    bench.clock.wind()
    bench.add("virtio-mem-pci", id="v0", acpi_index=7, memdev="mem-v0")


def test_an_index_of_a_port_is_no_other_device_s(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench("q35", started=False)
    index: dict[str, Any] = {"acpi-index": 7}
    bench("device_add", driver="pcie-root-port", id="rp0", **index)
    bench.ram("mem-v0")
    assert refused(bench, "virtio-mem-pci", **index, **PORT) == (
        "a PCI device with acpi-index = 7 already exist"
    )


def test_partners(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(compat=Compat.V11_1)
    bench.ram("mem-v0")
    both = {"sriov-pf": "", "failover_pair_id": "x"}
    assert refused(bench, "virtio-mem-pci", **both) == (
        "user cannot create SR-IOV VF with this device type"
    )


@pytest.mark.parametrize(
    ("asked", "vectors", "regions"),
    [
        (pci.ANY_VECTORS, 2, [(4096, 0), (32, 0), (8, 2048)]),
        (0, 0, []),
        (65, 65, [(4096, 0), (1040, 0), (16, 2048)]),
        (129, 129, [(4096, 0), (2064, 0), (24, 2064)]),
        (1000, 1000, [(16384, 0), (16000, 0), (128, 16000)]),
        (2048, 2048, [(65536, 0), (32768, 0), (256, 32768)]),
        (2049, 0, []),
    ],
)
def test_vectors(asked: int, vectors: int, regions: list[tuple[int, int]]) -> None:
    assert pci.vectors(asked) == vectors
    assert [row[1:3] for row in pci.interrupt_regions(vectors)] == regions
