"""Machines as launchers put them together: every query without arguments is answered alike."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Pair, Side
from tests.differential.standin import same_messages, standin_pair

LIBVIRT = """
-machine q35,usb=off,smm=on,vmport=off,hpet=off -m 64M -smp 2 -global ICH9-LPC.disable_s3=1
-device {"driver":"virtio-vga","id":"video0","addr":"0x1"}
-device {"driver":"pcie-root-port","chassis":1,"id":"pci.1","multifunction":true,"addr":"0x2"}
-device {"driver":"pcie-root-port","chassis":2,"id":"pci.2","addr":"0x2.0x1"}
-device {"driver":"qemu-xhci","p2":15,"p3":15,"id":"usb","bus":"pci.2","addr":"0x0"}
-device {"driver":"virtio-serial-pci","id":"virtio-serial0","addr":"0x5"}
-blockdev {"driver":"file","filename":"@DIR@/image","node-name":"storage"}
-device {"driver":"virtio-blk-pci","drive":"storage","id":"virtio-disk0","bootindex":1}
-netdev {"type":"user","id":"hostnet0"}
-device {"driver":"virtio-net-pci","netdev":"hostnet0","id":"net0","mac":"52:54:00:12:34:56"}
-device {"driver":"usb-tablet","id":"input0","bus":"usb.0","port":"1"}
-device {"driver":"virtio-keyboard-pci"} -device {"driver":"virtio-mouse-pci","id":"mouse"}
-audiodev {"id":"audio1","driver":"none","timer-period":8,"out":{"channels":5}}
-audiodev alsa,id=audio2,in.fixed-settings=off
-device {"driver":"ich9-intel-hda","id":"sound0"}
-device {"driver":"hda-duplex","id":"sound0-codec0","bus":"sound0.0","audiodev":"audio1"}
-vnc unix:@DIR@/vnc
-device {"driver":"virtio-balloon-pci","id":"balloon0"}
-device {"driver":"intel-iommu","id":"iommu0","caching-mode":true}
-object {"qom-type":"rng-random","id":"objrng0","filename":"/dev/urandom"}
-device {"driver":"virtio-rng-pci","rng":"objrng0","id":"rng0"}
"""

KATA = """
-machine q35,nvdimm=on -m 64M,slots=10,maxmem=4G -smp 1,sockets=4,maxcpus=4
-device pci-bridge,bus=pcie.0,id=pci-bridge-0,chassis_nr=1,shpc=off,addr=2,io-reserve=4k
-device virtio-serial-pci,disable-modern=true,id=serial0
-object memory-backend-file,id=mem0,mem-path=@DIR@/image,size=4M,readonly=on
-device nvdimm,id=nv0,memdev=mem0,unarmed=on -device virtio-scsi-pci,id=scsi0,disable-modern=true
-netdev user,id=n0 -device virtio-net-pci,netdev=n0,mac=02:00:ca:fe:00:04,disable-modern=true,mq=on
-object memory-backend-ram,id=dimm1,size=64M -numa node,memdev=dimm1
"""

PROXMOX = """
-machine pc -smp 2 -m 64 -smbios type=1,uuid=6F2D0A5E-3c1b-4b57-9c3c-0a4b1c2d3e4f
-global PIIX4_PM.disable_s3=1 -device pci-bridge,id=pci.1,chassis_nr=1,bus=pci.0,addr=0x1e
-device piix3-usb-uhci,id=uhci,bus=pci.0,addr=0x1.0x2 -device usb-tablet,id=tablet,bus=uhci.0,port=1
-device VGA,id=vga,bus=pci.0,addr=0x2 -vnc unix:@DIR@/vnc,password=on
-drive if=none,id=drive-ide2,media=cdrom -device ide-cd,bus=ide.1,unit=0,drive=drive-ide2,id=ide2
-device virtio-scsi-pci,id=virtioscsi0,bus=pci.1,addr=0x1
-device virtio-balloon-pci,id=balloon0,bus=pci.0,addr=0x3
-netdev user,id=net0 -device virtio-net-pci,mac=BC:24:11:00:00:01,netdev=net0,addr=0x12,id=net0
-netdev user,id=net1 -device e1000,mac=BC:24:11:00:00:02,netdev=net1,id=net1
"""

ELSEWHERE = {
    *("query-commands", "query-qmp-schema", "query-machines", "query-command-line-options"),
    *("query-cpu-definitions", "query-version", "query-cpus-fast", "query-chardev"),
    *("x-query-jit", "x-query-opcount", "x-query-ramblock", "x-query-usb"),
    # Their parts are told in the order of a hash table.
    *("x-query-interrupt-controllers", "x-query-irq"),
}
"""What is compared in other tests, or tells of a process."""

MORE: list[tuple[str, Any]] = [
    *(
        ("human-monitor-command", {"command-line": f"info {word}"})
        for word in ("mice", "uuid", "numa", "vnc", "sev", "lapic", "mem", "capture", "spice")
    ),
    *(
        ("qom-get", {"path": "/machine/peripheral/iommu0", "property": name})
        for name in ("intremap", "eim", "aw-bits")
    ),
    *(("query-rx-filter", {"name": name}) for name in ("net0", "net1", "hostnet0", "nobody")),
]


def image(directory: Path) -> None:
    (directory / "image").write_bytes(bytes(4 << 20))


def compare(pair: Pair, command: str, arguments: Any = None) -> None:
    def ask(side: Side) -> Any:
        answer = side.ask(command, arguments)
        if command == "query-iothreads":
            return [{**each, "thread-id": 0} for each in answer["return"]]
        return answer

    pair.same(f"{command} {arguments}", ask)


@pytest.mark.parametrize("line", [LIBVIRT, KATA, PROXMOX], ids=["libvirt", "kata", "proxmox"])
def test_queries(directory: Path, line: str) -> None:
    with standin_pair(directory, *line.split(), prepare=image) as pair:
        commands = pair.reference.ask("query-commands")["return"]
        for name in sorted(each["name"] for each in commands):
            if name.startswith(("query-", "x-query-")) and name not in ELSEWHERE:
                compare(pair, name)
        for step in MORE:
            compare(pair, *step)


def test_pointers_come_and_go(directory: Path) -> None:
    steps: list[tuple[str, Any]] = [
        ("device_add", {"driver": "usb-kbd", "id": "keys"}),
        ("device_add", {"driver": "usb-mouse", "id": "mouse"}),
        ("query-mice", None),
        ("device_del", {"id": "mouse"}),
        ("device_add", {"driver": "usb-wacom-tablet", "id": "pen"}),
        ("device_add", {"driver": "usb-tablet", "id": "tablet"}),
        ("query-mice", None),
    ]
    with standin_pair(directory, "-machine", "q35,i8042=off", "-device", "qemu-xhci") as pair:
        for step in steps:
            compare(pair, *step)


def key(name: str, *, down: bool = True) -> dict[str, Any]:
    return {"type": "key", "data": {"down": down, "key": {"type": "qcode", "data": name}}}


BUTTON = {"type": "btn", "data": {"down": True, "button": "left"}}
MOVE = {"type": "rel", "data": {"axis": "x", "value": 5}}
PLACE = {"type": "abs", "data": {"axis": "y", "value": 500}}
TOUCH = {
    "type": "mtt",
    "data": {"type": "begin", "slot": 1, "tracking-id": 1, "axis": "x", "value": 5},
}


@pytest.mark.parametrize(
    "line",
    [
        "-machine none",
        "-machine pc",
        "-machine q35 -device VGA,id=d0 -device usb-ehci -device usb-tablet,id=d1",
        "-machine q35,i8042=off -device virtio-mouse-pci,id=d1",
        "-machine q35,i8042=off -device VGA,id=d0 -device virtio-keyboard-pci,id=d1,display=d0"
        " -device virtio-gpu-pci,id=d2,max_outputs=2 -device virtio-multitouch-pci",
    ],
)
def test_who_takes_keys_and_clicks(directory: Path, line: str) -> None:
    each: list[list[dict[str, Any]]] = [[key("a")], [BUTTON], [MOVE], [PLACE], [TOUCH]]
    several = [[], [key("a"), key("a", down=False)], [key("nope")], [key("a"), PLACE]]
    steps: list[tuple[str, Any]] = [
        ("input-send-event", {"events": [key("a")]}),
        ("input-send-event", {"device": "nope", "events": [key("a")]}),
        ("cont", None),
        *(("input-send-event", {"events": events}) for events in (*each, *several)),
        *(("input-send-event", {"head": head, "events": []}) for head in (-1, 5, "x")),
        ("input-send-event", {}),
    ]
    for device in ("d0", "d1", "d2", "", "/machine/peripheral/d0"):
        wanted = {"device": device}
        steps += (("input-send-event", {**wanted, "events": events}) for events in (*each, []))
        steps += (
            ("input-send-event", {**wanted, "head": head, "events": [BUTTON]})
            for head in (-1, 0, 1, 2, 1 << 32, -(1 << 31) - 1)
        )
    with standin_pair(directory, *line.split()) as pair:
        for step in steps:
            compare(pair, *step)


LACKING = (
    *("acpi-erst", "isa-debugcon", "isa-parallel", "isa-ipmi-bt", "ipmi-bmc-extern", "ide-cf"),
    *("pxb", "vmmouse", "loader", "guest-loader", "hv-syndbg", "floppy,unit=9", "tpm-tis"),
    *("smbus-ipmi,bmc=x", "virtio-blk-pci-non-transitional", "vfio-pci-igd-lpc-bridge"),
)
"""Devices that come at the start, or not at all, and lack something."""


@pytest.mark.parametrize(
    "line",
    [
        "-device AC97",
        "-audiodev none,id=a -device AC97",
        "-audiodev none,id=a -device AC97,audiodev=b",
        "-audiodev none",
        "-audio foo",
        "-audiodev none,id=a,foo=1",
        "-audiodev none,id=a,in.frequency=x",
        "-audiodev foo,id=a",
        "-audio none,foo=1",
        "-audio none,model=foo",
        "-append x",
        "-initrd x -append y",
        "-netdev user,id=a -device e1000 -device virtio-net-pci,id=b -global x.y=1",
        "-net user -net user -netdev hubport,id=h,hubid=1",
        "-net nic",
        "-nic user -net nic -net user -netdev user,id=u -netdev hubport,id=p,hubid=2,netdev=u",
        "-machine none -net nic,id=x -net user",
        *("-accel tcg,thread=x", "-accel tcg,tb-size=4294967296", "-accel tcg,split-wx=x"),
        *("-accel tcg,foo=1", "-accel tcg,thread", "-accel tcg,thread=multi,tb-size=64"),
        "-accel foo,x=1 -accel kvm,y=1 -accel tcg",
        "-accel tcg -accel foo -accel kvm,x=1 -audiodev none,id=a,out.channels=-1",
        *("-serial telnet:x", "-serial telnet:127.0.0.1:1", "-serial websocket:127.0.0.1:1"),
        *("-chardev socket,id=a,telnet=on", "-chardev socket,id=a,host=x,port=1,websocket=on"),
        *("-chardev socket,id=a,host=x,telnet=on", "-serial chardev:x", "-parallel file:/none/x"),
        *("-device intel-iommu,eim=on,intremap=off", "-device intel-iommu,aw-bits=57"),
        *("-debugcon tcp:127.0.0.1:1", "-gdb tcp:127.0.0.1:x"),
        *("-serial tcp:127.0.0.1:1,wait=on", "-serial telnet:127.0.0.1:1,delay=on,nodelay=on"),
        "-debugcon unix:/none/x,server=on,wait=off,reconnect=1",
        "-serial tcp:127.0.0.1:0,server=on,wait=off,tls-creds=x",
        *("-serial file:/dev/stdout", "-object iothread,id=t,poll-max-ns=-1"),
        "-object throttle-group,id=t,x-bps-total=1,x-bps-read=1",
        *(f"-device {lacks}" for lacks in LACKING),
        "-blockdev null-co,node-name=n -device virtio-blk-pci-non-transitional,drive=n",
        *("-device xen-backend,drive=x", "-device usb-kbd,nope=1", "-device e1000,bus=z,nope=1"),
        "-device usb-kbd,port=1,nope=x",
    ],
)
def test_what_is_said(line: str) -> None:
    same_messages("-machine", "q35", *line.split())


def test_sound_cards(directory: Path) -> None:
    line = "-machine q35 -audio none,model=hda,timer-period=5"
    with standin_pair(directory, *line.split()) as pair:
        compare(pair, "query-audiodevs")
        compare(pair, "query-pci")


CONSOLES = """
-machine pc -serial telnet:127.0.0.1:0,server,nowait
-serial websocket:127.0.0.1:0,server=on,wait=off
-chardev socket,id=a,host=127.0.0.1,port=0,server=on,wait=off,websocket=on,telnet=on
-chardev socket,id=b,path=@DIR@/s,server=on,wait=off,websocket=on -chardev pty,id=c
-debugcon mon:pty
"""


def test_consoles(directory: Path) -> None:
    def filenames(side: Side) -> Any:
        rows = side.ask("query-chardev")["return"]
        del rows[[row["label"] for row in rows].index("compat_monitor0")]
        return {row["label"]: re.sub(r"(:|pts/)\d+", r"\1", row["filename"]) for row in rows}

    def told(side: Side) -> str:
        return re.sub(r"pts/\d+", "", side.server.stderr())

    with standin_pair(directory, *CONSOLES.split()) as pair:
        address = {"type": "inet", "data": {"host": "127.0.0.1", "port": "0"}}
        for more in ({"telnet": True}, {"websocket": True}, {"websocket": True, "server": False}):
            data = {"addr": address, "wait": False, **more}
            if "server" in more:
                del data["wait"]
            backend = {"type": "socket", "data": data}
            compare(pair, "chardev-add", {"id": f"x{len(data)}", "backend": backend})
        pair.same("query-chardev", filenames)
        pair.same("standard output", told)


def test_formats_that_were_looked_for(directory: Path) -> None:
    image(directory)
    file = directory / "image"
    for line in (f"-hda {file}", f"-cdrom {file}", f"-drive file={file},format=raw,if=none"):
        same_messages("-machine", "pc", *line.split())
