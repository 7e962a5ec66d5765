"""What Incus has in its machines: directories, devices on no bus, sets of descriptors, ports."""

from __future__ import annotations

import contextlib
import json
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from memd.compat import Compat
from tests import NOT_THERE, prefork
from tests.differential.harness import Pair, Side, settle
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd, running
from tests.differential.standin import standin_pair, tell

Step = tuple[str, dict[str, Any]]


def refusals(*options: str) -> list[tuple[int, str]]:
    """What a QEMU and a stand-in say of options, neither of which may start."""
    said = []
    for binary in (qemu_binary(), qemu_system_memd(qemu_compat())):
        line = [*binary, "-S", "-display", "none", "-nodefaults", *options]
        done = prefork.run(line)
        said.append((done.returncode, re.sub(r"(?m)^qemu-system-\w+: ", "", done.stderr)))
    assert said[0][0] == 1
    return said


ROOT = "local,path=/,security_model=none"
LOCAL = "-fsdev local,id=a,path=/,security_model=none"


@pytest.mark.parametrize(
    "line",
    [
        *("-fsdev local,path=/", "-fsdev id=a,path=/", "-fsdev nope,id=a", "-fsdev local,id=a"),
        *("-fsdev local,id=9", "-fsdev local,id=a,foo=1", f"{LOCAL} {LOCAL}"),
        *("-fsdev synth,id=a,path=/", f"{LOCAL},socket=x", f"{LOCAL},fmode=x"),
        *("-fsdev local,id=a,security_model=none", "-fsdev local,id=a,security_model=x"),
        *(f"{LOCAL},multidevs=x", f"{LOCAL},fmode=5", f"{LOCAL},readonly=x"),
        *(f"{LOCAL},throttling.bps-total=1,throttling.bps-read=1",),
        "-device virtio-9p-pci,id=d",
        f"{LOCAL} -device virtio-9p-pci,fsdev=b,mount_tag=t",
        f"{LOCAL} -device virtio-9p-pci,fsdev=a",
        f"{LOCAL} -device virtio-9p-pci,fsdev=a,mount_tag={'t' * 40}",
        *("-device vmgenid -device vmgenid", "-device vmcoreinfo -device vmcoreinfo"),
        *("-device vmgenid,guid=x", "-device vmgenid,bus=pcie.0", "-device vmgenid,bus=nope"),
        "-device vmgenid,foo=1",
        *(f"-virtfs {ROOT}", f"-virtfs {ROOT},mount_tag=9", f"-virtfs {ROOT},mount_tag=t,foo=1"),
        *(f"-virtfs {ROOT},mount_tag=t,id=9", f"-virtfs {ROOT},mount_tag=t,sock_fd=3"),
        *(
            "-virtfs path=/,mount_tag=t",
            "-virtfs local,path=/,mount_tag=t",
            "-virtfs x,mount_tag=t",
        ),
        *(
            f"-virtfs {ROOT},mount_tag=t -virtfs {ROOT},mount_tag=t",
            f"{LOCAL} -virtfs {ROOT},mount_tag=a",
        ),
        f"-virtfs {ROOT},mount_tag=t,id=b -virtfs {ROOT},mount_tag=u,id=b",
        f"-virtfs {ROOT},mount_tag={'t' * 40}",
        f"-virtfs local,path={NOT_THERE},security_model=none,mount_tag=t -device nope",
        *("-add-fd fd=5", "-add-fd set=1", "-add-fd fd=-1,set=1", "-add-fd fd=99,set=1"),
        *(
            "-add-fd fd=99,set=-1",
            "-add-fd fd=2,set=1",
            "-add-fd fd=x,set=1",
            "-add-fd fd=99,set=x",
        ),
        *("-add-fd fd=99,set=1,foo=1", "-add-fd fd=99,set=4294967295"),
        "-add-fd fd=99999999999999999999,set=1",
        *("-tpmdev emulator,id=t", "-tpmdev emulator,id=t,chardev=x", "-tpmdev emulator,chardev=x"),
        *("-tpmdev x,id=t", "-tpmdev id=t", "-tpmdev emulator,id=9", "-tpmdev emulator,id=t,foo=1"),
        *(
            "-device tpm-tis",
            "-device tpm-crb",
            "-device tpm-crb,tpmdev=t",
            "-device tpm-tis,tpmdev=t",
        ),
        *("-run-with user=nope", "-run-with user=", "-run-with foo=1", "-run-with user=1:"),
        "-run-with async-teardown=x",
        *("-chardev ringbuf,id=a,size=3", f"-chardev file,id=a,path={NOT_THERE}/x"),
        *("-chardev mux,id=a,chardev=b", "-chardev ringbuf,id=a -chardev null,id=a"),
    ],
)
def test_what_can_not_be(line: str) -> None:
    reference, subject = refusals("-machine", "q35", *line.split())
    if "Duplicate ID" in reference[1]:
        # QEMU names the later one, and memd the one that it takes later.
        reference, subject = (
            (code, text.partition(": ")[2]) for code, text in (reference, subject)
        )
    assert subject == reference


