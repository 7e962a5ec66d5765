"""Every machine that QEMU starts with a paused guest: what it tells of its memory and of itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests import prefork
from tests.conftest import NOT_HERE
from tests.differential.harness import Side
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd
from tests.differential.standin import standin_pair, tell

ROOM = ("-m", "256M,slots=2,maxmem=8G")
BACKENDS = ("-object", "memory-backend-ram,id=d,size=128M")

ASKED: list[tuple[str, dict[str, Any]]] = [
    ("query-memdev", {}),
    ("query-memory-size-summary", {}),
    ("query-memory-devices", {}),
    ("query-hotpluggable-cpus", {}),
    ("query-current-machine", {}),
    ("query-acpi-ospm-status", {}),
    ("query-pci", {}),
    ("human-monitor-command", {"command-line": "info memdev"}),
    ("human-monitor-command", {"command-line": "info numa"}),
    *(
        ("device_add", {"driver": driver, "id": "i", **more})
        for driver, more in (
            ("pc-dimm", {"memdev": "d", "bus": "nope"}),
            ("pc-dimm", {"memdev": "d", "bus": "main-system-bus"}),
            *((each, {}) for each in ("isa-serial", "ide-cd", "floppy", "virtio-rng-device")),
            ("virtio-rng-device", {"bus": "virtio-mmio-bus.0"}),
            *((each, {}) for each in ("486-x86_64-cpu", "qemu64-x86_64-cpu", "usb-tablet")),
        )
    ),
]
PLUGGED: list[tuple[str, dict[str, Any]]] = [
    ("device_add", {"driver": driver, "id": "i", "memdev": "d"}) for driver in ("nvdimm", "pc-dimm")
]


def machine(side: Side) -> Any:
    """The properties of `/machine`, and what they hold; of the clock the year."""
    found: dict[str, Any] = {}
    for row in side.ask("qom-list", {"path": "/machine"})["return"]:
        value: Any = None
        if not row["type"].startswith("child<"):
            value = side.ask("qom-get", {"path": "/machine", "property": row["name"]})
        if row["name"] == "rtc-time":
            clock = value["return"]
            value = clock["tm_year"], sorted(clock)
        found[row["name"]] = row["type"], value
    return found


PARTS: list[tuple[str, dict[str, Any]]] = [
    *(
        ("device_del", {"id": f"/machine/{path}"})
        for path in (
            *("fw_cfg", "ioapic", "dma[0]", "q35/mch", "unattached/device[3]/pm"),
            *("unattached/device[1]", "unattached/device[2]"),
        )
    ),
    *(
        ("qom-set", {"path": "/machine", "property": name, "value": value})
        for name, value in (
            *(("smram", ""), ("rtc-time", {"tm_year": 1}), ("fw_cfg", "")),
            *(("acpi-device", "/machine/fw_cfg"), ("acpi-device", "")),
        )
    ),
    *(
        ("qom-get", {"path": f"/machine/{path}", "property": name})
        for path, name in (
            *(("smram", "size"), ("smram", "container"), ("acpi-device", "parent_bus")),
            *(("q35/mch", "hotpluggable"), ("dma[1]", "parent_bus"), ("ioapic", "parent_bus")),
            *((f"ioport{port}[0]", name) for port in ("80", "F0") for name in ("addr", "size")),
        )
    ),
]


def cpus(side: Side) -> Any:
    return [{**row, "thread-id": 0} for row in side.ask("query-cpus-fast", {})["return"]]


def blocks(side: Side) -> Any:
    """The sizes of the machine's own memory; QEMU has blocks of firmware besides."""
    told = side.ask("human-monitor-command", {"command-line": "info ramblock"})["return"]
    rows = [line.split() for line in told.splitlines()[1:]]
    return [row[:-2] + row[-1:] for row in rows if row[0].endswith(".ram")]


@pytest.mark.parametrize(
    "name",
    [
        *("microvm", "isapc", "x-remote", "q35", "pc"),
        *("pc-q35-9.2", "pc-q35-8.1", "pc-q35-5.0", "pc-q35-2.10"),
        *("pc-i440fx-8.0", "pc-i440fx-2.12", "pc-i440fx-2.4"),
    ],
)
def test_what_a_machine_tells(directory: Path, name: str) -> None:
    if name.startswith("pc-"):
        listed = prefork.run([*qemu_binary(), "-machine", "help"])
        if f"\n{name} " not in listed.stdout:
            pytest.skip(f"{NOT_HERE}{name}, which this QEMU has no longer")
    room = () if name == "isapc" else ROOM
    with standin_pair(directory, "-machine", name, *room, *BACKENDS) as pair:
        tell(pair, ASKED if name != "x-remote" else ASKED[:-1])
        for what, look in (("/machine", machine), ("CPUs", cpus), ("blocks", blocks)):
            pair.same(what, look)
        # A slot is chosen, and an address, where the machine has any.
        tell(pair, [*PLUGGED, *PARTS])
        pair.same("/machine", machine)
        pair.ask("query-memory-devices", {})
        pair.ask("query-acpi-ospm-status", {})


@pytest.mark.parametrize("name", ["microvm", "isapc", "q35", "pc", "none"])
def test_the_states_of_a_machine(directory: Path, name: str) -> None:
    room = () if name == "isapc" else ROOM
    with standin_pair(directory, "-machine", name, *room, "-preconfig") as pair:
        pair.same("/machine, before it is made", machine)
        for command in ("x-exit-preconfig", "cont"):
            pair.ask(command)
            pair.same(f"/machine after {command}", machine)


