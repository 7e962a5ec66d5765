"""Machines put together at the start of a real daemon."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from tests.app.starting import Start, run
from tests.differential.server import Monitor
from tests.manager import Manage

MIB = 1 << 20
BUSY = 0x82

M0 = ("-object", "memory-backend-ram,id=m0,size=64M")
M1 = ("-object", "memory-backend-ram,id=m1,size=64M")
Q35 = ("-machine", "q35")
ROOM = ("-m", "64M,slots=3,maxmem=1G")


def ask(monitor: Monitor, command: str, **arguments: Any) -> Any:
    named = {name.replace("_", "-"): value for name, value in arguments.items()}
    return monitor.execute(command, named)["return"]


def refusal(monitor: Monitor, command: str, **arguments: Any) -> str:
    named = {name.replace("_", "-"): value for name, value in arguments.items()}
    text: str = monitor.execute(command, named)["error"]["desc"]
    return text


def test_its_own_memory(start: Start) -> None:
    monitor = start("-machine", "q35,mem-merge=off", "-m", "64M").monitor()
    (row,) = ask(monitor, "query-memdev")
    assert (row["id"], row["size"], row["merge"], row["dump"]) == ("pc.ram", 64 * MIB, False, True)
    assert ask(monitor, "qom-get", path="/machine", property="memory-backend") == "/objects/pc.ram"
    assert refusal(monitor, "object-del", id="pc.ram") == (
        "object 'pc.ram' is in use, can not be deleted"
    )


def test_memory_that_was_kept_is_not_emptied(manage: Manage) -> None:
    """A virtio-mem device empties its backend, but for one that outlives a restart with it."""
    manager = manage(
        *("-machine", "q35", "-m", "64M,slots=1,maxmem=1G"),
        *("-object", "memory-backend-memfd,id=m0,size=64M,reserve=off"),
        *("-device", "virtio-mem-pci,id=v0,memdev=m0,requested-size=32M"),
    )
    data = {"id": "m0", "offset": 4096}
    manager.start_and_wait()
    with contextlib.closing(Monitor(manager.directory / "qmp.sock")) as monitor:
        assert ask(monitor, "x-memdev-write", data="a2VwdA==", **data) == {}
    for end in (manager.end, manager.kill):
        end()
        manager.start_and_wait()
        with contextlib.closing(Monitor(manager.directory / "qmp.sock")) as monitor:
            assert ask(monitor, "x-memdev-read", length=4, **data) == {"data": "a2VwdA=="}
            assert ask(monitor, "query-memory-devices")[0]["data"]["memdev"] == "/objects/m0"


def test_memory_of_a_backend_and_of_nodes(start: Start) -> None:
    for options in (
        ("-machine", "q35,memory-backend=m0", *M0),
        (*Q35, "-m", "64M", *M0, "-numa", "node,memdev=m0"),
    ):
        monitor = start(*options).monitor()
        assert [row["id"] for row in ask(monitor, "query-memdev")] == ["m0"]
        assert refusal(monitor, "object-del", id="m0").endswith("in use, can not be deleted")
        summary = ask(monitor, "query-memory-size-summary")
        assert summary == {"base-memory": 64 * MIB, "plugged-memory": 0}


def test_devices_stand_before_their_objects(start: Start) -> None:
    """As Kata starts its hypervisor with an image, and as libvirt gives its devices."""
    monitor = start(
        *("-nodefaults", "-device", "nvdimm,id=nv0,memdev=m0,unarmed=on"),
        *("-machine", "q35,nvdimm=on", *ROOM),
        *("-device", '{"driver":"pcie-root-port","id":"pci.1","bus":"pcie.0","addr":"0x1"}'),
        *("-device", '{"driver":"virtio-mem-pci","id":"v0","memdev":"m1","bus":"pci.1"}'),
        *(*M0, *M1, "-S"),
    ).monitor()
    devices = ask(monitor, "query-memory-devices")
    assert [(each["type"], each["data"]["id"]) for each in devices] == [
        ("nvdimm", "nv0"),
        ("virtio-mem", "v0"),
    ]
    assert devices[0]["data"]["hotplugged"] is False
    names = {each["name"] for each in ask(monitor, "qom-list", path="/machine/peripheral")}
    assert {"nv0", "pci.1", "v0"} <= names


def test_a_device_that_takes_long(start: Start) -> None:
    """The pages of a virtio-mem device's memory are made beside the loop."""
    device = "virtio-mem-pci,id=v0,memdev=m0,requested-size=64M,prealloc=on"
    monitor = start(*Q35, "-m", "64M,maxmem=1G", *M0, "-device", device).monitor()
    (found,) = ask(monitor, "query-memory-devices")
    assert found["data"]["id"] == "v0"