def test_how_numbers_and_switches_are_written(directory: Path) -> None:
    limits = "throttling.bps-total=0x10,throttling.iops-total=010,fmode=0600"
    share = f"local,id=a,path=/,security_model=mapped,readonly=yes,{limits}"
    with standin_pair(directory, "-machine", "none", "-fsdev", share) as pair:
        tell(pair, [("query-status", {})])


@pytest.mark.parametrize("driver", ["vmgenid", "vmcoreinfo"])
def test_devices_that_a_machine_without_anything_can_not_have(driver: str) -> None:
    reference, subject = refusals("-machine", "none", "-device", driver)
    assert subject == reference


@pytest.mark.parametrize(
    "line",
    [
        *(f"{machine} -device intel-iommu,intremap=off" for machine in ("pc", "microvm", "none")),
        *(f"{machine} -device vmbus-bridge" for machine in ("isapc", "microvm", "none")),
        *("isapc -device ramfb", "none -device uefi-vars-x64", "q35 -device uefi-vars-sysbus"),
        "q35 -device intel-iommu,foo=1",
        *("q35 -device intel-iommu,bus=pcie.0", "q35 -device intel-iommu -device intel-iommu"),
        *(
            "q35 -device intel-iommu -device virtio-iommu-pci",
            "q35 -device virtio-iommu-pci -device intel-iommu",
        ),
    ],
)
def test_what_the_system_bus_of_a_machine_can_not_have(line: str) -> None:
    reference, subject = refusals("-machine", *line.split())
    assert subject == reference


def test_an_iommu(directory: Path) -> None:
    options = ("-device", "intel-iommu,id=i,caching-mode=on,device-iotlb=on", "-device", "ramfb")
    steps: list[Step] = [
        ("qom-list", {"path": "/machine/peripheral"}),
        ("qom-get", {"path": "i", "property": "caching-mode"}),
        ("query-pci", {}),
        *(("device_add", {"driver": driver}) for driver in ("intel-iommu", "ramfb")),
        ("device_del", {"id": "i"}),
    ]
    with standin_pair(directory, "-machine", "q35", *options) as pair:
        tell(pair, steps)


