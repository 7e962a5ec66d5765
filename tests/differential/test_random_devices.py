"""Random sequences of devices, and of what they refer to, that come and go.

The suite takes one seed, of which it is known that nothing differs; `MEMD_SEED` names
another, and `MEMD_RANDOM_COMMANDS` makes a sequence longer.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.differential.standin import standin_pair

SEED = os.environ.get("MEMD_SEED", "1")
COMMANDS = int(os.environ.get("MEMD_RANDOM_COMMANDS", "80"))

PORTS = "-device pcie-root-port,id=p0,slot=1 -device pcie-root-port,id=p1,slot=2"
MACHINES = {
    "pc": "-device qemu-xhci,id=u -device virtio-scsi-pci,id=s -device virtio-serial-pci,id=v",
    "q35": f"{PORTS} -device qemu-xhci,id=u -device virtio-scsi-pci,id=s -device usb-ehci,id=e",
    "microvm": "",
}

NETWORK = ("e1000", "virtio-net-pci", "usb-net", "e1000e")
DISKS = ("virtio-blk-pci", "scsi-hd", "scsi-cd", "usb-storage", "nvme")
PORTS_OF_CHARDEVS = ("virtconsole", "pci-serial")
OTHERS = (
    *("virtio-rng-pci", "usb-kbd", "usb-mouse", "usb-tablet", "usb-hub", "qemu-xhci", "usb-bot"),
    *(
        "virtio-balloon-pci",
        "pcie-root-port",
        "i82801b11-bridge",
        "VGA",
        "isa-serial",
        "pci-bridge",
    ),
    *(
        "virtio-keyboard-pci",
        "ide-hd",
        "AC97",
        "sd-card",
        "virtio-mouse-device",
        "nope",
        "e1000-base",
    ),
)
GO_AT_ONCE = ("usb-net", "scsi-hd", "scsi-cd", "virtconsole", "usb-kbd", "usb-mouse", "usb-tablet")
"""Devices that no guest is asked for."""

QUERIES = ("query-pci", "query-block", "query-mice")
LISTS = ("/machine/peripheral", "/machine/peripheral-anon", "/objects")
WORDS = ("info network", "info usb", "info pci", "info balloon")
PROPERTIES = (
    *("addr", "multifunction", "netdev", "mac", "drive", "chardev", "rng", "romfile", "romsize"),
    *("port", "attached", "scsi-id", "lun", "bootindex", "vectors", "disable-legacy", "hotplugged"),
    *("hotpluggable", "realized", "parent_bus", "nope", "acpi-index", "legacy-addr", "product"),
)


class Sequence:
    """Makes commands up.

    Args:
        chance: where every choice comes from.
    """

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._drivers: dict[str, str] = {}

    def _id(self, kind: str, count: int = 4) -> str:
        return f"{kind}{self._chance.randrange(count)}"

    def _often(self, share: float) -> bool:
        return self._chance.random() < share

    def _add(self) -> tuple[str, dict[str, Any]]:
        choose = self._chance.choice
        driver = choose(choose((NETWORK, DISKS, PORTS_OF_CHARDEVS, OTHERS, OTHERS)))
        given: dict[str, Any] = {"driver": driver}
        if self._often(0.8):
            given["id"] = self._id("d", 8)
        if driver in NETWORK and self._often(0.6):
            given["netdev"] = self._id("n")
        if driver in DISKS and self._often(0.8):
            given["drive"] = self._id("b")
        if driver in PORTS_OF_CHARDEVS and self._often(0.8):
            given["chardev"] = self._id("c")
        if driver == "virtio-rng-pci" and self._often(0.5):
            given["rng"] = self._id("o")
        if driver in ("pcie-root-port", "pci-bridge") and self._often(0.8):
            given["slot" if driver == "pcie-root-port" else "chassis_nr"] = choose((3, 4, 5))
        options: dict[str, tuple[Any, ...]] = {
            "bus": ("u.0", "s.0", "v.0", "p0", "p1", "e.0", "pci.0", "pcie.0", "isa.0", "nope"),
            "addr": ("5", "6", "6.1", "1e", "7.0", 64, "0x40"),
            "bootindex": (1, 2, 3),
            "nope": (1,),
        }
        if driver.startswith("usb"):
            options["port"] = ("1", "2", "3", "4", "2.1", "9")
        if driver.startswith("scsi"):
            options |= {"lun": (0, 1), "scsi-id": (0, 1)}
        for name, values in options.items():
            if self._often(0.25 if name == "bus" else 0.1):
                given[name] = choose(values)
        return "device_add", given

    def _delete(self) -> tuple[str, dict[str, Any]]:
        return "device_del", {"id": self._id("d", 8) if self._often(0.9) else "nope"}

    def _backend(self) -> tuple[str, dict[str, Any]]:
        match self._chance.randrange(8):
            case 0:
                return "netdev_add", {"type": "user", "id": self._id("n")}
            case 1:
                return "netdev_del", {"id": self._id("n")}
            case 2:
                backend = {"type": "null", "data": {}}
                return "chardev-add", {"id": self._id("c"), "backend": backend}
            case 3:
                return "chardev-remove", {"id": self._id("c")}
            case 4:
                node = {"driver": "null-co", "node-name": self._id("b"), "size": 1 << 20}
                return "blockdev-add", node
            case 5:
                return "blockdev-del", {"node-name": self._id("b")}
            case 6:
                kind = self._chance.choice(("rng-builtin", "iothread"))
                return "object-add", {"qom-type": kind, "id": self._id("o")}
        return "object-del", {"id": self._id("o")}

    def _look(self) -> tuple[str, dict[str, Any] | None]:
        choose = self._chance.choice
        match self._chance.randrange(6):
            case 0:
                return choose(QUERIES), None
            case 1:
                return "qom-list", {"path": choose(LISTS)}
            case 2:
                return "human-monitor-command", {"command-line": choose(WORDS)}
            case 3:
                value = choose(({"bootindex": 4}, {"addr": 5}, {"netdev": "n1"}, {"nope": 1}))
                [(name, new)] = value.items()
                return "qom-set", {"path": self._id("d", 8), "property": name, "value": new}
            case 4:
                up = self._often(0.5)
                return "set_link", {"name": choose((self._id("d", 8), self._id("n"))), "up": up}
        return "qom-get", {"path": self._id("d", 8), "property": choose(PROPERTIES)}

    def command(self) -> tuple[str, dict[str, Any] | None]:
        """A command and its arguments."""
        number = self._chance.random()
        if number < 0.35:
            return self._add()
        if number < 0.45:
            return self._delete()
        return self._backend() if number < 0.7 else self._look()

    def learn(self, command: str, given: dict[str, Any], *, done: bool) -> bool:
        """Note what was done; gives whether a device goes at once."""
        if command == "device_add" and done and "id" in given:
            self._drivers[given["id"]] = given["driver"]
        return command == "device_del" and done and self._drivers.get(given["id"]) in GO_AT_ONCE


@pytest.mark.parametrize("machine", MACHINES)
def test_devices_come_and_go(directory: Path, machine: str) -> None:
    words = Sequence(random.Random(f"{SEED}/{machine}"))
    with standin_pair(directory, "-machine", machine, *MACHINES[machine].split()) as pair:
        pair.note = f"MEMD_SEED={SEED} MEMD_RANDOM_COMMANDS={COMMANDS}"
        print(pair.note)
        for _ in range(COMMANDS):
            command, given = words.command()
            done = "return" in pair.ask(command, given)
            if words.learn(command, given or {}, done=done):
                # The event comes before the answer or after it.
                pair.each(lambda side: side.monitor.read_event("DEVICE_DELETED"))
