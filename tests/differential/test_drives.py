"""Drives: `-drive` and its short forms, media of removable devices, exports of nodes."""

from __future__ import annotations

import re
import shlex
import socket
from pathlib import Path
from typing import Any

import pytest

from memd.json_types import JSON
from memd.standin.block.qcow2 import empty_image
from tests import NOT_THERE, prefork
from tests.differential.harness import Pair, Side
from tests.differential.server import PATIENCE, qemu_binary, qemu_compat, qemu_system_memd
from tests.differential.standin import standin_pair

SIZES = {**{f"raw{number}": number << 20 for number in range(1, 8)}, "odd": 5000}
"""The images in the test's directory, and their bytes."""

Step = tuple[str, dict[str, Any]]


def word(line: str) -> Step:
    return "human-monitor-command", {"command-line": line}


def plain(value: JSON) -> JSON:
    """An answer without the names that QEMU makes up of nodes and of temporary files."""
    if isinstance(value, str):
        return re.sub(r"#block\d+|[^\"]*/vl\.\w+", "#made", value)
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value


def told(side: Side, command: str, arguments: JSON) -> JSON:
    answer = plain(side.monitor.execute(command, side.fill(arguments)))
    assert isinstance(answer, dict)
    # The names that are made up may not decide the order.
    return side.normal(answer)


def same(pair: Pair, steps: list[Step]) -> None:
    for step in steps:
        pair.same(f"{step}", lambda side, step=step: told(side, *step))  # type: ignore[misc]
        if step[0] == "device_del":
            # It goes soon after the answer.
            pair.each(lambda side: side.monitor.read_event("DEVICE_DELETED"))
        pair.same(f"events of {step}", lambda side: plain(side.take_events()))


def images(directory: Path) -> None:
    for name, size in SIZES.items():
        (directory / name).write_bytes(bytes(size))