def plugged(start: Start, *options: str) -> Monitor:
    """A monitor of a running machine with a DIMM that the guest is asked to release."""
    monitor = start(*Q35, *ROOM, *M0, "-device", "pc-dimm,id=d0,memdev=m0", *options).monitor()
    assert ask(monitor, "device_del", id="d0") == {}
    return monitor


@pytest.mark.parametrize("reaction", ["immediately", "after=20"])
def test_a_guest_that_is_willing(start: Start, reaction: str) -> None:
    monitor = plugged(start, "-guest-reacts", reaction)
    event = monitor.read_event("DEVICE_DELETED")
    assert event["data"] == {"device": "d0", "path": "/machine/peripheral/d0"}
    assert ask(monitor, "object-del", id="m0") == {}


def test_a_guest_that_is_not(start: Start) -> None:
    monitor = plugged(start, "-guest-reacts", "refuses")
    # The last that is heard of it (ACPI: _OST, "device busy").
    while monitor.read_event("ACPI_DEVICE_OST")["data"]["info"]["status"] != BUSY:
        pass
    assert refusal(monitor, "object-del", id="m0").endswith("in use, can not be deleted")
    monitor = plugged(start, "-guest-reacts", "never")
    assert len(ask(monitor, "query-memory-devices")) == 1


def test_a_guest_that_stands_still(start: Start) -> None:
    monitor = plugged(start, "-S")
    assert len(ask(monitor, "query-memory-devices")) == 1
    assert ask(monitor, "cont") == {}
    monitor.read_event("DEVICE_DELETED")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("-machine", "q35,memory-backend=m0", "-m", "32M", *M0),
            "Machine memory size does not match the size of the memory backend",
        ),
        (
            (*Q35, "-m", "64M", "-numa", "node"),
            "total memory for NUMA nodes (0x0) should equal RAM size (0x4000000)",
        ),
        (
            (*Q35, *M0, "-numa", "node,memdev=m0", "-numa", "node,memdev=m0"),
            "memory backend m0 can't be used multiple times.",
        ),
        (
            ("-machine", "q35,memory-backend=m0", *M0, "-numa", "node,memdev=m0"),
            "'-machine memory-backend' and '-numa memdev' properties are mutually exclusive",
        ),
        (
            ("-machine", "q35,memory-backend=m0", *M0, "-mem-path", "/tmp/m"),
            "'-mem-path' can't be used together with'-machine memory-backend'",
        ),
        (
            (*Q35, "-mem-path", "/no/where"),
            "can't open backing store /no/where for guest RAM: No such file or directory",
        ),
        (
            (*Q35, "-object", "memory-backend-ram,id=pc.ram,size=64M"),
            "object's id 'pc.ram' is reserved for the default RAM backend,",
        ),
        ((*Q35, "-m", "64M,slots=300,maxmem=1G"), "unsupported amount of memory slots: 300"),
        (
            (*Q35, "-device", "pc-dimm,memdev=m0", *M0),
            "-device pc-dimm,memdev=m0: no slots where allocated, please specify the 'slots'",
        ),
        (("-device", "zzz,foo=1"), "-device zzz,foo=1: 'zzz' is not a valid device model name"),
    ],
)
def test_what_can_not_be(options: tuple[str, ...], message: str) -> None:
    done = run(*options)
    assert done.returncode == 1
    assert done.stderr.startswith(f"qemu-system-memd: {message}")