def test_a_directory_for_the_guest(directory: Path) -> None:
    def share(**more: Any) -> Step:
        return "device_add", {"driver": "virtio-9p-pci", "id": "d0", "bus": "rp", **more}

    steps: list[Step] = [
        *(share(), share(fsdev="nope"), share(fsdev="a"), share(fsdev="gone", mount_tag="t")),
        *(share(fsdev="file", mount_tag="t"), share(fsdev="a", mount_tag="t")),
        ("qom-get", {"path": "d0", "property": "fsdev"}),
        ("qom-get", {"path": "d0", "property": "mount_tag"}),
        ("device_del", {"id": "d0"}),
    ]
    directories = (("a", "@DIR@"), ("gone", "@DIR@/gone"), ("file", "/etc/passwd"))
    options = [
        word
        for id, path in directories
        for word in ("-fsdev", f"local,id={id},path={path},security_model=mapped,readonly=on")
    ]
    ports = ("-device", "pcie-root-port,id=rp")
    tag = ("-device", "virtio-9p-pci,fsdev=a,mount_tag=\udcff")
    with standin_pair(directory, "-machine", "q35", *options, *ports, *tag) as pair:
        tell(pair, steps)


def test_devices_on_no_bus_and_on_the_buses_of_the_machine(directory: Path) -> None:
    guid = "6f2d0a5e-3c1b-4b57-9c3c-0a4b1c2d3e4f"
    drivers = ("vmgenid", "vmcoreinfo", "vmclock", "nvme-subsys", "ipmi-bmc-sim", "ipmi-bmc-extern")
    steps: list[Step] = [
        *(("query-vm-generation-id", {}), ("qom-get", {"path": "v0", "property": "guid"})),
        *(
            ("qom-get", {"path": id, "property": name})
            for id in ("v0", "r0", "e0", "k0")
            for name in ("parent_bus", "hotpluggable")
        ),
        *(("device_del", {"id": id}) for id in ("v0", "i0", "n0", "r0", "e0")),
        *(("device_add", {"driver": driver, "id": "x"}) for driver in drivers),
        *(("device_add", {"driver": driver, "bus": "pcie.0"}) for driver in drivers),
        *(("device_add", {"driver": driver, "bus": "nope"}) for driver in drivers),
    ]
    devices = (
        f"vmgenid,id=v0,guid={guid}",
        "vmcoreinfo",
        "nvme-subsys,id=n0",
        "ipmi-bmc-sim,id=i0",
        *("ramfb,id=r0", "isa-debug-exit,id=e0", "usb-kbd,id=k0"),
    )
    options = [word for each in devices for word in ("-device", each)]
    with standin_pair(directory, "-machine", "q35", "-usb", *options) as pair:
        tell(pair, steps)
        # The event comes before the answer or after it.
        pair.ask("device_del", {"id": "k0"})
        pair.each(lambda side: side.monitor.read_event("DEVICE_DELETED"))


def test_a_machine_without_a_generation_id(directory: Path) -> None:
    with standin_pair(directory, "-machine", "q35") as pair:
        tell(pair, [("query-vm-generation-id", {})])


def test_block_nodes_of_descriptors(directory: Path) -> None:
    def make(scratch: Path) -> None:
        (scratch / "image").write_bytes(bytes(1 << 20))

    def give(side: Side, flags: int, number: str) -> Any:
        fd = os.open(side.scratch / "image", flags)
        side.monitor.send(b'{"execute": "add-fd", "arguments": {%s}}' % number.encode(), [fd])
        os.close(fd)
        return side.monitor.read_answer()["return"]["fdset-id"]

    def sets(side: Side) -> Any:
        told = side.ask("query-fdsets")["return"]
        return [(each["fdset-id"], len(each["fds"])) for each in told]

    def node(name: str, number: Any = 0, **more: Any) -> Step:
        path = f"/dev/fdset/{number}"
        return "blockdev-add", {"driver": "file", "node-name": name, "filename": path, **more}

    writes: dict[str, Any] = {"locking": "off"}
    reads = {**writes, "read-only": True}
    direct = {**writes, "cache": {"direct": True}}
    with standin_pair(directory, "-machine", "q35", prepare=make) as pair:
        tell(pair, [node("n0", **writes), node("n0", "x", **writes)])
        pair.same("set", lambda side: give(side, os.O_RDONLY, ""))
        tell(pair, [node("n0", **writes), node("n0", **reads)])
        pair.same("set", lambda side: give(side, os.O_RDWR, '"fdset-id": 0'))
        tell(pair, [node("n1", **writes), node("n2", **direct), node("n2", **(direct | reads))])
        pair.same("sets", sets)
        tell(pair, [("block_resize", {"node-name": "n1", "size": 2 << 20})])
        pair.same("size", lambda side: (side.scratch / "image").stat().st_size)
        tell(pair, [("remove-fd", {"fdset-id": 0})])
        pair.same("sets", sets)
        tell(pair, [("remove-fd", {"fdset-id": 0}), node("n3", **writes)])
        pair.same("set", lambda side: give(side, os.O_RDWR | os.O_DIRECT, ""))
        tell(pair, [node("n3", 1, **writes), node("n3", 1, **direct)])
        tell(pair, [("blockdev-del", {"node-name": name}) for name in ("n0", "n1")])
        pair.same("sets", sets)
        pair.same("set", lambda side: give(side, os.O_RDWR, ""))