TAKEN = (
    "-machine q35 -drive if=none -drive if=none,id=a,file=@DIR@/raw1,cache=none,aio=native"
    " -drive if=none,id=b,file=@DIR@/raw2,format=raw,cache=unsafe,file.locking=off"
    " -drive if=none,id=c,file=@DIR@/raw3,cache=writethrough,detect-zeroes=unmap"
    " -drive if=none,file.driver=file,file.filename=@DIR@/raw4,driver=raw,id=z,node-name=nn"
    " -drive if=none,driver=null-co,cache.direct=on,id=q -device virtio-scsi-pci"
    " -device scsi-hd,drive=t,id=h -blockdev null-co,node-name=t"
    " -drive if=none,media=cdrom,readonly=off,driver=null-co,id=m -device scsi-cd,id=e"
    " -drive if=none,media=disk,read-only=on,driver=null-co,id=n -device scsi-cd,id=f,drive=m"
    " -drive if=none,id=d,driver=null-co,bps=1000,iops_rd=5,throttling.group=g",
    "-machine q35 -hda @DIR@/raw1 -hdb @DIR@/raw2 -hdc @DIR@/raw3 -hdd @DIR@/raw4 -smp 3",
    "-machine pc -hda @DIR@/raw1 -hdb @DIR@/raw2 -cdrom @DIR@/raw3 -drive file=@DIR@/raw4",
    "-machine q35 -drive if=virtio,driver=null-co -drive if=virtio,driver=null-co,index=3"
    " -drive if=none,id=d,driver=null-co,readonly=on -device virtio-blk-pci,drive=d,id=x"
    " -drive if=none,id=t,driver=null-co,throttling.bps-total=1000,throttling.bps-total-max=2000"
    " -drive if=none,id=v,file=null-co://,format=raw -drive if=none,id=r,file=null-aio://"
    " -blockdev null-co,node-name=n -device virtio-scsi-pci,id=s"
    " -blockdev null-co,node-name=o,read-zeroes=on"
    " -device scsi-hd,drive=n,id=u,removable=on -device scsi-hd,drive=o,id=w,write-cache=off",
    "-machine none -drive file=@DIR@/raw1,format=raw -cdrom @DIR@/raw2",
    "-machine pc -fdb @DIR@/raw1 -fda @DIR@/raw2 -hdb @DIR@/raw3 -hda @DIR@/raw4 -smp 2"
    " -serial null -serial null -parallel null",
    "-machine q35 -hda @DIR@/raw1 -drive if=floppy,format=raw,readonly=on,file=@DIR@/raw2"
    " -serial null -device floppy,id=f",
    "-machine isapc -drive if=floppy,unit=1 -cdrom @DIR@/raw1 -drive if=floppy,driver=null-co",
    "-machine isapc -cpu qemu64 -fda @DIR@/raw1 -hda @DIR@/raw2",
    "-machine q35 -cpu 486 -fda @DIR@/raw1 -hda @DIR@/raw2",
    "-machine pc -blockdev null-co,node-name=n,read-only=on -device floppy,drive=n,write-cache=off"
    " -drive if=none,id=x,driver=null-co -device floppy,drive=x,id=fl",
    "-machine q35 -device isa-fdc,id=z -device floppy,id=y -device floppy",
    "-machine q35 -drive if=pflash,format=raw,unit=0,readonly=on,file=@DIR@/raw1"
    " -drive if=pflash,format=raw,unit=1,file=@DIR@/raw2 -hda @DIR@/raw3",
    "-machine pc -pflash @DIR@/raw1 -pflash @DIR@/raw2",
    "-machine q35,pflash0=c,max-fw-size=1M -blockdev file,filename=@DIR@/raw1,node-name=c"
    " -device virtio-blk-pci,drive=d,id=x -blockdev null-co,node-name=d",
    "-machine q35,pflash0=c -blockdev file,filename=@DIR@/raw1,node-name=c"
    " -drive if=pflash,unit=1,id=v,format=raw,file=@DIR@/raw2",
    "-machine pc -snapshot -hda @DIR@/raw1 -cdrom @DIR@/raw2 -fda @DIR@/raw3 -drive if=none"
    " -drive if=none,id=n,file=@DIR@/raw4,format=raw,cache=none,detect-zeroes=on,node-name=nn"
    " -drive if=none,id=o,file=@DIR@/raw5,snapshot=off -drive if=virtio,driver=null-co"
    " -blockdev file,filename=@DIR@/raw6,node-name=b -device virtio-blk-pci,drive=n,id=v",
    "-machine q35 -drive if=pflash,unit=0,format=raw,snapshot=on,readonly=on,file=@DIR@/raw1"
    " -drive if=none,id=z,snapshot=on,driver=raw,file.driver=null-co"
    " -device virtio-blk-pci,drive=z",
    "-machine q35,pflash0=x,pflash1= -drive if=none,id=x,format=raw,file=@DIR@/raw2",
)


@pytest.mark.parametrize("line", TAKEN)
def test_drives_of_a_command_line(directory: Path, line: str) -> None:
    with standin_pair(directory, *shlex.split(line), prepare=images) as pair:
        same(pair, [word("info block"), word("info block -v"), word("info block -n")])
        same(pair, [("query-block", {}), ("query-blockstats", {})])


