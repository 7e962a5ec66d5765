"""What the command lines of Proxmox, libvirt and Incus have, and what these ask then."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.differential.harness import Side, settle
from tests.differential.server import PATIENCE, Monitor, qemu_binary, qemu_compat, qemu_system_memd
from tests.differential.standin import standin_pair, tell

Step = tuple[str, dict[str, Any]]

READ_ONLY: dict[str, Any] = {"read-only": True}
QUEUES = [{"iothread": "t0", "vqs": [0, 2]}, {"iothread": "t1", "vqs": [1]}]
LINE = [
    *("-machine", "q35", "-m", "64M"),
    *("-smbios", "type=1,uuid=7b10d7af-b932-4c66-b2c3-3996152ec465"),
    *("-audiodev", "none,id=a0,in.mixing-engine=off,out.voices=3"),
    *("-audiodev", '{"id":"a1","driver":"alsa","timer-period":50,"in":{"dev":"x"}}'),
    *("-device", "ahci,id=ahci0,multifunction=on", "-device", "qemu-xhci,id=usb"),
    *("-device", "intel-hda", "-device", "hda-micro,id=h0,audiodev=a1"),
    *("-object", "memory-backend-ram,id=m0,size=64M"),
    *("-object", "iothread,id=t0", "-object", "iothread,id=t1"),
    *("-blockdev", "null-co,node-name=n0", "-blockdev", "null-co,node-name=n1"),
    *(
        "-device",
        json.dumps(
            {
                "driver": "virtio-blk-pci",
                "id": "d0",
                "drive": "n0",
                "num-queues": 3,
                "iothread-vq-mapping": QUEUES,
            }
        ),
    ),
    *("-object", "throttle-group,id=g0", "-netdev", "user,id=u0", "-netdev", "user,id=u1"),
    *("-blockdev", "throttle,node-name=th,throttle-group=g0,file=n1"),
    *("-device", "ide-hd,bus=ahci0.0,drive=th", "-numa", "node,cpus=0,memdev=m0"),
    *("-device", "virtio-net-pci,id=v0,netdev=u0,mac=52:54:00:11:22:33"),
    *("-device", "e1000,id=e0,netdev=u1"),
]


def get(path: str, name: str) -> Step:
    return "qom-get", {"path": path, "property": name}


def plug(driver: str, **more: Any) -> Step:
    return "device_add", {"driver": driver, **more}


def node(driver: str, name: str = "x", **more: Any) -> Step:
    return "blockdev-add", {"driver": driver, "node-name": name, **more}


def queues(*mapping: Any) -> Step:
    return plug("virtio-scsi-pci", **{"iothread-vq-mapping": [*mapping]})


STEPS: list[Step] = [
    *((name, {}) for name in ("query-uuid", "query-audiodevs", "x-query-numa", "query-blockstats")),
    *(get("ahci0", "multifunction"), get("d0", "iothread-vq-mapping"), get("h0", "audiodev")),
    *(queues({"iothread": "none"}), queues({"iothread": "t0"}, {"iothread": "t0"})),
    *(queues({}), queues({"iothread": "t0", "vqs": 1}), queues({"iothread": "t0", "x": 1})),
    plug("virtio-scsi-pci", **{"iothread-vq-mapping": "t0"}),
    plug("AC97", audiodev="none"),
    ("query-rx-filter", {}),
    *(("query-rx-filter", {"name": name}) for name in ("v0", "e0", "u0", "none")),
    # A disk of Incus's that is on USB.
    *(plug("usb-bot", id="bot", bus="usb.0"), node("null-co"), get("bot", "attached")),
    plug("scsi-hd", id="hd", drive="x", bus="bot.0", lun=0),
    ("qom-set", {"path": "bot", "property": "attached", "value": True}),
    *(get("bot", "attached"), plug("usb-tablet", id="tablet"), get("tablet", "attached")),
    ("qom-set", {"path": "tablet", "property": "attached", "value": False}),
    plug("usb-mouse", attached=True),
]

DEVICES: list[Step] = [
    step
    for driver in ("host_device", "host_cdrom")
    for step in (
        node(driver, filename="/dev/null"),
        node("raw", "r", file="x"),
        ("query-named-block-nodes", {}),
        *(("blockdev-del", {"node-name": name}) for name in ("r", "x")),
        *(node(driver, filename=path) for path in ("@DIR@", "@DIR@/image", "@DIR@/none")),
        node(driver, filename="@DIR@", **READ_ONLY),
    )
]
MORE: list[Step] = [
    node("host_device", filename="/dev/null"),
    *(("block_resize", {"node-name": "x", "size": size}) for size in (0, 512)),
    ("blockdev-del", {"node-name": "x"}),
    node("file", filename="@DIR@"),
    node("copy-on-read", file={"driver": "file", "filename": "@DIR@/image", "node-name": "f"}),
    *(("query-named-block-nodes", {}), ("query-blockstats", {"query-nodes": True})),
    *(node("copy-on-read", "y", file="f", **READ_ONLY),),
    node("copy-on-read", "z", file={"driver": "null-co"}, **READ_ONLY),
    *(node("host_device", "none", filename=""), node("file", "none", filename="")),
]


def datagrams(remote: str, *local: str, **families: bool) -> Step:
    ends = {
        name: {"type": "inet", "data": {"host": "127.0.0.1", "port": port, **families}}
        for name, port in zip(("remote", "local"), (remote, *local), strict=False)
    }
    return "chardev-add", {"id": "u", "backend": {"type": "udp", "data": ends}}


def test_consoles_on_the_network(directory: Path) -> None:
    """What telnet and datagrams are for; ports are the kernel's choice."""
    telnet, local = "127.0.0.1:0,server=on,wait=off", {"type": "unix", "data": {"path": "x"}}
    line = [
        *("-serial", f"telnet:{telnet}", "-serial", "udp:127.0.0.1:9@:0"),
        *("-serial", f"websocket:{telnet}", "-chardev", "udp,id=c,port=9,localaddr=127.0.0.1"),
        *("-chardev", "socket,id=d,host=127.0.0.1,port=0,telnet=on,server=on,wait=off"),
        *("-chardev", "socket,id=e,path=@DIR@/e,telnet=yes,server=on,wait=off"),
        *("-chardev", "pty,id=f,path=@DIR@/f", "-chardev", "pty,id=g,path=@DIR@/g"),
    ]

    def devices(side: Side) -> list[str]:
        rows = side.ask("query-chardev", None)["return"]
        told = (f"{each['label']} {each['filename']}" for each in rows)
        told = (re.sub(r":\d+,|pts/\d+", ":N,", each) for each in told if "unix:" not in each)
        return sorted(told)

    with standin_pair(directory, "-machine", "pc", *line) as pair:
        pair.same("the devices", devices)
        tell(pair, [datagrams("9"), ("chardev-remove", {"id": "u"}), datagrams("9", "0")])
        tell(pair, [("chardev-remove", {"id": "u"}), datagrams("none")])
        wrong = {"type": "udp", "data": {"remote": local}}
        link = {"type": "pty", "data": {"path": "@DIR@/g"}}
        tell(pair, [("chardev-add", {"id": "u", "backend": each}) for each in (wrong, link)])
        tell(pair, [datagrams("9", ipv4=False, ipv6=False), datagrams("9", ipv6=True)])
        tell(pair, [("chardev-remove", {"id": "u"}), ("chardev-remove", {"id": "f"})])
        pair.same("names", lambda side: sorted(os.listdir(side.scratch)))
    left = [os.listdir(side.scratch) for side in (pair.reference, pair.subject)]
    assert left == [[], []]


