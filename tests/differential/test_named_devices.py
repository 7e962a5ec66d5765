"""`-usbdevice`, `-debugcon`, `-gdb` and `-set`: what they make."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.differential.harness import Side
from tests.differential.standin import standin_pair, tell

TAKEN = [
    *("-machine pc -usbdevice tablet", "-machine q35 -usbdevice mouse", "-machine pc -gdb none"),
    *("-machine q35 -nic user,id=n -usbdevice keyboard", "-machine q35 -usbdevice wacom-tablet"),
    *("-machine pc -debugcon file:@DIR@/log", "-machine q35 -debugcon null"),
    *("-machine pc -gdb null", "-machine pc -gdb tcp:127.0.0.1:0"),
    "-machine q35 -gdb unix:@DIR@/gdb,server=on,wait=off",
    "-machine pc -device e1000,id=d0 -set device.d0.addr=9",
    "-machine pc -netdev user,id=n -set netdev.n.restrict=on -device e1000,id=d0,netdev=n",
]

STEPS = [
    *(
        ("qom-get", {"path": f"/machine/unattached/device[{number}]", "property": "type"})
        for number in range(21, 28)
    ),
    ("qom-get", {"path": "/machine/peripheral/d0", "property": "addr"}),
    ("qom-get", {"path": "/machine/peripheral/debugcon", "property": "chardev"}),
    ("chardev-remove", {"id": "debugcon"}),
    ("chardev-remove", {"id": "gdb"}),
    ("human-monitor-command", {"command-line": "info network"}),
]


@pytest.mark.parametrize("line", TAKEN)
def test_what_is_taken(directory: Path, line: str) -> None:
    with standin_pair(directory, *line.split()) as pair:
        tell(pair, STEPS)
        pair.same("character devices", labels)


def labels(side: Side) -> list[str]:
    """The ids of the character devices but those that QEMU makes up."""
    rows = side.ask("query-chardev", None)["return"]
    return sorted(each["label"] for each in rows if not each["label"].startswith("#"))


def test_what_can_not_be_set_any_more(directory: Path) -> None:
    options = (
        *("-netdev", "user,id=n", "-chardev", "null,id=c", "-object", "iothread,id=t"),
        *("-blockdev", "null-co,node-name=b", "-device", "virtio-net-pci,id=net,netdev=n"),
        *("-device", "virtio-blk-pci,id=disk,drive=b", "-device", "pci-serial,id=port,chardev=c"),
        *("-device", "virtio-rng-pci"),
    )
    own, anonymous = ("net", "disk", "port"), "/machine/peripheral-anon/device[0]"
    with standin_pair(directory, "-machine", "pc", *options) as pair:
        for path, name, value in (
            *(("net", name, "n") for name in ("netdev", "mac", "addr")),
            *(("net", name, True) for name in ("mrg_rxbuf", "ioeventfd", "disable-modern")),
            *(("disk", name, "t") for name in ("iothread", "serial", "romfile")),
            *((path, "multifunction", True) for path in (*own, anonymous)),
            ("port", "chardev", "c"),
            *((anonymous, name, 7) for name in ("max-bytes", "vectors")),
            (anonymous, "rng", "t"),
        ):
            pair.refuse("qom-set", {"path": path, "property": name, "value": value})