REFUSED = (
    *("file=@DIR@/nope,if=none", "foo=1", "if=none,id=1x", "if=none,id=a -drive if=none,id=a"),
    *("if=foo,id=a", "if=none,file=@DIR@/raw1,format=foo", "if=none,file=@DIR@/raw1,cache=foo"),
    *("if=none,file=@DIR@/raw1,media=foo", "if=none,file=@DIR@/raw1,readonly=foo"),
    *("if=none,file=@DIR@/raw1,aio=foo", "if=none,file=@DIR@/raw1,werror=foo"),
    *("if=none,file=@DIR@/raw1,rerror=enospc", "if=none,file=@DIR@/raw1,format=raw,serial=x"),
    *("if=none,file=null-co:", "if=none,file=null-co://x,format=raw"),
    *("if=none,file=null-co://,format=qcow2", "if=none,file=null-co://,file.driver=file"),
    *("if=none,driver=null-co,foo=1", "file=@DIR@/raw1,format=raw,index=1,unit=3"),
    "file=@DIR@/raw1,format=raw,index=0 -drive file=@DIR@/raw2,format=raw,index=0",
    *("if=scsi,file=@DIR@/raw1,format=raw", "if=ide,bus=7,file=@DIR@/raw1,format=raw"),
    "if=none,id=z,driver=null-co -blockdev null-co,node-name=z",
    "if=none,id=d,driver=null-co -device virtio-blk-pci,drive=d -device virtio-blk-pci,drive=d",
    "if=virtio,id=d,driver=null-co -device virtio-blk-pci,drive=d",
    "if=none,id=d -device virtio-blk-pci,drive=d",
    *("if=none,id=d,driver=null-co,bps=1000,bps_rd=5", "if=none,driver=null-co,node-name=1x"),
    "if=none,id=d,file=@DIR@/raw1,format=raw,driver=raw",
    *("if=none,id=d,file=@DIR@/raw1,detect-zeroes=foo", "if=none,id=d,driver=null-co,discard=foo"),
    *("if=none,driver=null-co,node-name=z,id=z", "if=none,file=@DIR@"),
    "if=none,file=@DIR@/raw1,format=qcow2",
    "if=none,id=d,driver=null-co,readonly=on -device ide-hd,drive=d,id=x",
    *("if=none -device virtio-scsi-pci -device scsi-hd", "if=none -device ide-hd"),
    "if=none -device ide-cd,id=a,drive=a",
    *("if=pflash", "if=pflash,format=raw,file=@DIR@/odd", "if=pflash,unit=1,driver=null-co"),
    *("if=pflash,unit=2,driver=null-co", "if=pflash,bus=1,driver=null-co"),
    *("if=pflash,format=raw,file=@DIR@/raw5 -pflash @DIR@/raw7", "if=none -machine pflash0=nope"),
    "if=pflash,unit=0,driver=null-co -drive if=pflash,unit=0,driver=null-co",
    "if=pflash,id=x,driver=null-co,size=4096 -device virtio-blk-pci,drive=x",
    "if=pflash,driver=null-co,size=4096 -machine pflash0=c -blockdev null-co,node-name=c",
    "if=none,driver=null-co,id=c,size=4096 -machine pflash0=c -device virtio-blk-pci,drive=c",
    *("if=none,driver=null-co,id=c -machine pflash1=c", "if=pflash,driver=null-co -machine none"),
    "if=none,driver=null-co,id=c,size=8192 -machine pflash0=c,max-fw-size=4096",
    *("if=none -fda @DIR@/nope", "if=floppy -device floppy,unit=0", "if=floppy,unit=2"),
    *(f"if=floppy -machine {machine}" for machine in ("none", "microvm", "x-remote")),
    *("if=none -device floppy", "if=floppy,bus=1", "if=floppy,index=1 -fdb @DIR@/raw1"),
    "if=floppy,driver=null-co -device floppy,drive=floppy0",
    *(
        f"if=none -machine pc {' '.join(f'-device floppy{each}' for each in given)}"
        for given in (("", "", ""), (",unit=1", ",unit=1"), (",unit=5",))
    ),
)


def test_drives_that_are_refused(directory: Path) -> None:
    images(directory)
    for line in REFUSED:
        said = []
        for binary in (qemu_binary(), qemu_system_memd(qemu_compat())):
            text = f"-machine q35 -nodefaults -display none -S -drive {line}"
            options = shlex.split(text.replace("@DIR@", str(directory)))
            done = prefork.run([*binary, *options])
            told = done.stderr.replace("qemu-system-x86_64", "B").replace("qemu-system-memd", "B")
            rows = [row for row in told.splitlines() if not row.startswith(("WARN", "    "))]
            said.append((done.returncode, rows))
        assert said[0][0] == 1
        assert said[1] == said[0], line