def is_told_to_quit(path: Path) -> bool:
    """Whether somebody listens there, who is told to quit."""
    try:
        monitor = Monitor(path)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    monitor.execute("quit")
    monitor.close()
    return True


def said_of_a_terminal(argv: list[str], path: Path) -> str:
    """What one says that has been started and ended."""
    line = [*argv, *("-machine", "none", "-display", "none", "-S")]
    line += ["-serial", "pty", "-chardev", "pty,id=a"]
    process = subprocess.Popen(
        [*line, "-qmp", f"unix:{path},server=on,wait=off"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        settle(lambda: is_told_to_quit(path), bool, PATIENCE)
        return re.sub(r"/\d+ ", "/N ", process.communicate(timeout=PATIENCE)[0])
    finally:
        process.kill()
        process.wait()


def test_which_terminal_it_is(directory: Path) -> None:
    """Who starts a QEMU reads it on its standard output; its own network is not warned about."""
    said = said_of_a_terminal(qemu_binary(), directory / "QEMU")
    assert said == said_of_a_terminal(qemu_system_memd(qemu_compat()), directory / "memd") != ""


def test_what_is_started_and_asked(directory: Path) -> None:
    with standin_pair(directory, *LINE) as pair:
        tell(pair, STEPS)


def test_block_devices_and_filters(directory: Path) -> None:
    def prepare(at: Path) -> None:
        (at / "image").write_bytes(bytes(1 << 20))

    with standin_pair(directory, "-machine", "none", prepare=prepare) as pair:
        tell(pair, [*DEVICES, *MORE])
