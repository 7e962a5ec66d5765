"""A machine that stands still: what QEMU and memd say of its memory and its CPUs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest

from memd.json_types import JSON
from tests.differential.server import Monitor, Server, qemu_argv, qemu_compat, qemu_system_memd

MACHINES = [
    "-machine q35,smp.cpus=2,boot.menu=on -m 64M,slots=2,maxmem=1G -smp maxcpus=3",
    "-machine pc,hmat=on -m 64M -object memory-backend-ram,id=m0,size=64M -smp 4,sockets=4"
    " -numa node,memdev=m0 -numa node",
    "-machine pc,memory-backend=m0,dump-guest-core=off -device virtio-balloon-pci"
    " -object memory-backend-ram,id=m0,size=64M -smp 2,sockets=1,dies=2"
    " -m 64M,slots=2,maxmem=1G -object memory-backend-ram,id=m1,size=32M"
    " -device pc-dimm,id=d1,memdev=m1",
    # Every kind of device, on the machine's own bus and in a port.
    "-machine q35,nvdimm=on -m 64M,slots=4,maxmem=4G -smp 2"
    " -object memory-backend-ram,id=m0,size=64M -object memory-backend-memfd,id=m1,size=64M"
    " -object memory-backend-ram,id=m2,size=64M -object memory-backend-ram,id=m3,size=64M"
    " -device pc-dimm,memdev=m0 -device nvdimm,id=d1,memdev=m1"
    " -device virtio-mem-pci,id=v0,memdev=m2 -device virtio-pmem-pci,memdev=m3"
    " -device pcie-root-port,id=rp0,chassis=1 -device pcie-root-port,id=rp1,chassis=2"
    " -device virtio-balloon-pci,id=b0,bus=rp0 -device qemu-xhci,id=x0,bus=rp1"
    " -device qemu-xhci,id=x1,msi=on -device pci-bridge,id=br0,chassis_nr=2",
    "-machine q35,mem-merge=off,nvdimm=on -m 96M -smp 3,maxcpus=4"
    " -object memory-backend-ram,id=m0,size=64M -object memory-backend-ram,id=m1,size=32M"
    " -numa node,memdev=m0,cpus=0-1 -numa node,memdev=m1,cpus=2-3",
    "-machine none -m 32M",
]

PROPERTIES = (
    *("memory", "memory-backend", "smp", "boot", "nvdimm", "mem-merge", "dump-guest-core", "acpi"),
    *(
        "max-fw-size",
        "smbios-entry-point-type",
        "x-oem-id",
        "usb",
        "hpet",
        "vmport",
        "nope",
        "graphics",
    ),
)

COMMANDS: list[tuple[str, dict[str, Any]]] = [
    ("query-memory-size-summary", {}),
    ("query-memory-devices", {}),
    ("query-hotpluggable-cpus", {}),
    ("query-cpus-fast", {}),
    *(("qom-get", {"path": "/machine", "property": name}) for name in PROPERTIES),
    ("qom-get", {"path": "/machine", "property": "type"}),
    ("qom-get", {"path": "/machine/unattached/device[0]", "property": "core-id"}),
    ("qom-get", {"path": "/machine/unattached/device[0]", "property": "realized"}),
    ("object-del", {"id": "m0"}),
    ("object-del", {"id": "pc.ram"}),
    ("object-add", {"qom-type": "memory-backend-ram", "id": "more", "size": 4096}),
    ("object-del", {"id": "more"}),
    ("query-balloon", {}),
    ("balloon", {"value": 1 << 20}),
    ("balloon", {"value": 0}),
    ("device_add", {"driver": "virtio-mem-pci", "bus": "pcie.0"}),
    ("device_del", {"id": "/machine/q35"}),
    ("device_del", {"id": "/machine/unattached/device[0]"}),
    ("device_del", {"id": "/machine/unattached/device[2]"}),
    *(
        ("human-monitor-command", {"command-line": line, "cpu-index": index})
        for line in ("info name", "", "nope")
        for index in (-1, 0, 1, 7, 1 << 32)
    ),
]


SKIPPED = ("hotplug-handler", "rtc-time")
"""What handles a bus, which is a part of the machine that is not about memory, and the time."""


@pytest.fixture(scope="module", params=MACHINES, ids=[text[:24] for text in MACHINES])
def monitors(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Monitor, Monitor]]:
    """QEMU and memd with the same machine, stopped."""
    options = ["-S", "-nodefaults", "-nographic", *shlex.split(request.param)]
    servers: list[Server] = []

    def serve(name: str, argv: list[str]) -> Monitor:
        servers.append(Server(name, [*argv, *options], tmp_path_factory.mktemp("m")))
        return servers[-1].monitor()

    try:
        theirs = serve("qemu", qemu_argv())
        yield theirs, serve("memd", qemu_system_memd(qemu_compat()))
    finally:
        for server in servers:
            server.stop()


def comparable(answer: JSON) -> JSON:
    """Without ids of threads, which differ."""
    if isinstance(answer, dict):
        return {name: comparable(value) for name, value in answer.items() if name != "thread-id"}
    if isinstance(answer, list):
        return [comparable(each) for each in answer]
    return answer


def test_answers(monitors: tuple[Monitor, Monitor]) -> None:
    reference, subject = monitors
    wrong = []
    for command, arguments in COMMANDS:
        theirs, ours = (comparable(each.execute(command, arguments)) for each in monitors)
        if theirs != ours:
            wrong.append(f"{command} {arguments}\n  {ours}\n  instead of\n  {theirs}")
    assert not wrong, "\n".join(wrong)
    rows = [
        sorted(each.execute("query-memdev")["return"], key=lambda row: row["id"])
        for each in (reference, subject)
    ]
    assert rows[0] == rows[1]


def test_every_object(monitors: tuple[Monitor, Monitor]) -> None:
    """memd has no object or property that QEMU has not, and all read as there."""
    reference, subject = monitors
    wrong = []
    paths = ["/"]
    for path in paths:
        theirs, ours = (each.execute("qom-list", {"path": path})["return"] for each in monitors)
        for row in ours:
            name = row["name"]
            if row not in theirs:
                wrong.append(f"{path} {row}: QEMU has none")
            elif name not in SKIPPED and not path.startswith("/chardevs/"):
                one = {"path": path, "property": name}
                value, wanted = subject.execute("qom-get", one), reference.execute("qom-get", one)
                if value != wanted:
                    wrong.append(f"{path} {name}: {value} instead of {wanted}")
            if row["type"].startswith("child<"):
                paths.append(f"{path.rstrip('/')}/{name}")
    assert not wrong, "\n".join(wrong)


def test_the_machines(monitors: tuple[Monitor, Monitor]) -> None:
    """Those that memd has are described as QEMU's are."""
    reference, subject = (
        {row["name"]: row for row in each.execute("query-machines")["return"]} for each in monitors
    )
    for name, row in subject.items():
        assert reference[name] == row