def test_flash_chips_are_in_the_tree(directory: Path) -> None:
    line = (
        "-machine q35 -drive if=pflash,format=raw,readonly=on,file=@DIR@/raw1"
        " -drive if=pflash,format=raw,id=v,file=@DIR@/raw2"
    )
    chip, region = "/machine/system.flash1", "/machine/system.flash1/system.flash1[0]"
    names = ["num-blocks", "sector-length", "width", "device-width", "name", "drive", "realized"]
    paths = [*((chip, name) for name in (*names, "hotpluggable", "parent_bus", "type"))]
    paths += [*(("/machine", name) for name in ("pflash0", "pflash1"))]
    paths += [*((region, name) for name in ("addr", "size", "container"))]
    steps: list[Step] = [("qom-get", {"path": path, "property": name}) for path, name in paths]
    remove = "blockdev-remove-medium"
    steps += [
        *((remove, {"id": chip}), (remove, {"device": "v"})),
        ("qom-set", {"path": chip, "property": "width", "value": 3}),
        ("block_resize", {"device": "pflash0", "size": 4096}),
        word("drive_add 0 if=pflash,driver=null-co"),
    ]
    with standin_pair(directory, *shlex.split(line), prepare=images) as pair:
        same(pair, steps)


DRIVES = (
    "-machine q35 -drive if=pflash,format=raw,file=@DIR@/raw1"
    " -drive if=pflash,format=raw,readonly=on,id=v,file=@DIR@/raw2"
    " -blockdev null-co,node-name=x -device pcie-root-port,id=p"
    " -device virtio-blk-pci,drive=x,id=vd,bus=p"
    " -drive if=none,id=w,driver=null-co,node-name=nw -device virtio-blk-pci,drive=w,id=ve"
    " -device virtio-scsi-pci -blockdev null-co,node-name=m,read-only=on"
    " -device scsi-cd,drive=m,id=cd -device scsi-hd,drive=s,id=sh -blockdev null-co,node-name=s"
    " -device ide-hd,drive=i,id=ih -blockdev null-co,node-name=i"
    " -blockdev null-co,node-name=t -device scsi-hd,drive=t,id=st,share-rw=on"
    " -blockdev null-co,node-name=u,read-only=on -device scsi-hd,drive=u,id=su"
    " -blockdev null-co,node-name=c -blockdev null-co,node-name=d,size=1024"
    " -blockdev null-co,node-name=e,read-only=on -blockdev null-co,node-name=f"
    " -blockdev raw,node-name=r,file.driver=file,file.filename=@DIR@/raw3"
)


def drive(device: str, value: JSON) -> list[Step]:
    """Have another node in a device, or in a flash chip by the machine's property."""
    path, name = f"/machine/peripheral/{device}", "drive"
    if device.startswith("pflash"):
        path, name = "/machine", device
    of: dict[str, Any] = {"path": path, "property": name}
    return [("qom-set", {**of, "value": value}), ("qom-get", of)]


SET = (
    *(("pflash0", "c"), ("pflash0", "d"), ("pflash0", "e"), ("pflash1", "e"), ("pflash1", "c")),
    ("pflash1", "e"),
    *(("pflash0", "x"), ("pflash0", "nw"), ("pflash0", "nope"), ("pflash0", "")),
    *(
        ("pflash0", "w"),
        ("pflash1", 5),
        ("pflash1", None),
        ("pflash0", "r"),
        ("pflash0", "pflash0"),
    ),
    *(("vd", "e"), ("vd", "f"), ("vd", "c"), ("ve", "f"), ("ve", "x"), ("vd", "s"), ("vd", "t")),
    *(("vd", "m"), ("sh", "f"), ("sh", "nw"), ("ih", "s"), ("cd", "f"), ("cd", "nw"), ("cd", "d")),
    *(("st", "f"), ("st", "s"), ("st", "nw"), ("su", "x"), ("su", "f"), ("su", ""), ("ih", "nope")),
)


def test_devices_get_other_nodes(directory: Path) -> None:
    with standin_pair(directory, *shlex.split(DRIVES), prepare=images) as pair:
        present = [word("info block"), ("query-block", {})]
        for device, value in SET:
            same(pair, [*drive(device, value), *present])
        delete = [("blockdev-del", {"node-name": name}) for name in "xcdefrstuim"]
        same(pair, [*delete, *present, ("query-named-block-nodes", {})])
        for name, at in (("pflash0", "pflash0"), ("v", "pflash1"), ("w", "ve")):
            same(pair, [word(f"drive_del {name}"), *drive(at, "nope")[::-1], *present])
        chips = [{"id": f"/machine/system.flash{number}"} for number in range(2)]
        for verb in ("eject", "blockdev-remove-medium", "blockdev-open-tray"):
            same(pair, [(verb, chip) for chip in chips])
        same(pair, [("query-named-block-nodes", {}), ("device_del", {"id": "sh"}), *present])
        same(pair, [delete[4], ("query-named-block-nodes", {})])