def test_descriptors_that_block_nodes_are_not_opened_from(directory: Path) -> None:
    def make(scratch: Path) -> None:
        (scratch / "image").touch()

    def refused(side: Side, flags: int) -> Any:
        with os.fdopen(os.open(side.scratch / "image", flags)) as file:
            message = b'{"execute": "add-fd", "arguments": {"fdset-id": 1}}'
            side.monitor.send(message, [file.fileno()])
        fd = side.monitor.read_answer()["return"]["fd"]
        node = {"driver": "file", "node-name": "n", "filename": "/dev/fdset/1", "read-only": True}
        told = side.ask("blockdev-add", node)["error"]["desc"]
        side.ask("remove-fd", {"fdset-id": 1})
        return told.replace(str(fd), "N")

    with standin_pair(directory, "-machine", "none", prepare=make) as pair:
        # QEMU 11.1 ends the connection on which a descriptor of O_PATH comes.
        paths = (os.O_PATH,) if qemu_compat() is Compat.V10_0 else ()
        for flags in (*paths, os.O_SYNC, os.O_DSYNC, os.O_DIRECT, os.O_WRONLY):
            pair.same(f"flags {flags:x}", lambda side, flags=flags: refused(side, flags))  # type: ignore[misc]
        tell(pair, [("remove-fd", {"fdset-id": 7, "fd": 3})])


def test_a_descriptor_that_appends(directory: Path) -> None:
    """Its image is written where its parts belong."""

    def make(scratch: Path) -> None:
        (scratch / "image").touch()

    def give(side: Side) -> None:
        with open(side.scratch / "image", "a+b") as file:
            side.monitor.send(b'{"execute": "add-fd", "arguments": {}}', [file.fileno()])
        side.monitor.read_answer()

    def concluded(side: Side) -> Any:
        jobs = settle(
            lambda: side.ask("query-jobs")["return"],
            lambda told: all(each["status"] == "concluded" for each in told),
        )
        return [each.get("error") for each in jobs]

    node = {"driver": "file", "node-name": "n", "filename": "/dev/fdset/0", "locking": "off"}
    options = {"driver": "qcow2", "file": "n", "size": 1 << 20}
    with standin_pair(directory, "-machine", "none", prepare=make) as pair:
        for side in (pair.reference, pair.subject):
            give(side)
        pair.ask("blockdev-add", node)
        for job in ("once", "again"):
            pair.ask("blockdev-create", {"job-id": job, "options": options})
            pair.same("jobs", concluded)
        pair.same("size", lambda side: (side.scratch / "image").stat().st_size)


