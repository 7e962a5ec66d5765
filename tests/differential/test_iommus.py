"""`intel-iommu`, `amd-iommu` and `virtio-iommu-pci`: which there can be, and what they tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Side
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd
from tests.differential.standin import standin_pair, tell
from tests.differential.starts import start

LINES = [
    *(
        f"q35 -device intel-iommu,{options}"
        for options in (
            *("intremap=on,eim=on", "intremap=off,eim=on", "intremap=maybe", "aw-bits=40"),
            *("aw-bits=57,x-scalable-mode=on", "x-flts=on", "x-flts=on,x-scalable-mode=on"),
            "x-flts=on,x-scalable-mode=on,aw-bits=39",
            *("x-pasid-mode=on", "x-pasid-mode=on,x-scalable-mode=on"),
        )
    ),
    *(f"q35 -device amd-iommu,{each}=x" for each in ("intremap", "xtsup", "addr", "foo")),
    *(
        f"q35 -device {one} -device {other}"
        for one, other in (
            *(("amd-iommu", "amd-iommu"), ("amd-iommu", "intel-iommu")),
            *(("intel-iommu", "amd-iommu"), ("virtio-iommu-pci", "amd-iommu")),
        )
    ),
    *(f"{machine} -device amd-iommu" for machine in ("pc", "microvm", "none")),
    "q35 -device AMDVI-PCI",
]


@pytest.mark.parametrize("line", LINES)
def test_which_there_can_be(line: str) -> None:
    told, said = (
        start(argv, ("-machine", *line.split()))
        for argv in (qemu_binary(), qemu_system_memd(qemu_compat()))
    )
    assert said == told


STEPS: list[tuple[str, dict[str, Any]]] = [
    ("query-pci", {}),
    *(
        ("qom-get", {"path": "/machine/peripheral/a", "property": name})
        for name in ("intremap", "xtsup", "pt", "device-iotlb", "hotpluggable", "pci-id")
    ),
    ("device_del", {"id": "a"}),
    ("device_add", {"driver": "amd-iommu"}),
]


def unnamed(side: Side) -> list[dict[str, str]]:
    """The devices without names, which QEMU counts."""
    rows: list[dict[str, str]] = side.ask("qom-list", {"path": "/machine/unattached"})["return"]
    return [row for row in rows if row["name"].startswith("device[")]


@pytest.mark.parametrize(
    "devices",
    [
        *("-device amd-iommu,id=a", "-device amd-iommu,id=a,intremap=off -device e1000"),
        "-device e1000,addr=1 -device amd-iommu,id=a,intremap=on,xtsup=on",
    ],
)
def test_what_one_brings_along(directory: Path, devices: str) -> None:
    with standin_pair(directory, "-machine", "q35", *devices.split()) as pair:
        tell(pair, STEPS)
        pair.same("devices without names", lambda side: [*unnamed(side)])