def test_what_a_device_can_not_get(directory: Path) -> None:
    """QEMU ends where a device has no medium, or the one that it is given."""
    with standin_pair(directory, *shlex.split(DRIVES), prepare=images) as pair:
        for device, value in (("pflash0", "c"), ("vd", "f")):
            same(pair, drive(device, value))
            said = pair.subject.ask(*drive(device, value)[0])
            assert said["error"]["desc"] == f"Node '{value}' is already in use"
        same(pair, [word("drive_del pflash0"), word("drive_del w")])
        for device in ("pflash0", "ve"):
            said = pair.subject.ask(*drive(device, "d")[0])
            assert said["error"]["desc"] == "Device needs media, but drive is empty"
        same(pair, [word("info block"), ("query-named-block-nodes", {})])
        # QEMU's guest would have to let it go.
        for command, arguments in (("cont", {}), ("device_del", {"id": "vd"})):
            assert pair.subject.ask(command, arguments) == {"return": {}}
        pair.subject.monitor.read_event("DEVICE_DELETED")
        assert pair.subject.ask("blockdev-del", {"node-name": "f"}) == {"return": {}}


MEDIA = (
    "-machine q35 -drive if=none,id=d0,file=@DIR@/raw1,format=raw"
    " -device virtio-blk-pci,drive=d0,id=vd0 -drive if=none,id=e0 -device ide-cd,drive=e0,id=ie0"
    " -blockdev driver=raw,node-name=r2,read-only=on,file.driver=file,file.filename=@DIR@/raw2"
    " -device virtio-scsi-pci,id=s0 -device scsi-cd,id=cd0,drive=r2 -device scsi-cd,id=cd1"
)
"""What has media."""


def test_floppies_are_changed(directory: Path) -> None:
    line = "-machine pc -fda @DIR@/raw1 -device floppy,id=f"
    line += " -blockdev null-co,node-name=n,detect-zeroes=on,cache.no-flush=on"
    line += " -drive if=none,media=cdrom,id=c,format=raw,file=@DIR@/raw5 -device ide-cd,drive=c"
    into, change = "blockdev-insert-medium", "blockdev-change-medium"
    own = {"device": "floppy0"}
    steps: list[Step] = [
        *((f"blockdev-{verb}-tray", own) for verb in ("open", "close")),
        *((f"blockdev-{verb}-tray", {"id": "f"}) for verb in ("open", "close")),
        *((into, {**each, "node-name": "n"}) for each in (own, {"id": "f"}, {"id": "f"})),
        *(("eject", each) for each in (own, {"id": "f"}, own)),
        ("blockdev-remove-medium", {"id": "f"}),
        (change, {**own, "filename": "@DIR@/raw2", "format": "raw"}),
        (change, {**own, "filename": "@DIR@/nope", "format": "raw"}),
        (change, {"id": "f", "filename": "@DIR@/raw3", "read-only-mode": "read-only"}),
        (into, {**own, "node-name": "n"}),
        *(word("eject floppy0"), word("info block"), word("change floppy0 @DIR@/raw4 raw")),
        *(("block_resize", {**each, "size": 4096}) for each in (own, {"device": "c"})),
        word("drive_del floppy0"),
    ]
    with standin_pair(directory, *shlex.split(line), prepare=images) as pair:
        for step in steps:
            same(pair, [step, word("info block"), ("query-block", {})])
        assert "error" in pair.ask("device_del", {"id": "f"})