def test_character_devices_from_sets_of_descriptors(directory: Path) -> None:
    """The files, devices and logs of character devices, and dumps."""
    accesses = [os.O_WRONLY, os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND]

    def make(scratch: Path) -> None:
        for number in range(len(accesses)):
            (scratch / f"f{number}").write_bytes(b"hello world")

    def give(side: Side) -> None:
        for number, access in enumerate(accesses):
            fd = os.open(side.scratch / f"f{number}", access)
            give_fd(side, fd, number)
            os.close(fd)
        for number, fd in enumerate(os.pipe(), len(accesses)):
            give_fd(side, fd, number)
            os.close(fd)

    def give_fd(side: Side, fd: int, number: int) -> None:
        request = {"execute": "add-fd", "arguments": {"fdset-id": number}}
        side.monitor.send(json.dumps(request).encode(), [fd])
        assert "return" in side.monitor.read_answer()

    def counts(side: Side) -> Any:
        told = side.ask("query-fdsets")["return"]
        return [(each["fdset-id"], len(each["fds"])) for each in told]

    def told(side: Side, command: str, given: dict[str, Any]) -> str:
        return re.sub(r"\bfd=\d+", "fd=N", json.dumps(side.ask(command, given)))

    def files(side: Side) -> list[Path]:
        return [side.scratch / f"f{number}" for number in range(len(accesses))]

    sets = [f"/dev/fdset/{number}" for number in (0, 1, 2, 3, 4, 5, 7, "x")]
    backends: list[dict[str, Any]] = [
        *({"type": "file", "data": {"out": each, "append": True}} for each in sets),
        *({"type": "null", "data": {"logfile": each, "logappend": True}} for each in sets),
        *({"type": kind, "data": {"device": each}} for kind in ("serial", "pipe") for each in sets),
        *({"type": "parallel", "data": {"device": each}} for each in (*sets, "@DIR@/f1")),
        *({"type": "file", "data": {"out": sets[0], "in": each}} for each in sets),
        *({"type": "file", "data": {"out": each}} for each in sets[2:]),
        *({"type": "ringbuf", "data": {"logfile": each}} for each in sets),
    ]
    memory = ("-m", "16M", "-object", "memory-backend-ram,id=m0,size=16M")
    line = ("-machine", "q35,memory-backend=m0", *memory)
    with standin_pair(directory, *line, prepare=make) as pair:
        pair.each(give)
        for number, backend in enumerate(backends):
            arguments = {"id": f"c{number}", "backend": backend}
            said = pair.same(str(backend), partial(told, command="chardev-add", given=arguments))
            sizes = pair.each(lambda side: [each.stat().st_size for each in files(side)])
            # QEMU has cut the output where there is no input.
            assert sizes[0] == sizes[1] or "error" in said, backend
        tell(pair, [("remove-fd", {"fdset-id": number}) for number in range(6)])
        pair.same("sets", counts)
        for number in range(len(backends)):
            remove = {"id": f"c{number}"}
            pair.each(partial(told, command="chardev-remove", given=remove))
        # In QEMU those of logs and of serial devices stay.
        assert counts(pair.subject) == []
        pair.each(give)
        for each in sets[1:]:
            dump = {"paging": False, "protocol": f"file:{each}"}
            pair.same(each, partial(told, command="dump-guest-memory", given=dump))


