"""Image locks: processes that open the same image keep out of each other's way."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memd.standin.block.qcow2 import empty_image
from tests import prefork
from tests.differential.harness import settle
from tests.differential.server import (
    qemu_binary,
    qemu_compat,
    qemu_system_memd,
    running,
)
from tests.differential.standin import standin_pair

Step = tuple[str, dict[str, Any]]

NULL = "-blockdev null-co,node-name=z -device scsi-hd,drive=z,id=z"
DRIVE = {"path": "/machine/peripheral/z", "property": "drive"}
"""A device that can be given an image later."""

FLOCK = struct.Struct("hhqqi4x")
BYTES = (*range(100, 104), *range(200, 204))


def images(directory: Path) -> None:
    for name in ("raw", "free"):
        (directory / name).write_bytes(bytes(1 << 20))
    with (directory / "q").open("wb") as file:
        for offset, data in empty_image({"size": 1 << 20}).items():
            file.seek(offset)
            file.write(data)


def locked(path: Path) -> list[int]:
    """The bytes that another open file has locked."""
    fd = os.open(path, os.O_RDWR)
    try:
        found = []
        for byte in BYTES:
            asked = FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
            told = FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))
            if told[0] != fcntl.F_UNLCK:
                found.append(byte)
        return found
    finally:
        os.close(fd)


@contextlib.contextmanager
def holding(paths: Iterable[Path], *places: int) -> Iterator[None]:
    """A context in which images are locked as by another process."""
    with contextlib.ExitStack() as stack:
        for path in paths:
            fd = os.open(path, os.O_RDWR)
            stack.callback(os.close, fd)
            for byte in places:
                asked = FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
                fcntl.fcntl(fd, fcntl.F_OFD_SETLK, asked)
        yield


RAW = "-blockdev raw,node-name=r,file.driver=file,file.filename=@DIR@/raw"
LINES = (
    *("", "-device virtio-blk-pci,drive=r", "-device virtio-blk-pci,drive=r,share-rw=on"),
    *(",read-only=on -device virtio-blk-pci,drive=r", ",file.locking=off -device ide-hd,drive=r"),
    *(",read-only=on,force-share=on", "-device ide-cd,drive=r", "-device scsi-hd,drive=r"),
    *("-drive if=none,file=@DIR@/free,format=raw", "-hda @DIR@/free"),
    *("-drive if=pflash,file=@DIR@/free,format=raw", "-drive if=virtio,file=@DIR@/q,format=qcow2"),
    "-drive if=pflash,file=@DIR@/free,format=raw,readonly=on -cdrom @DIR@/q",
    "-hda @DIR@/free -hdb @DIR@/q -snapshot",
    "-blockdev qcow2,node-name=q,file.driver=file,file.filename=@DIR@/q",
    "-blockdev qcow2,read-only=on,node-name=q,file.driver=file,file.filename=@DIR@/q",
    "-object throttle-group,id=g -blockdev throttle,throttle-group=g,node-name=t,file=r"
    " -device virtio-blk-pci,drive=t",
)


@pytest.mark.parametrize("line", LINES)
def test_what_uses_an_image_locks_it(directory: Path, line: str) -> None:
    space = "" if line.startswith(",") else " "
    text = f"-machine q35 -device virtio-scsi-pci {RAW}{space}{line}"
    with standin_pair(directory, *shlex.split(text), prepare=images) as pair:
        for name in ("raw", "free", "q"):
            pair.same(f"locks of {name}", lambda side, name=name: locked(side.scratch / name))  # type: ignore[misc]


def test_locks_come_and_go_with_what_uses_an_image(directory: Path) -> None:
    cd = "-drive if=none,id=e -device ide-cd,drive=e,id=c"
    text = f"-machine q35 -device virtio-scsi-pci {RAW} {cd} {NULL}"
    export = {"type": "nbd", "id": "e", "node-name": "r"}
    socket = {"addr": {"type": "unix", "data": {"path": "@DIR@/nbd"}}}
    disk = {"driver": "scsi-hd", "drive": "r", "id": "h"}
    added = {"driver": "file", "node-name": "f", "filename": "@DIR@/q"}
    steps: list[Step] = [
        ("device_add", disk),
        ("device_del", {"id": "h"}),
        ("device_add", {**disk, "share-rw": True}),
        ("device_del", {"id": "h"}),
        ("blockdev-open-tray", {"id": "c"}),
        ("blockdev-insert-medium", {"id": "c", "node-name": "r"}),
        ("blockdev-remove-medium", {"id": "c"}),
        ("qom-set", {**DRIVE, "value": "r"}),
        ("qom-set", {**DRIVE, "value": "z"}),
        ("nbd-server-start", socket),
        ("block-export-add", export),
        ("block-export-del", {"id": "e"}),
        ("block-export-add", {**export, "writable": True}),
        ("nbd-server-stop", {}),
        ("block_resize", {"node-name": "r", "size": 1 << 19}),
        ("blockdev-add", added),
        ("blockdev-add", {"driver": "qcow2", "node-name": "q", "file": "f"}),
        ("blockdev-del", {"node-name": "q"}),
    ]
    with standin_pair(directory, *shlex.split(text), prepare=images) as pair:
        for step in steps:
            pair.same(f"{step}", lambda side, step=step: side.ask(*step))  # type: ignore[misc]
            if step[0] == "device_del":
                pair.each(lambda side: side.monitor.read_event("DEVICE_DELETED"))
                # QEMU closes a device a little after the event that says so.
                settle(lambda: locked(pair.reference.scratch / "raw"), lambda now: not now)
            for name in ("raw", "q"):
                what = f"locks of {name} after {step}"
                pair.same(what, lambda side, name=name: locked(side.scratch / name))  # type: ignore[misc]


def test_who_finds_an_image_locked_is_refused(directory: Path) -> None:
    added = {"driver": "raw", "node-name": "r", "file": {"driver": "file", "filename": "@DIR@/raw"}}
    qcow2 = {"driver": "qcow2", "node-name": "q", "file": {"driver": "file", "filename": "@DIR@/q"}}
    made = {"driver": "file", "filename": "@DIR@/raw", "size": 4096}
    change = {"id": "c", "filename": "@DIR@/raw", "format": "raw"}
    insert = {"id": "c", "node-name": "r"}
    socket = {"addr": {"type": "unix", "data": {"path": "@DIR@/nbd"}}}
    export = {"type": "nbd", "id": "e", "node-name": "r", "writable": True}
    text = f"-machine q35 -device virtio-scsi-pci -device scsi-cd,id=c {NULL}"
    steps: list[Step] = [
        ("blockdev-add", qcow2),
        ("blockdev-add", added),
        *(("device_add", {"driver": kind, "drive": "r"}) for kind in ("scsi-hd", "scsi-cd")),
        ("device_add", {"driver": "scsi-hd", "drive": "r", "share-rw": True}),
        ("block_resize", {"node-name": "r", "size": 4096}),
        ("qom-set", {**DRIVE, "value": "r"}),
        ("qom-get", DRIVE),
        ("blockdev-open-tray", {"id": "c"}),
        ("blockdev-insert-medium", insert),
        ("blockdev-change-medium", change),
        ("nbd-server-start", socket),
        ("block-export-add", export),
        ("query-block-exports", {}),
        ("blockdev-create", {"job-id": "j", "options": made}),
        ("query-jobs", {}),
        ("blockdev-del", {"node-name": "r"}),
        ("query-named-block-nodes", {}),
    ]
    with standin_pair(directory, *shlex.split(text), prepare=images) as pair:
        places = [side.scratch for side in (pair.reference, pair.subject)]
        paths = [place / name for place in places for name in ("raw", "q")]
        with holding(paths, 100, 101, 201, 203):
            for step in steps:
                pair.same(f"{step}", lambda side, step=step: side.ask(*step))  # type: ignore[misc]
            for path in paths:
                assert path.stat().st_size > 4096
        pair.same("a free image", lambda side: side.ask("blockdev-add", added))
        plug = {"driver": "scsi-hd", "drive": "r"}
        pair.same("a device on it", lambda side: side.ask("device_add", plug))


def test_what_was_refused_before_takes_no_lock_for_others(directory: Path) -> None:
    """What undoes a refusal in the background may be late, and each is refused all the same."""
    images(directory)
    line = "-S -display none -nodefaults -machine q35 -device virtio-scsi-pci"
    text = RAW.replace("@DIR@", str(directory))
    plug = {"driver": "scsi-hd", "drive": "r", "share-rw": True}
    resize = {"node-name": "r", "size": 4096}
    both = [("device_add", plug), ("block_resize", resize)] * 50
    sent = [json.dumps({"execute": name, "arguments": each}).encode() for name, each in both]
    argv = [*qemu_system_memd(qemu_compat()), *shlex.split(f"{line} {text}")]
    with running("memd", argv, directory) as server, holding([directory / "raw"], 201, 203):
        monitor = server.monitor()
        monitor.send(b"\n".join(sent))
        said = [monitor.read_answer().get("error", {}).get("desc") for _ in sent]
        assert said == ['Failed to get "write" lock', 'Failed to get "resize" lock'] * 50
        assert monitor.execute("query-status")["return"]["status"] == "prelaunch"
    assert (directory / "raw").stat().st_size == 1 << 20


OPENED = (
    *("-drive if=virtio,file=raw,format=raw", "-hda raw", "-drive if=none,file=raw,format=raw"),
    *("-pflash raw", "-drive if=virtio,file=q,format=qcow2", "-cdrom raw"),
    "-drive if=pflash,file=raw,format=raw,readonly=on -drive if=none,file=raw,format=raw",
    "-drive if=none,id=d,file=raw,format=raw,readonly=on -device virtio-blk-pci,drive=d",
    "-drive if=none,id=d,file=raw,format=raw,file.locking=off -device virtio-blk-pci,drive=d",
)


def test_a_qemu_and_a_stand_in_refuse_each_other(directory: Path) -> None:
    memd = [*qemu_system_memd(qemu_compat())]
    images(directory)
    line = "-S -display none -nodefaults -machine q35"
    uses = "-drive if=virtio,file=raw,format=raw -drive if=virtio,file=q,format=qcow2"
    said: list[list[Any]] = []
    for holder, other in (
        (qemu_binary(), qemu_binary()),
        (qemu_binary(), memd),
        (memd, qemu_binary()),
        (memd, memd),
    ):
        place = directory / str(len(said))
        place.mkdir()
        argv = [*holder, *f"{line} {uses}".split()]
        with running("holder", argv, place, directory) as server:
            # All that its command line names is there when it greets.
            server.monitor()
            rows = []
            for each in OPENED:
                words = f"{line} {each} -qmp stdio".split()
                quit = '{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n'
                done = prefork.run([*other, *words], text=quit, cwd=directory)
                told = done.stderr.replace("qemu-system-x86_64", "B")
                told = told.replace("qemu-system-memd", "B")
                lines = [row for row in told.splitlines() if not row.startswith(("WARN", "   "))]
                rows.append((each, done.returncode, lines))
        said.append(rows)
    assert [row[1] for row in said[0]] == [1, 1, 0, 1, 1, 1, 0, 1, 0]
    assert said[1:] == [said[0]] * 3


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_images_are_left_to_where_a_machine_goes(directory: Path, kind: str) -> None:
    seen = []
    for number, binary in enumerate((qemu_binary(), qemu_system_memd(qemu_compat()))):
        place = directory / str(number)
        place.mkdir()
        images(place)
        image = place / {"raw": "raw", "qcow2": "q"}[kind]
        line = "-S -display none -nodefaults -machine q35 -m 16"
        argv = [*binary, *line.split(), "-drive", f"if=virtio,format={kind},file={image}"]
        uri = f"unix:{place}/incoming"
        places = [place / name for name in ("from", "to")]
        for each in places:
            each.mkdir()
        rows: list[Any] = []
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(running("source", argv, places[0])).monitor()
            argv += ["-incoming", uri]
            target = stack.enter_context(running("target", argv, places[1])).monitor()
            rows.append(locked(image))
            source.execute("migrate", {"uri": uri})
            while source.execute("query-migrate")["return"]["status"] != "completed":
                pass
            while target.execute("query-status")["return"]["status"] == "inmigrate":
                pass
            rows.append(locked(image))
            rows += [target.execute("cont"), locked(image)]
            rows += [source.execute("cont"), locked(image)]
        seen.append(rows)
    assert seen[1] == seen[0]