def test_media_are_changed(directory: Path) -> None:
    at = "@DIR@"
    r5 = {
        "driver": "raw",
        "node-name": "r5",
        "read-only": True,
        "file": {"driver": "file", "filename": f"{at}/raw5"},
    }
    into, change = "blockdev-insert-medium", "blockdev-change-medium"

    def medium(**more: Any) -> Step:
        return change, {name.replace("_", "-"): value for name, value in more.items()}

    trays: list[Step] = [
        (f"blockdev-{verb}-tray", args)
        for verb in ("open", "open", "close", "close", "open")
        for args in ({"id": "cd0"}, {"id": "nope"}, {}, {"id": "cd0", "device": "x"})
    ]
    steps: list[Step] = [
        *trays,
        *(("blockdev-open-tray", {"device": each}) for each in ("d0", "cd0", "e0")),
        *(("blockdev-close-tray", {"id": each}) for each in ("vd0", "s0", "ie0")),
        *(("blockdev-remove-medium", {"id": each}) for each in ("cd0", "cd0", "vd0", "ie0")),
        *((into, {"id": each, "node-name": "nope"}) for each in ("cd0", "vd0")),
        ("blockdev-add", r5),
        *((into, {"id": "cd0", "node-name": "r5"}) for _ in range(2)),
        *((into, {"id": "ie0", "node-name": "r5"}), (into, {"id": "cd0", "node-name": "r2"})),
        ("blockdev-del", {"node-name": "r5"}),
        word("info block"),
        ("blockdev-close-tray", {"id": "cd0"}),
        ("blockdev-remove-medium", {"id": "cd0"}),
        *(("eject", {"id": each}) for each in ("cd0", "cd0", "vd0")),
        *(("eject", {"device": each, "force": True}) for each in ("d0", "nope", "e0")),
        medium(id="cd0", filename=f"{at}/raw6"),
        medium(id="cd0", filename=f"{at}/raw6", format="raw"),
        medium(id="cd0", filename=f"{at}/nope"),
        medium(id="cd0", filename=f"{at}/raw7", format="raw", read_only_mode="read-write"),
        medium(id="cd0", filename=f"{at}/raw4", format="qcow2"),
        medium(id="cd0", filename=f"{at}/raw4", format="foo"),
        medium(id="vd0", filename=f"{at}/raw4"),
        medium(device="d0", filename=f"{at}/raw4"),
        *(word("eject e0"), word("eject -f e0"), word("eject d0"), word("eject nope")),
        *(word("eject"), word(f"change e0 {at}/raw4 raw"), word("change e0")),
        *(word(f"change e0 {at}/raw4 raw read-only"), word(f"change e0 {at}/raw4 raw foo")),
        *(word("change nope x"), word("info block"), ("query-block", {})),
        ("device_del", {"id": "cd1"}),
        ("query-named-block-nodes", {}),
    ]
    with standin_pair(directory, *shlex.split(MEDIA), prepare=images) as pair:
        same(pair, steps)


def test_drives_come_and_go_by_the_human_monitor(directory: Path) -> None:
    at = "@DIR@"
    lines = (
        *(f"drive_add 0 if=none,id=x,file={at}/raw3,format=raw", "drive_add 0", "drive_add"),
        f"drive_add 0 if=none,id=x,file={at}/raw4,format=raw",
        f"drive_add 0 if=none,id=y,file={at}/nope,format=raw",
        *("drive_add 0 if=virtio,id=y,driver=null-co", "drive_add 0 driver=null-co"),
        *("drive_add 0 if=foo,id=x", "drive_add 0 if=none,id=1x", "drive_add -n 0 driver=null-co"),
        *("drive_add -n 0 node-name=q,driver=null-co", "drive_add -n 0 node-name=r,file=nope"),
        *("drive_add -n 0 node-name=r,driver=nope", "drive_add -n 0 node-name=r,driver=raw"),
        *("drive_add -n 0 node-name=r,driver=raw,file.driver=nope", "drive_add -n 0 node-name=r"),
        *("drive_add -n 0 node-name=r,driver=null-co,nope=1", "drive_add -n 0 node-name=r,file=q"),
        *("drive_add -n 0 node-name=s,driver=file", "drive_add 0 if=none,id=l,bps=x"),
        *("drive_add 0 if=none,id=l,bps=1,throttling.bps-total=1", "drive_del r", "drive_del r"),
        *("drive_add 0 if=none,id=none4", "drive_add 0 if=none", "drive_add 0 if=none"),
        *("drive_add foo if=none,id=yy,driver=null-co", "drive_add 0 if=none,id=q,driver=null-co"),
        *("info block", "info block x", "info block -v x", "info block q", "info block nope"),
        *("drive_del z", "drive_del cd1", "drive_del x", "drive_del"),
        *("nbd_server_start", f"nbd_server_start -w unix:{at}/n", "nbd_server_remove foo"),
        *("nbd_server_start -a unix:@DIR@/n", "nbd_server_add q", "nbd_server_add q foo"),
        *("nbd_server_add -w q foo", "nbd_server_add nope", "nbd_server_remove foo"),
        *("nbd_server_remove foo", "nbd_server_stop", "nbd_server_stop", "info block"),
    )
    options = ("-machine", "q35", "-device", "virtio-scsi-pci", "-device", "scsi-cd,id=cd1")
    with standin_pair(directory, *options, prepare=images) as pair:
        same(pair, [word(line) for line in lines])
        taken = {"driver": "null-co", "node-name": "yy"}
        same(pair, [("blockdev-add", taken), ("block_resize", {"device": "yy", "size": 5})])
        plug: Step = ("device_add", {"driver": "scsi-hd", "drive": "yy", "id": "h"})
        same(pair, [plug, plug, ("device_del", {"id": "h"}), ("query-block", {})])