def test_descriptors_of_the_command_line(directory: Path) -> None:
    """They go into sets, and are open there only."""
    options = [
        *("-add-fd", "fd=5,set=4,opaque=a word", "-add-fd", "fd=6,set=4", "-add-fd", "fd=5,set=1"),
        *("-chardev", "file,id=c0,path=/dev/fdset/1,append=on", "-machine", "q35", "-S"),
        *("-blockdev", "file,node-name=n0,filename=/dev/fdset/4,read-only=on,locking=off"),
        *("-display", "none", "-nodefaults"),
    ]

    def sets(side: Side) -> Any:
        told = side.ask("query-fdsets")["return"]
        return [(each["fdset-id"], [fd.get("opaque") for fd in each["fds"]]) for each in told]

    def open_files(side: Side) -> int:
        links = Path(f"/proc/{side.server.pid}/fd").iterdir()
        return sum(
            each.is_symlink() and os.readlink(each) == str(side.scratch / "f") for each in links
        )

    with contextlib.ExitStack() as stack:
        sides = []
        for name, binary in (("QEMU", qemu_binary()), ("memd", qemu_system_memd(qemu_compat()))):
            place, scratch = directory / name, directory / f"{name}-s"
            place.mkdir()
            scratch.mkdir()
            (scratch / "f").write_bytes(bytes(1 << 20))
            line = ["sh", "-c", 'exec "$0" "$@" 5>>f 6<f', *binary, *options]
            sides.append(Side(stack.enter_context(running(name, line, place, scratch)), scratch))
        pair = Pair(*sides)
        pair.same("sets", sets)
        pair.same("open", open_files)
        tell(pair, [("remove-fd", {"fdset-id": 4}), ("blockdev-del", {"node-name": "n0"})])
        tell(pair, [("chardev-remove", {"id": "c0"})])
        pair.same("sets", sets)
        # memd closes files beside its loop.
        wanted = open_files(pair.reference)
        assert settle(lambda: open_files(pair.subject), lambda count: count == wanted) == wanted


def test_a_directory_and_its_device(directory: Path) -> None:
    more = "local,path=@DIR@,security_model=mapped,mount_tag=u,id=f1,readonly=on,fmode=0600"
    options = ("-virtfs", f"{ROOT},mount_tag=t", "-virtfs", more)
    with standin_pair(directory, "-machine", "q35", *options) as pair:
        for number, name in [(number, name) for number in "01" for name in ("fsdev", "mount_tag")]:
            path = f"/machine/peripheral-anon/device[{number}]"
            tell(pair, [("qom-get", {"path": path, "property": name})])


def test_another_backend_behind_a_port(directory: Path) -> None:
    def change(id: str, kind: str = "null", **data: Any) -> Step:
        return "chardev-change", {"id": id, "backend": {"type": kind, "data": data}}

    ports = {
        "c0": "-serial chardev:c0",
        "c1": "-parallel chardev:c1",
        "c2": "-device virtio-serial-pci -device virtconsole,chardev=c2",
        "c3": "-device isa-serial,chardev=c3",
        "c4": "-device pci-serial,chardev=c4",
        "c5": "-device qemu-xhci -device usb-serial,chardev=c5",
        "c6": "-chardev mux,id=m,chardev=c6",
    }
    options = [
        word
        for id, port in ports.items()
        for word in ("-chardev", f"ringbuf,id={id}", *port.split())
    ]
    steps = [
        *(change(id) for id in (*ports, "m", "nope")),
        change("c0", "ringbuf", size=3),
        change("c0", "file", out=f"{NOT_THERE}/x"),
        change("c0", "mux", chardev="nope"),
        change("c0", "socket", addr={"type": "fd", "data": {"str": "nope"}}),
        change("c0", "ringbuf"),
        ("chardev-remove", {"id": "c0"}),
        ("ringbuf-read", {"device": "c0", "size": 5}),
        # QEMU removes this one.
        change("unused", "file", out=f"{NOT_THERE}/x"),
    ]
    options += ["-chardev", "ringbuf,id=unused"]
    with standin_pair(directory, "-machine", "q35", *options) as pair:
        tell(pair, steps)


def test_a_socket_in_the_place_of_an_empty_file(directory: Path) -> None:
    def make(scratch: Path) -> None:
        for name in ("at the start", "later"):
            (scratch / name).touch()

    socket = {"type": "unix", "data": {"path": "@DIR@/later"}}
    backend = {"type": "socket", "data": {"addr": socket, "wait": False}}
    options = ("-chardev", "socket,id=c0,path=@DIR@/at the start,server=on,wait=off", "-mon", "c0")
    with standin_pair(directory, "-machine", "q35", *options, prepare=make) as pair:
        tell(pair, [("chardev-add", {"id": "c1", "backend": backend})])
        pair.same("sockets", lambda side: [each.is_socket() for each in side.scratch.iterdir()])
