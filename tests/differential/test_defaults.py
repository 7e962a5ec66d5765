"""What a machine has that is not told otherwise, and what the machine makes for options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from memd.compat import Compat
from memd.json_types import JSON
from tests.differential.harness import Side
from tests.differential.server import qemu_compat
from tests.differential.standin import standin_pair
from tests.differential.test_drives import plain

OLD = (
    "pc-q35-2.11 -smp 4,maxcpus=8",
    "pc-i440fx-2.4 -smp 2,maxcpus=8,threads=2 -serial none -parallel null",
)
"""Machines that QEMU 11.1 has no more."""

LINES = (
    "",
    *(f"-machine {each}" for each in ("q35", "isapc", "microvm", "none", "x-remote")),
    *(f"-machine {each}" for each in OLD),
    "-machine q35 -usb -serial null -vga cirrus -net none -device usb-tablet,bus=usb-bus.0"
    " -device qemu-xhci,id=x -device nec-usb-xhci -device usb-mouse,bus=usb-bus.1 -device ahci"
    " -device ide-cd,bus=ide.6",
    "-machine pc,usb=on -device usb-kbd -nic none -device VGA -fda null-co:// -smp 2",
    "-machine pc,hpet=off,i8042=off,pit=off -hda null-co:// -hdc null-co:// -hdd null-co://",
    "-machine pc,vmport=off,pic=off,acpi=off -drive if=floppy,unit=1 -vga none",
    "-machine pc,x-south-bridge=piix4-isa,smbus=off -netdev user,id=n",
    "-machine q35,hpet=off,pic=off,smbus=off -cdrom null-co:// -drive if=floppy,unit=1 -vga virtio",
    "-machine q35,sata=off,vmport=off,pit=off -device virtio-scsi-pci -device scsi-cd -vga vmware",
    "-machine isapc,i8042=off -vga std -cpu qemu64 -serial null -serial null",
    "-machine microvm,acpi=off,rtc=off -drive if=none,driver=null-co -device virtio-serial-device",
    "-machine microvm,pcie=on,ioapic2=off,usb=on,isa-serial=off -serial null -serial null"
    " -device usb-kbd",
    "-machine pc -device isa-serial -device floppy -device virtio-scsi-pci"
    " -device scsi-hd,drive=d -drive if=none,id=d,driver=null-co",
    "-machine pc -nic user,model=virtio-net-pci,mac=52:54:00:12:34:57 -nic user,id=z,model=e1000e",
    "-machine q35 -net nic,model=virtio -net user -net nic,netdev=n0,macaddr=52:54:00:aa:bb:cc"
    " -netdev user,id=n0 -device virtio-net-pci,id=v",
    "-machine pc -nic user,model=ne2k_isa -nic user,model=foo -nic user,model=rtl8139"
    " -net nic,vectors=0,addr=9,model=virtio -net none",
    "-machine isapc -nic user,model=rtl8139 -nic user,model=ne2k_isa -nic user -vga virtio",
    "-machine q35,sata=off -netdev stream,id=n,server=on,addr.type=unix,addr.path=@DIR@/s"
    " -device virtio-net-pci,netdev=n -nic user,model=virtio -vga virtio",
    "-machine pc -serial null -serial none -serial mon:null -serial vc:80Cx24C -serial null"
    " -serial null -parallel null -parallel vc",
)


def own_devices(side: Side) -> JSON:
    """The devices that are nobody's, with the bus that each is on."""
    rows = side.monitor.execute("qom-list", {"path": "/machine/unattached"})["return"]
    found = {}
    for row in rows:
        if row["name"].startswith("device["):
            one = {"path": f"/machine/unattached/{row['name']}", "property": "parent_bus"}
            found[row["name"]] = row["type"], side.monitor.execute("qom-get", one)
    return dict(sorted(found.items()))


