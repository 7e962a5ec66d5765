"""Options that are checked: what is said of mistakes, and the effect of those that have one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import prefork
from tests.differential.harness import Side
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd
from tests.differential.standin import same_messages, standin_pair, tell

TAKEN = [
    *("-boot c,order=d,menu=on", "-boot strict=on -boot once=a,splash-time=5", "-icount auto"),
    *("-icount shift=auto,align=on", "-icount 7,sleep=off", "-win2k-hack -no-fd-bootchk"),
    *(
        "-smbios type=1,serial=x,uuid=550e8400-e29b-41d4-a716-446655440000",
        "-smbios type=0,uefi=on",
    ),
    "-smbios type=11,value=a,value=b",
    *("-fw_cfg opt/a,string=b -fw_cfg name=opt/c,string=d", "-mem-prealloc"),
]

STEPS = [
    ("qom-get", {"path": "/machine", "property": "boot"}),
    ("object-add", {"qom-type": "memory-backend-ram", "id": "m0", "size": 4096}),
    ("object-add", {"qom-type": "memory-backend-ram", "id": "m1", "size": 4096, "reserve": False}),
    ("object-add", {"qom-type": "memory-backend-ram", "id": "m2", "size": 4096, "prealloc": False}),
    *(("qom-get", {"path": f"/objects/m{number}", "property": "prealloc"}) for number in (0, 2)),
    ("query-memdev", {}),
]


@pytest.mark.parametrize("line", TAKEN)
def test_what_is_taken(directory: Path, line: str) -> None:
    with standin_pair(directory, "-machine", "q35", "-m", "32M", *line.split()) as pair:
        tell(pair, STEPS)


WRONG = [
    *("-compat x=y", "-compat deprecated-input=x", "-compat unstable-output=reject", "-trace x=y"),
    *("-object iothread,id=t,foo=1", "-object iothread,id=t,poll-max-ns", "-audio model=x"),
    *(f"-machine {name} -fw_cfg opt/x,string=y" for name in ("none", "x-remote")),
    *("-boot foo=1", "-boot order=z", "-boot aa", "-boot menu=x", "-boot strict", "-boot help"),
    *("-boot once=z", "-boot menu=on -boot menu=x", "-boot order.x=1", "-boot splash-time=x"),
    *("-icount foo", "-icount 11", "-icount align=on", "-icount 1,foo=2", "-icount 3,sleep=x"),
    *("-icount rr=foo", "-icount -1", "-smbios foo", "-smbios type=x", "-smbios type=99"),
    *(f"-smbios type={kind},foo=1" for kind in (0, 1, 2, 3, 4, 8, 9, 11, 17, 41)),
    *("-smbios type=-1", "-smbios type=0,uefi=x", "-smbios type=4,max-speed=x"),
    *("-smbios type=1,uuid=x", "-smbios type=2,serial -uuid ?", "-smbios file=/nonexistent/x"),
    *("-smbios type=7", "-smbios file=x,type=1", "-smbios type=8,port_type=x"),
    *("-fw_cfg foo", "-fw_cfg name=foo", "-fw_cfg opt/a,string=b,file=c", "-fw_cfg string=a"),
    *("-fw_cfg opt/a,string=b,foo=1", "-fw_cfg opt/a,file=/nonexistent/x", "-fw_cfg opt/a,file=."),
    *(f"-fw_cfg opt/{'a' * 52},string=b", "-fw_cfg a,file=/nonexistent/x"),
    "-chardev ringbuf,id=a,size=3B",
    *("-audiodev alsa", "-audiodev none,id=a,in.mixing-engine=off,in.fixed-settings=on"),
    "-audiodev none,id=a,in.fixed-settings=off,in.channels=2",
    *("-option-rom file=x", "-option-rom bootindex=x", "-option-rom bootindex=1"),
    *("-global foo", "-global a.b", "-global =", "-global driver=a", "-global driver=a,x=1"),
    *("-global a.=1", "-mem-prealloc -object memory-backend-ram,id=m,size=1M,reserve=off"),
    *("-usbdevice foo", "-usbdevice disk", "-debugcon foo", "-debugcon none", "-debugcon tcp:"),
    *("-gdb foo", "-gdb tcp:", "-set foo", "-set a.b.c=1", "-set device.x.a=1", "-set device.a=1"),
    *("-set .=", "-set object.a.b=1", "-set machine.a.b=1", "-device e1000,id=a -set device.a.=1"),
    *("-device e1000,id=a -set device.a.foo=1", "-netdev user,id=n -set netdev.n.foo=on"),
    "-set device.a.addr=5 -device e1000,id=a",
    '-device {"driver":"e1000","id":"a"} -set device.a.addr=5',
    *("-device VGA -global VGA.foo=1", "-device VGA -global driver=VGA,property=mmio,value=x"),
    *("-device VGA -global pci-device.romsize=x", "-global ICH9-LPC.foo=1", "-global e1000.x=1"),
    *(
        "-global rocker.multifunction=x",
        "-global virtio-net-pci.mac=z",
        "-global cpu.foo=1",
        "-global migration.x=1",
    ),
    *("-global migration.mode=z", "-global migration.x-max-bandwidth=z"),
    *("-global migration.multifd-channels=0", "-global migration.x-postcopy-preempt=on"),
    "-device virtio-blk-pci -global virtio-device.foo=1",
    "-device pcie-root-port -global pcie-port.aer_log_max=x",
]


@pytest.mark.parametrize("line", WRONG)
def test_mistakes(line: str) -> None:
    said = []
    for argv in (qemu_binary(), qemu_system_memd(qemu_compat())):
        begin = ["-machine", "q35", "-nodefaults", "-display", "none", "-S"]
        done = prefork.run([*argv, *begin, *line.split()])
        rows = [row.rpartition("qemu-system-")[2] for row in done.stderr.splitlines()]
        said.append((done.returncode, [row.partition(": ")[2] or row for row in rows], done.stdout))
    assert said[0] == said[1]


GLOBALS = """
-device VGA,id=v -global VGA.vgamem_mb=32 -global pci-device.rombar=0 -global VGA.xres=1024
-device pcie-root-port,id=p -global pcie-root-port.io-reserve=4K
-netdev user,id=u -device virtio-net-pci,id=n,netdev=u,packed=off -global virtio-device.packed=on
-global driver=virtio-net-device,property=mac,value=52-54-00-00-00-AA
-m 64M,slots=1,maxmem=1G -object memory-backend-ram,id=m,size=128M
-device virtio-mem-pci,id=mem,memdev=m -global virtio-mem.block-size=4M
-global ICH9-LPC.disable_s3=1 -global migration.multifd-channels=5
-global migration.x-events=on -global cfi.pflash01.secure=on
"""
VALUES = [
    *(("v", "vgamem_mb"), ("v", "rombar"), ("v", "xres"), ("p", "io-reserve"), ("n", "packed")),
    *(("n", "mac"), ("n", "rombar"), ("mem", "block-size"), ("later", "packed")),
]
STAYING = "PIIX4_PM.disable_s3=1 i440FX.z=1 vmgenid.guid=x cfi.pflash01.x=1 e1000e.rombar=0"
NO_DEVICES = "foo.x=1 memory-backend-ram.share=on q35-machine.foo=1 virtio-net.mac=x"


def test_effect_of_globals(directory: Path) -> None:
    with standin_pair(directory, "-machine", "q35", *GLOBALS.split()) as pair:
        later = {"driver": "virtio-rng-pci", "id": "later", "bus": "p"}
        steps: list[tuple[str, object]] = [("device_add", later)]
        for id, name in VALUES:
            steps.append(("qom-get", {"path": f"/machine/peripheral/{id}", "property": name}))
        power = pair.ask("qom-get", {"path": "/machine", "property": "acpi-device"})["return"]
        steps.append(("qom-get", {"path": power, "property": "disable_s3"}))
        steps += [("query-migrate-parameters", {}), ("query-migrate-capabilities", {})]
        tell(pair, steps)


REFERENCES = """
-chardev null,id=c1 -chardev null,id=c2 -chardev null,id=c3 -device virtio-serial-pci
-netdev hubport,hubid=1,id=n1 -netdev hubport,hubid=2,id=n2 -device virtio-scsi-pci
-blockdev null-co,node-name=b1 -blockdev null-co,node-name=b2 -drive if=none,id=d1,driver=null-co
-global virtserialport.chardev=c1 -global pci-serial.chardev=c1
-global virtio-net-pci.netdev=n1 -global scsi-hd.drive=b1 -global virtio-blk-pci.drive=b1
-device virtio-balloon-pci-transitional,ioeventfd=off,vectors=2
-global virtio-rng-pci.rombar=1 -device rtl8139,id=first,bootindex=1 -device rtl8139,id=second
"""
PLUGGED: list[tuple[str, object]] = [
    ("device_add", {"driver": driver, **values})
    for driver, values in (
        *(("virtconsole", {"chardev": "c2"}), ("virtconsole", {"chardev": ""})),
        *(("pci-serial", {"chardev": "c2"}), ("virtio-net-pci", {"netdev": "n2"})),
        *(("scsi-hd", {"drive": "b2"}), ("virtio-blk-pci", {"drive": ""})),
        ("virtio-blk-pci", {"drive": "d1"}),
        *(("virtio-blk-pci", {"drive": "b2"}), ("virtio-rng-pci", {"rombar": 0})),
        *(("e1000", {"netdev": "n2"}), ("usb-serial", {"chardev": "c2"})),
        *(("ide-hd", {"drive": ""}), ("pci-serial-2x", {"chardev1": "c2", "chardev2": "c3"})),
        *(("rtl8139", {"bootindex": 1}), ("rtl8139", {"bootindex": -1})),
    )
]


def test_what_globals_refer_to(directory: Path) -> None:
    """Nothing is used by a device that could not be made, and by no two."""
    with standin_pair(directory, "-machine", "pc", "-nodefaults", *REFERENCES.split()) as pair:
        steps = [*PLUGGED, *(("chardev-remove", {"id": f"c{n}"}) for n in (1, 2, 3))]
        for id, value in (("second", 1), ("first", 1), ("first", 2), ("second", 1), ("first", -3)):
            place = {"path": f"/machine/peripheral/{id}", "property": "bootindex"}
            steps += [("qom-get", place), ("qom-set", {**place, "value": value})]
        tell(pair, steps)


def test_what_machines_have_unless_a_global_names_it(directory: Path) -> None:
    """Nothing of its type is made by itself; what is said of that in a command has no name."""
    names = ("VGA.vgamem_mb=x", "isa-serial.index=9", "ide-cd.serial=z", "nope.x=1")
    line = [word for each in names for word in ("-global", each)]

    def labels(side: Side) -> list[str]:
        return sorted(each["label"] for each in side.ask("query-chardev")["return"])

    def warnings(side: Side) -> str:
        return side.server.stderr("nope").replace("qemu-system-x86_64", "qemu-system-memd")

    with standin_pair(directory, "-machine", "pc", "-preconfig", *line, bare=False) as pair:
        tell(pair, [("x-exit-preconfig", {}), ("query-pci", {}), ("query-block", {})])
        pair.same("character devices", labels)
        pair.same("warnings", warnings)


def test_unused_globals() -> None:
    names = f"{STAYING} {NO_DEVICES} virtconsole.chardev=none".split()
    given = [word for each in names for word in ("-global", each)]
    plugged = '{"execute": "device_add", "arguments": {"driver": "virtconsole"}}'
    text = '{"execute": "qmp_capabilities"}' + plugged
    same_messages("-machine", "q35", "-device", "virtio-serial-pci", *given, text=text)