def test_what_nodes_are_made_of_is_told(directory: Path) -> None:
    images(directory)
    null: dict[str, JSON] = {"driver": "null-co"}
    file: dict[str, JSON] = {"driver": "file", "filename": str(directory / "raw1")}
    made: list[dict[str, JSON]] = [
        {"driver": "raw", "file": {"driver": "raw", "file": null}},
        {"driver": "raw", "file": {**null, "size": 5120}},
        {"driver": "raw", "size": 512, "file": {"driver": "null-aio"}},
        {"driver": "raw", "offset": 512, "file": file},
        {"driver": "raw", "file": "n3"},
    ]
    steps: list[Step] = [
        ("blockdev-add", {**each, "node-name": f"n{number}"}) for number, each in enumerate(made)
    ]
    # Where the format is looked for, too.
    below = f"file.driver=raw,file.file.driver=file,file.file.filename={directory}/raw2"
    steps.append(word(f"drive_add 0 if=none,{below}"))
    with standin_pair(directory, "-machine", "none") as pair:
        same(pair, [*steps, word("info block -n")])


def test_nodes_are_exported(directory: Path) -> None:
    def nbd(id: str, node: str, **more: Any) -> Step:
        return "block-export-add", {"type": "nbd", "id": id, "node-name": node, **more}

    def listen(path: str, **more: Any) -> Step:
        return "nbd-server-start", {"addr": {"type": "unix", "data": {"path": path}}, **more}

    steps: list[Step] = [
        ("blockdev-add", {"driver": "null-co", "node-name": "r2"}),
        ("blockdev-add", {"driver": "null-co", "node-name": "r3", "read-only": True}),
        nbd("e0", "r2"),
        listen(f"{NOT_THERE}/x"),
        listen("@DIR@/nbd", **{"tls-creds": "nope"}),
        listen("@DIR@/nbd", **{"max-connections": 5}),
        listen("@DIR@/nbd"),
        *(nbd("e0", "nope"), nbd("1e", "r2"), nbd("e0", "r2"), nbd("e0", "r2", name="x")),
        *(nbd("e1", "r2"), nbd("e1", "r2", name="x", writable=True)),
        *(nbd("e2", "r3", name="y", writable=True), nbd("e2", "r3", name="y", bitmaps=["b"])),
        *(nbd("e2", "r3", iothread="nope"), nbd("e2", "r3", name="")),
        *(nbd("e4", "r3", name="é" * 2049), nbd("e4", "r3", name="x" * 4097, bitmaps=["b"])),
        nbd("e4", "r3", name="x" * 4096),
        nbd("e3", "r4", writable=True),
        ("query-block-exports", {}),
        ("blockdev-del", {"node-name": "r2"}),
        ("nbd-server-add", {"device": "d0"}),
        ("nbd-server-add", {"device": "d0", "name": "zz"}),
        ("nbd-server-add", {"device": "r3", "writable": True, "name": "w"}),
        ("query-block-exports", {}),
        *(("nbd-server-remove", {"name": name}) for name in ("zz", "nope", "e0", "r2")),
        *(("block-export-del", {"id": id}) for id in ("nope", "e0", "e1")),
        *(("nbd-server-stop", {}), ("query-block-exports", {}), ("nbd-server-stop", {})),
        ("blockdev-del", {"node-name": "r2"}),
    ]
    options = (
        *("-machine", "q35", "-drive", "if=none,id=d0,driver=null-co", "-device"),
        *("virtio-scsi-pci", "-blockdev", "null-co,node-name=r4", "-device", "scsi-hd,drive=r4"),
    )
    with standin_pair(directory, *options) as pair:
        same(pair, steps)