def virtio_devices(side: Side) -> JSON:
    """The answers of both commands for them, each sorted."""
    words = {"command-line": "info virtio"}
    rows = side.monitor.execute("x-query-virtio")
    if "return" in rows:
        rows["return"].sort(key=lambda row: row["path"])
    lines = side.monitor.execute("human-monitor-command", words)["return"]
    return [rows, sorted(lines.splitlines())]


def told(side: Side, command: str, line: str | None = None) -> JSON:
    """An answer without the digits of names that are made up."""
    answer = side.monitor.execute(command, {} if line is None else {"command-line": line})
    text = answer.get("return")
    if isinstance(text, str):
        return plain(re.sub(r"#net\d\d\d", "#net", text))
    if command == "query-chardev":
        answer["return"] = [row for row in answer["return"] if row["label"] != "compat_monitor0"]
    return side.normal(plain(answer))


@pytest.mark.parametrize("line", LINES)
def test_what_a_machine_has(directory: Path, line: str) -> None:
    if line.removeprefix("-machine ") in OLD and qemu_compat() is not Compat.V10_0:
        pytest.skip("this QEMU has no such machine")
    with standin_pair(directory, *shlex.split(line), bare=False) as pair:
        for command in (
            *("query-block", "query-blockstats", "query-chardev", "query-pci"),
            "query-hotpluggable-cpus",
        ):
            pair.same(command, lambda side, command=command: told(side, command))  # type: ignore[misc]
        for words in ("info block", "info network", "info pci"):
            pair.same(
                words,
                lambda side, words=words: told(side, "human-monitor-command", words),  # type: ignore[misc]
            )
        pair.same("devices", own_devices)
        pair.same("virtio devices", virtio_devices)
        for bus in ("ide.1", "isa.0", "i2c", "floppy-bus.0", "virtio-mmio-bus.9", "usb-bus.0"):
            pair.ask("device_add", {"driver": "edu", "bus": bus})


def test_a_null_of_the_command_line(directory: Path) -> None:
    """It is changed, removed and shared as any other."""
    options = "-machine q35 -chardev null,id=a -chardev mux,id=m,chardev=a -chardev null,id=b"
    options += " -chardev null,id=c -serial chardev:c"
    ring = {"type": "ringbuf", "data": {}}
    with standin_pair(directory, *options.split()) as pair:
        for step in (
            *(("chardev-change", {"id": id, "backend": ring}) for id in ("a", "b", "c")),
            *(("chardev-remove", {"id": id}) for id in ("a", "m", "b", "c", "b")),
        ):
            pair.ask(*step)
            pair.same("query-chardev", lambda side: told(side, "query-chardev"))


def test_what_several_share(directory: Path) -> None:
    """With mux=on there is a mux, and what is below it has another name."""
    backends = ("null,id=a", "ringbuf,id=b", "file,id=c,path=@DIR@/c", "null,id=d", "null,id=e")
    sockets = [f"socket,id={id},path=@DIR@/{id},server=on,wait=off" for id in "fg"]
    options = "-machine q35 -serial chardev:b -serial chardev:b -device isa-serial,chardev=b"
    options += " -device virtio-serial-pci -device virtconsole,chardev=b,id=v -mon chardev=f"
    options += " -serial chardev:f -mon chardev=e,mode=readline"
    options += " -parallel unix:@DIR@/p,server=on,wait=off,mux=on"
    for each in (*backends, *sockets):
        options += f" -chardev {each},mux=on"
    virtconsole = {"driver": "virtconsole", "id": "w"}
    with standin_pair(directory, *options.split()) as pair:
        pair.same("query-chardev", lambda side: told(side, "query-chardev"))
        for step in (
            *(("chardev-remove", {"id": id}) for id in ("a-base", "a", "a-base", "b", "f", "e")),
            *(("device_add", {**virtconsole, "chardev": id}) for id in ("b", "d-base", "d")),
            ("chardev-change", {"id": "c", "backend": {"type": "null", "data": {}}}),
            ("chardev-change", {"id": "c-base", "backend": {"type": "null", "data": {}}}),
        ):
            pair.ask(*step)
            pair.same("query-chardev", lambda side: told(side, "query-chardev"))
