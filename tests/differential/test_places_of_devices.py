"""Where devices go: bridges and ports, USB ports, SCSI units, virtual functions, newest first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Pair, Side
from tests.differential.standin import same_messages, standin_pair, tell

Step = tuple[str, Any]

BRIDGES = (
    "-device i82801b11-bridge,id=br -device pci-bridge,id=pb,chassis_nr=1"
    " -device pci-bridge,id=pb2,chassis_nr=2,shpc=off -device pcie-root-port,id=rp"
)
SWITCH = (
    " -device pcie-pci-bridge,id=pp -device x3130-upstream,id=up,bus=rp"
    " -device xio3130-downstream,id=dn,bus=up,chassis=4 -device pcie-root-port,id=rp2,slot=9"
    " -device pcie-root-port,id=rp3,slot=10,hotplug=off"
)


def add(driver: str, **more: Any) -> Step:
    return "device_add", {"driver": driver, **more}


def get(path: str, *names: str) -> Iterator[Step]:
    for name in names:
        yield "qom-get", {"path": path, "property": name}


def hmp(line: str) -> Step:
    return "human-monitor-command", {"command-line": line}


ON_BRIDGES = [
    *(add("e1000", bus=bus) for bus in ("br", "pb", "pb2", "rp")),
    *(add("e1000", bus=bus, addr=3) for bus in ("br", "pb", "pb2", "rp")),
    add("e1000"),
    *(add("ioh3420", bus="br", addr=number, id=f"i{number}") for number in (5, 6)),
]
ON_A_SWITCH = [
    *(add("e1000", bus="pp", **more) for more in ({}, {"addr": "0"})),
    add("e1000", bus="up", addr=3),
    add("virtio-rng-pci", bus="up", addr=4, id="r"),
    *get("r", "disable-legacy"),
    add("e1000", bus="dn"),
    add("e1000", bus="rp3"),
    # What comes later is nothing that ACPI knows of.
    add("pcie-pci-bridge", bus="rp2", id="later"),
    *(add("e1000", bus="later", addr=number) for number in (0, 1)),
    add("pci-bridge", bus="pb", addr=4, id="later2", chassis_nr=5),
    *(add("e1000", bus="later2", **more) for more in ({}, {"addr": "3"})),
    add("pci-bridge", bus="pb", addr=5, id="later3", chassis_nr=6, shpc=False),
    add("e1000", bus="later3"),
    add("i82801b11-bridge", bus="pb", addr=6),
    *(add("e1000", bus=f"pci.{number}", addr="3") for number in range(3)),
    ("query-pci", {}),
]


@pytest.mark.parametrize("machine", ["pc", "q35", "pc,acpi=off", "microvm,pcie=on"])
def test_bridges(directory: Path, machine: str) -> None:
    with_acpi = machine in ("pc", "q35")
    line = BRIDGES + SWITCH * with_acpi
    with standin_pair(directory, "-machine", machine, *line.split()) as pair:
        tell(pair, ON_BRIDGES + ON_A_SWITCH * with_acpi)


USB = [
    *(add("usb-kbd", id="k", port=port) for port in ("9", "1.1", "2")),
    *(add("usb-kbd", id=f"l{number}") for number in range(2)),
    add("usb-hub", id="h", port="4"),
    *(add("usb-hub", id=f"h{depth}", port="4" + ".1" * depth) for depth in range(1, 6)),
    *(add("usb-mouse", id=f"m{number}") for number in range(3)),
    add("usb-kbd", usb_version=3),
    add("usb-kbd", usb_version=1),
    add("usb-uas", id="u"),
    add("usb-bot", id="b"),
    ("qom-set", {"path": "u", "property": "attached", "value": True}),
    *(step for path in ("u", "b", "k") for step in get(path, "attached", "port")),
    hmp("info usb"),
]


@pytest.mark.parametrize(
    "options",
    [
        "pc -device qemu-xhci",
        "pc -device qemu-xhci -device usb-ehci",
        "pc,usb=on",
        "q35,usb=on -usbdevice tablet",
        "microvm,usb=on",
        "pc -device pci-ohci,num-ports=4",
        "pc -device ich9-usb-ehci1,id=e -device ich9-usb-uhci1,masterbus=e.0,firstport=2",
        "none",
    ],
)
def test_usb_ports(directory: Path, options: str) -> None:
    with standin_pair(directory, "-machine", *options.split()) as pair:
        tell(pair, USB)


@pytest.mark.parametrize(
    "options",
    [
        "usb=on -device usb-uas",
        "usb=on -device usb-kbd,port=3",
        "usb=off -device ich9-usb-uhci1,masterbus=e.0",
        "usb=off -device ich9-usb-ehci1,id=e -device ich9-usb-uhci1,masterbus=e.0,firstport=5",
        "usb=on -device ich9-usb-uhci1,masterbus=usb-bus.0",
        "usb=off -device usb-ehci -device usb-hub",
    ],
)
def test_a_usb_device_that_can_not_be_there(options: str) -> None:
    same_messages("-machine", *f"pc,{options}".split())


def test_scsi_units(directory: Path) -> None:
    nodes = [f"-blockdev null-co,node-name=n{number}" for number in range(5)]
    controllers = "-device virtio-scsi-pci,id=s0 -device virtio-scsi-pci,id=s1"
    given: list[dict[str, int]] = [{}, {"lun": 0}, {"lun": 0, "scsi-id": 0}]
    given += [{"scsi-id": 1}, {"lun": 7}]
    steps = []
    for number, more in enumerate(given):
        disk = {"drive": f"n{number}", "id": f"d{number}"}
        steps += [add("scsi-hd", **disk, **more), *get(f"d{number}", "scsi-id", "lun")]
    with standin_pair(directory, *" ".join((controllers, *nodes)).split()) as pair:
        tell(pair, steps)
        buses = [str(side.ask("qom-get", step[1])["return"]) for side in both(pair) for step in ON]
        assert [each.rpartition("/")[2] for each in buses] == ["s1.0"] * 2


ON = [*get("d0", "parent_bus")]


def both(pair: Pair) -> tuple[Any, ...]:
    return pair.reference, pair.subject


VIRTUAL = [
    ("query-pci", {}),
    *(
        step
        for number in (22, 23)
        for step in get(f"/machine/unattached/device[{number}]", "type", "addr")
    ),
    add("igb"),
    add("igb"),
    add("igb", addr="1e.0"),
    *(add("e1000", addr=addr) for addr in ("14.0", "14.1")),
    ("query-pci", {}),
]


def test_virtual_functions(directory: Path) -> None:
    with standin_pair(directory, "-machine", "pc", "-device", "igb,id=g,addr=4") as pair:
        tell(pair, VIRTUAL)


@pytest.mark.parametrize(
    "more", ["", ",subsys=s", ",subsys=s,sriov_vq_flexible=4,sriov_vi_flexible=2"]
)
def test_virtual_functions_of_nvme(directory: Path, more: str) -> None:
    line = ("-device", "nvme-subsys,id=s", "-device", f"nvme,serial=1,sriov_max_vfs=2{more}")
    same_messages("-machine", "q35", *line)
    if more.endswith("2"):
        with standin_pair(directory, "-machine", "q35", *line) as pair:
            pair.ask("query-pci")


def test_types_that_stay(directory: Path) -> None:
    steps = [
        *(
            add(driver, **more)
            for driver in ("VGA", "cxl-rp", "vmbus-bridge", "ramfb", "hda-duplex", "virtio-gpu-pci")
            for more in ({}, {"nope": 1}, {"bus": "nope"}, {"bus": "rp", "id": "rp"})
        ),
        *(("device_del", {"id": id}) for id in ("v", "rp", "a")),
    ]
    line = "-device VGA,id=v -device pcie-root-port,id=rp -device intel-hda,id=a,bus=rp"
    with standin_pair(directory, "-machine", "q35", *line.split()) as pair:
        tell(pair, steps)


def test_what_is_decided_by_a_device(directory: Path) -> None:
    names = ("romfile", "romsize", "vectors", "disable-legacy", "cyls", "product", "msi")
    drivers: list[tuple[str, dict[str, Any]]] = [
        ("e1000", {}),
        ("virtio-net-pci", {"romfile": ""}),
        ("e1000", {"rombar": 0}),
        ("virtio-blk-pci", {"drive": "n", "share-rw": True, "disable-legacy": "auto"}),
        ("scsi-hd", {"drive": "n", "share-rw": True}),
        ("qemu-xhci", {}),
        ("virtio-rng-pci", {}),
    ]
    steps = []
    for number, (driver, more) in enumerate(drivers):
        steps += [add(driver, id=f"x{number}", **more), *get(f"x{number}", *names)]
    steps += [*get("x6", "legacy-rng"), ("query-pci", {})]
    line = "-blockdev null-co,node-name=n,size=67108864 -device virtio-scsi-pci"
    with standin_pair(directory, "-machine", "pc", *line.split()) as pair:
        tell(pair, steps)


def test_an_object_without_properties_is_taken() -> None:
    same_messages("-machine", "none", "-object", "can-bus,id=c")


def test_what_is_on_a_device_goes_with_it(directory: Path) -> None:
    with standin_pair(directory, "-device", "qemu-xhci", "-machine", "pc") as pair:
        tell(pair, [add("usb-bot", id="b"), add("scsi-cd", id="c"), *get("c", "parent_bus")])
        tell(pair, [add("scsi-cd", **more) for more in ({}, {"scsi-id": 1})])
        for side in both(pair):
            assert side.ask("device_del", {"id": "b"}) == {"return": {}}
            gone = [side.monitor.read_event("DEVICE_DELETED")["data"] for _ in range(2)]
            assert [each["device"] for each in gone] == ["c", "b"]
        tell(pair, [("qom-list", {"path": "/machine/peripheral"}), ("query-block", {})])


def test_a_stick_has_its_disk_inside(directory: Path) -> None:
    with standin_pair(
        directory, "-device", "qemu-xhci", "-blockdev", "null-co,node-name=n"
    ) as pair:
        tell(pair, [add("usb-storage", drive="n", id="s"), *get("s", "drive"), ("query-block", {})])
        for side in both(pair):
            assert side.ask("device_del", {"id": "s"}) == {"return": {}}
            paths = [side.monitor.read_event("DEVICE_DELETED")["data"]["path"] for _ in range(2)]
            assert paths == [f"/machine/peripheral/s{end}" for end in ("/s.0/legacy[0]", "")]


@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_the_buses_of_bridges_without_an_id(directory: Path, machine: str) -> None:
    bridges = ("pci-bridge,chassis_nr=9", "i82801b11-bridge", "pci-bridge,chassis_nr=8")
    options = [word for each in bridges for word in ("-device", each)]

    def buses(side: Side) -> list[str]:
        found = []
        for number in range(len(bridges)):
            path = f"/machine/peripheral-anon/device[{number}]"
            listed = side.ask("qom-list", {"path": path})["return"]
            found += [each["name"] for each in listed if each["type"] == "child<PCI>"]
        return found

    with standin_pair(directory, "-machine", machine, *options) as pair:
        assert pair.same("buses", buses)
        pair.ask("device_add", {"driver": "e1000", "bus": "pci.1", "id": "e", "addr": "3"})
        pair.ask("query-pci")


BUSES_OF_PC = (
    *("-machine", "pc", "-device", "pci-bridge,id=b,chassis_nr=1,acpi-index=9"),
    *("-device", "qemu-xhci,id=x,acpi-index=8", "-m", "64M,slots=1,maxmem=1G"),
    *("-object", "memory-backend-ram,id=m0,size=2M"),
)


def test_an_acpi_index_is_one_device_s(directory: Path) -> None:
    index = "acpi-index"
    steps = [
        *(add(kind, id=kind, **{index: 5}) for kind in ("e1000", "virtio-net-pci", "qemu-xhci")),
        *(add("e1000", **{index: number}) for number in (8, 9, 16383, 16384)),
        add("virtio-mem-pci", memdev="m0", **{index: 5}),
        *(add(kind, bus="b", **{index: 5}) for kind in ("e1000", "virtio-blk-pci", "nvme")),
        add("pci-bridge", id="b2", **{index: 5}),
        # It is told before the size of a ROM, that before the place, and that before the rest.
        *(add("e1000", addr="2", romsize=5, **{index: number}) for number in (5, 20000)),
        *(add("e1000", addr="2", **more) for more in ({"romsize": 5}, {index: 5})),
        *(add("pci-bridge", **more) for more in ({"romsize": 5}, {"addr": "2"}, {index: 5})),
    ]
    with standin_pair(directory, *BUSES_OF_PC) as pair:
        tell(pair, steps)


@pytest.mark.parametrize(
    "options",
    [
        ("qemu-xhci,acpi-index=4", "virtio-balloon-pci,acpi-index=4"),
        *(("pci-bridge,acpi-index=20000",), ("pci-bridge,romsize=3",), ("pci-bridge,addr=1",)),
        *(("virtio-balloon-pci,romsize=3",), ("pci-bridge",)),
    ],
)
def test_an_acpi_index_at_the_start(options: tuple[str, ...]) -> None:
    same_messages("-machine", "pc", *(word for each in options for word in ("-device", each)))
