"""The types of devices, as clients see them that probe."""

from __future__ import annotations

import pytest

from memd.compat import Compat
from tests.commands.fakes import Console
from tests.devices.bench import Bench

DRIVERS = ["pc-dimm", "nvdimm", "virtio-mem-pci", "virtio-pmem-pci"]


@pytest.mark.parametrize("compat", Compat)
@pytest.mark.parametrize("driver", DRIVERS)
def test_they_are_listed(driver: str, compat: Compat) -> None:
    console = Console(compat)
    memory = {row["name"] for row in console("qom-list-types", implements="memory-device")}
    assert driver in memory
    names = {row["name"] for row in console("device-list-properties", typename=driver)}
    assert "memdev" in names
    assert not names & {"type", "realized", "hotplugged", "hotpluggable", "parent_bus"}
    assert not any(name.startswith("legacy-") for name in names)


def test_defaults_are_told() -> None:
    rows = Console()("device-list-properties", typename="nvdimm")
    told = {row["name"]: row.get("default-value") for row in rows}
    assert told["slot"] == -1
    assert told["unarmed"] is False
    assert told["memdev"] is None


def test_releases_differ() -> None:
    def names(compat: Compat) -> set[str]:
        rows = Console(compat)("qom-list-properties", typename="virtio-mem-pci")
        return {row["name"] for row in rows}

    assert "legacy-memdev" in names(Compat.V10_0) - names(Compat.V11_1)
    assert "sriov-pf" in names(Compat.V11_1) - names(Compat.V10_0)


def test_classes_are_no_devices() -> None:
    for name in ("device", "virtio-pci"):
        assert Console().refusal("device-list-properties", typename=name)[1] == (
            "Parameter 'typename' expects a non-abstract device type"
        )


def test_limits_that_name_the_type(bench: Bench) -> None:
    limit = "x-max-bounce-buffer-size"
    bench.ram("m0")
    assert bench.refuse("virtio-mem-pci", id="v0", memdev="m0", **{limit: 1 << 32}) == (
        f"Property virtio-mem-pci.{limit} doesn't take value 4294967296 (maximum: 4294967295)"
    )
    assert bench.refuse("virtio-mem-pci", id="v0", memdev="m0", addr="zz") == (
        "Property 'virtio-mem-pci.addr' doesn't take value 'zz'"
    )
    bench.add("virtio-mem-pci", id="v0", memdev="m0", **{limit: 8192})
    assert bench.get("v0", limit) == 8192