def test_who_connects_to_the_nbd_server_is_disconnected(directory: Path) -> None:
    with standin_pair(directory, "-machine", "none") as pair:
        path = str(directory / "nbd")
        addr = {"type": "unix", "data": {"path": path}}
        side = pair.subject
        for _round in range(20):
            assert side.ask("nbd-server-start", {"addr": addr}) == {"return": {}}
            for _client in range(3):
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(PATIENCE)
                    client.connect(path)
                    assert client.recv(100) == b""
            assert side.ask("nbd-server-stop") == {"return": {}}
            assert not Path(path).exists()


def test_a_filter_of_a_throttle_group(directory: Path) -> None:
    options = ("-machine", "q35", "-object", "throttle-group,id=tg,x-bps-total=1000")

    def add(name: str, group: str, below: JSON) -> Step:
        told = {"driver": "throttle", "node-name": name, "throttle-group": group, "file": below}
        return "blockdev-add", told

    steps: list[Step] = [
        *(add("t0", "nope", {"driver": "null-co"}), add("t0", "tg", {"driver": "null-co"})),
        add("t1", "tg", {"driver": "raw", "node-name": "r", "file": {"driver": "null-co"}}),
        *(word("info block -n"), ("query-named-block-nodes", {}), ("object-del", {"id": "tg"})),
        *(("blockdev-del", {"node-name": name}) for name in ("r", "t0", "t1")),
        ("object-del", {"id": "tg"}),
    ]
    with standin_pair(directory, *options) as pair:
        same(pair, steps)


def test_what_stands_on_an_image_tells_of_its_clusters(directory: Path) -> None:
    image = directory / "q"
    with image.open("wb") as file:
        for at, data in empty_image({"size": 1 << 20}).items():
            file.seek(at)
            file.write(data)
    below = {"driver": "file", "filename": str(image), "node-name": "f0", "read-only": True}
    on = {"file": "n0", "node-name": "t0", "read-only": True}
    # Which its header does not name.
    backing = {"backing": {"driver": "null-co", "node-name": "z"}}
    steps: list[Step] = [
        ("object-add", {"qom-type": "throttle-group", "id": "g"}),
        ("blockdev-add", {"driver": "qcow2", "file": below, "node-name": "n0", "read-only": True}),
        ("blockdev-add", {"driver": "throttle", "throttle-group": "g", **on}),
        ("query-named-block-nodes", {}),
        ("blockdev-del", {"node-name": "t0"}),
        ("blockdev-add", {"driver": "raw", **on}),
        ("blockdev-add", {"driver": "qcow2", **on, "file": "f0", "node-name": "n1", **backing}),
        ("query-named-block-nodes", {}),
    ]
    with standin_pair(directory) as pair:
        same(pair, steps)


def test_what_a_node_is_made_of_is_told_up_to_a_length(directory: Path) -> None:
    group = "g" * 1000
    below: dict[str, JSON] = {"driver": "null-co"}
    for _ in range(5):
        below = {"driver": "throttle", "throttle-group": group, "file": below}

    def names(side: Side) -> JSON:
        return [row["file"] for row in side.ask("query-named-block-nodes")["return"]]

    with standin_pair(directory, "-object", f"throttle-group,id={group}") as pair:
        pair.ask("blockdev-add", {**below, "node-name": "t"})
        told = pair.same("names", lambda side: sorted(names(side)))
        assert max(map(len, told)) == 4095