@pytest.mark.parametrize(
    "options",
    [
        *(
            "q35,smm=off",
            "q35,acpi=off -smp 3",
            "q35,vmport=off,max-ram-below-4g=2G",
            "pc,i8042=off",
        ),
        *("pc,acpi=off", "pc,x-south-bridge=piix4-isa -smp 2", "isapc,hpet=on -cpu qemu64"),
        *("microvm,rtc=off", "microvm,acpi=off,pcie=on", "q35 -cpu 486", "pc -cpu 486 -smp 2"),
    ],
)
def test_parts_of_a_machine_that_depend_on_its_options(directory: Path, options: str) -> None:
    with standin_pair(directory, "-machine", *options.split()) as pair:
        pair.same("/machine", machine)
        tell(pair, [("query-current-machine", {}), ("query-acpi-ospm-status", {})])


@pytest.mark.parametrize("name", ["microvm,pcie=on", "microvm,acpi=off,pcie=on", "x-remote"])
def test_a_pci_bus_that_a_machine_may_have(directory: Path, name: str) -> None:
    device = {"driver": "e1000", "id": "r", "addr": "5"}
    steps: list[tuple[str, dict[str, Any]]] = [
        *(("query-pci", {}), ("device_add", device), ("query-pci", {})),
        ("human-monitor-command", {"command-line": "info pci"}),
    ]
    with standin_pair(directory, "-machine", name) as pair:
        tell(pair, steps)


def test_a_chip_gets_its_drive_before_the_machine_is_made(directory: Path) -> None:
    """Clients may name what is in it until then; chips without a drive are gone afterwards."""

    def name(node: str) -> tuple[str, dict[str, Any]]:
        return "qom-set", {"path": "/machine", "property": "pflash0", "value": node}

    def fill(scratch: Path) -> None:
        (scratch / "flash").write_bytes(bytes(1 << 18))

    with standin_pair(directory, "-machine", "q35", "-preconfig", prepare=fill) as pair:
        node = {"driver": "file", "filename": "@DIR@/flash", "node-name": "f"}
        tell(pair, [name("f"), ("blockdev-add", node), name("f")])
        for command in ("query-status", "x-exit-preconfig"):
            pair.ask(command)
            pair.same(f"/machine after {command}", machine)


def started(binary: list[str], *options: str) -> tuple[int, str]:
    """The status and the complaints of one that ends as soon as it has started."""
    line = [*binary, "-S", "-display", "none", "-nodefaults", *options, "-qmp", "stdio"]
    words = "".join(json.dumps({"execute": each}) for each in ("qmp_capabilities", "quit"))
    done = prefork.run(line, text=words)
    said = "\n".join(each.partition(": ")[2] or each for each in done.stderr.splitlines())
    return done.returncode, said


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"-machine {name} {BACKENDS[0]} {BACKENDS[1]} -device pc-dimm,memdev=d"
            for name in (*("microvm", "isapc", "x-remote", "q35,acpi=off", "pc,acpi=off"),)
        ),
        *(
            f"-machine {name} {rest}"
            for name in ("microvm", "isapc", "x-remote", "pc-q35-5.0")
            for rest in (
                *("-m 256M,slots=2,maxmem=8G", "-smp 300", "-smp 2,dies=2", "-numa node"),
                *("-numa node,mem=128M", "-machine hmat=on", "-machine nvdimm=on"),
                *("-device ide-cd", "-device isa-serial", "-device virtio-rng-device"),
                *("-device virtio-rng-pci,bus=virtio-mmio-bus.3", "-drive if=virtio"),
                *("-object memory-backend-ram,id=pc.ram,size=128M", "-machine foo=1"),
            )
        ),
        "-machine microvm,pcie=on -device virtio-balloon-pci",
        "-machine pc-q35-5.0 -numa node,mem=64M -numa node,mem=64M",
        "-machine pc-q35-5.0 -numa node,mem=64M -numa node",
        f"-machine pc-q35-5.0 {BACKENDS[0]} {BACKENDS[1]} -numa node,mem=64M -numa node,memdev=d",
        "-machine pc-q35-5.1 -numa node,mem=64M -numa node,mem=64M",
        "-machine microvm -device virtio-blk-device",
        *(
            f"-machine {name} -cpu {model}"
            for name in ("pc", "none")
            for model in ("foo", "foo,x=y")
        ),
        "-machine q35 -cpu qemu64-x86_64-cpu",
        *(f"-machine isapc -m {size}" for size in ("3584M", "3585M", "4G", "4G -cpu qemu64")),
        *(f"-machine isapc -cpu {model} -m 16" for model in ("pentium", "qemu32", "core2duo")),
        "-machine isapc,max-ram-below-4g=2G -m 3G",
        *(
            f"-machine {name},max-ram-below-4g={size}"
            for name in ("q35", "pc")
            for size in ("4G", "5G")
        ),
        # None is named.
        *("", "-device ide-cd", "-machine usb=off -device pcie-root-port", "-machine type="),
    ],
)
def test_how_a_machine_starts(text: str) -> None:
    told = started(qemu_binary(), *text.split())
    assert started(qemu_system_memd(qemu_compat()), *text.split()) == told


@pytest.mark.parametrize(
    "text",
    [
        "help",
        "microvm,help",
        "isapc,help",
        "x-remote,help",
        "pc-q35-2.4,help",
        "none,help",
        "nope,help",
    ],
)
def test_which_machines_and_properties_there_are(text: str) -> None:
    said = []
    for binary in (qemu_binary(), qemu_system_memd(qemu_compat())):
        done = prefork.run([*binary, "-machine", text])
        said.append((done.returncode, done.stdout))
    # A machine of 11.1 that memd has not: it needs an accelerator of its own.
    told = said[0][0], re.sub("nitro .*\n", "", said[0][1])
    assert said[1] == told
