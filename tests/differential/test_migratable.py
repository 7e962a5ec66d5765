"""Devices with which a machine can't be migrated: what says so, and `-only-migratable`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd
from tests.differential.standin import standin_pair, tell
from tests.differential.starts import start

_MEMORY = (
    "-object",
    "memory-backend-ram,id=m,size=1M",
    "-object",
    "memory-backend-ram,id=n,size=1M",
)
NAMED = (
    *("nvme,serial=1,id=a", "pcie-root-port,id=p", "nvme,serial=2,id=b,bus=p", "qemu-xhci,id=x"),
    *("usb-hub,bus=x.0,port=1", "usb-net,bus=x.0,port=1.2,id=c", "usb-wacom-tablet,bus=x.0"),
)
SHARED = ("ivshmem-plain,memdev=m,id=s", "ivshmem-plain,memdev=n,master=on,id=t")


def options_of(devices: tuple[str, ...]) -> list[str]:
    return [word for each in devices for word in ("-device", each)]


def hmp(line: str) -> tuple[str, Any]:
    return "human-monitor-command", {"command-line": line}


BLOCKED: list[tuple[str, Any]] = [
    ("query-migrate", None),
    hmp("info migrate"),
    ("migrate", {"uri": "unix:@DIR@/nobody"}),
    hmp("savevm x"),
    ("query-migrate", None),
]


@pytest.mark.parametrize(
    "devices", [NAMED, SHARED, SHARED + NAMED, ("amd-iommu",), ("usb-ehci,id=e", "usb-uas")]
)
def test_what_keeps_a_machine_from_being_migrated(
    directory: Path, devices: tuple[str, ...]
) -> None:
    options = "-machine", "q35", *_MEMORY, *options_of(devices)
    with standin_pair(directory, *options) as pair:
        tell(pair, BLOCKED)
        # A USB device needs nobody's leave, and a PCI one waits for a guest.
        for id in ("s", "c"):
            if "return" in pair.ask("device_del", {"id": id}) and id == "c":
                pair.each(lambda side: side.monitor.read_event("DEVICE_DELETED"))
        tell(pair, BLOCKED[:1])


def test_what_comes_later(directory: Path) -> None:
    steps: list[tuple[str, Any]] = [
        ("device_add", {"driver": "usb-net", "id": "u"}),
        *BLOCKED,
        ("device_del", {"id": "u"}),
    ]
    with standin_pair(directory, "-machine", "pc", "-device", "qemu-xhci") as pair:
        tell(pair, steps)
        pair.each(lambda side: side.monitor.read_event("DEVICE_DELETED"))
        pair.ask("query-migrate")


def test_devices_have_to_be_migratable(directory: Path) -> None:
    steps: list[tuple[str, Any]] = [
        hmp("info migrate"),
        *(
            ("device_add", {"driver": driver, "bus": "p", **more})
            for driver, more in (
                *(("ufs", {}), ("ufs", {"serial": "1"})),
                *(("vhost-user-rng-pci", {}), ("rocker", {}), ("virtio-net-pci", {"id": "n"})),
                ("ivshmem-plain", {"memdev": "m"}),
            )
        ),
        ("device_add", {"driver": "usb-serial"}),
    ]
    options = (
        *("-machine", "q35", "-only-migratable", *_MEMORY),
        *options_of(("pcie-root-port,id=p", "qemu-xhci")),
    )
    with standin_pair(directory, *options) as pair:
        tell(pair, steps)


@pytest.mark.parametrize("device", ["nvme", "amd-iommu", SHARED[0], SHARED[1]])
def test_the_command_line_has_to_be_migratable(device: str) -> None:
    options = ["-machine", "q35", "-only-migratable", *_MEMORY, "-device", device]
    reference, subject = (
        start(argv, options) for argv in (qemu_binary(), qemu_system_memd(qemu_compat()))
    )
    assert subject == reference
