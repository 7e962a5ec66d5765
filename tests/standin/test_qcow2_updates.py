"""Changes of qcow2 images whose process is killed at any write, and images that are damaged."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from memd.errors import QMPError
from memd.standin.block.qcow2 import Header, Snapshot, empty_image
from memd.standin.block.qcow2_bitmaps import Kept, mark_in_use, read, remove, store
from memd.standin.block.qcow2_clusters import resize
from memd.standin.block.qcow2_snapshots import StateReader, StateWriter, create, delete, revert

SIZE = 64 << 20
need_qemu_img = pytest.mark.skipif(
    shutil.which("qemu-img") is None, reason="needs qemu-img(1): it is not on PATH"
)


def make(path: Path, **options: Any) -> None:
    with path.open("wb") as file:
        for at, data in empty_image({"size": SIZE, **options}).items():
            file.seek(at)
            file.write(data)


def do(path: Path, work: Callable[[int], object]) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        work(fd)
    finally:
        os.close(fd)


def killed(path: Path, work: Callable[[int], object], at: int) -> bool:
    """Have a process do it that dies before one of its writes; whether it came so far."""
    pid = os.fork()
    if pid == 0:
        left = at

        def trace(frame: FrameType, event: str, arg: object) -> None:
            nonlocal left
            if event == "call" and frame.f_code.co_name == "write_at":
                left -= 1
                if left < 0:
                    os._exit(9)

        sys.settrace(trace)
        try:
            do(path, work)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


def check(path: Path, *, leaks: bool) -> None:
    done = subprocess.run(
        ["qemu-img", "check", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode in ((0, 3) if leaks else (0,)), done.stdout + done.stderr


def contents(path: Path) -> list[tuple[bytes, int, int]]:
    found: list[tuple[bytes, int, int]] = []
    do(path, lambda fd: found.extend((each.name, each.flags, bits) for each, bits in read(fd)))
    return found


def kept(name: bytes, bits: int | None) -> Kept:
    return Kept(name, 65536, recording=True, bits=bits)


ALL = (1 << SIZE // 65536) - 1
SOME = [kept(b"a", 5), kept(b"b", ALL), kept(b"c", 0)]


def grow(fd: int) -> None:
    header = Header(fd)
    resize(fd, header, header.cluster**2 * 1000)


CHANGES: dict[str, tuple[list[Kept], Callable[[int], object]]] = {
    "the first bitmaps": ([], lambda fd: store(fd, SOME)),
    "other bits": (SOME, lambda fd: store(fd, [kept(b"a", ALL), kept(b"b", 1), kept(b"c", 7)])),
    "one more": (SOME, lambda fd: store(fd, [kept(b"a", None), kept(b"d", 3)])),
    "flags": (SOME, mark_in_use),
    "one less": (SOME, lambda fd: remove(fd, b"b")),
    "none": (SOME[:1], lambda fd: remove(fd, b"a")),
    "a longer table": ([], grow),
    "a backing file": (SOME, lambda fd: Header(fd).set_backing(fd, "below", "raw")),
}


def snapshot(fd: int) -> None:
    """One with a state of a machine."""
    state = StateWriter(fd, Header(fd))
    state.write(b"state" * 40000)
    create(fd, Header(fd), Snapshot("", "s", 0), state)


def goto(fd: int) -> None:
    header = Header(fd)
    revert(fd, header, header.snapshots[0])


def forget(fd: int) -> None:
    header = Header(fd)
    delete(fd, header, header.snapshots[0])


def states(path: Path) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    do(path, lambda fd: found.extend((each.name, each.size) for each in Header(fd).snapshots))
    return found


@need_qemu_img
@pytest.mark.parametrize("version", ["v2", "v3"])
@pytest.mark.parametrize("change", [snapshot, goto, forget])
def test_snapshots_and_data_are_whole_whenever_the_process_is_killed(
    tmp_path: Path, change: Callable[[int], None], version: str
) -> None:
    """What was not counted is counted by a repair, as a QEMU does that opens the image."""
    raw, made, path = tmp_path / "raw", tmp_path / "made", tmp_path / "i"
    raw.write_bytes(b"data" * (1 << 20) + bytes(SIZE - (4 << 20)))
    compat = {"v2": "0.10", "v3": "1.1"}[version]
    options = ["-o", f"compat={compat},cluster_size=65536"]
    line = ["qemu-img", "convert", "-O", "qcow2", *options, str(raw), str(made)]
    subprocess.run(line, check=True)
    if change is not snapshot:
        do(made, snapshot)
    old = states(made)
    shutil.copy(made, path)
    do(path, change)
    check(path, leaks=False)
    new, at = states(path), 0
    shutil.copy(made, path)
    while killed(path, change, at):
        assert states(path) in (old, new), at
        for _ in range(2):
            # Also as it is.
            same = ["qemu-img", "compare", "-U", "-F", "qcow2", "-f", "raw", str(raw), str(path)]
            subprocess.run(same, check=True, stdout=subprocess.DEVNULL)
            repair = ["qemu-img", "check", "-q", "-r", "all", str(path)]
            subprocess.run(repair, check=False, capture_output=True)
        check(path, leaks=False)
        at += 1
        shutil.copy(made, path)
    assert at > 3
    assert states(path) == new
    check(path, leaks=False)


@need_qemu_img
@pytest.mark.parametrize("cluster", [512, 65536])
@pytest.mark.parametrize("change", CHANGES)
def test_an_image_is_valid_whenever_the_process_is_killed(
    tmp_path: Path, change: str, cluster: int
) -> None:
    before, work = CHANGES[change]
    made, path = tmp_path / "made", tmp_path / "i"
    (tmp_path / "below").write_bytes(bytes(SIZE))
    make(made, **{"cluster-size": cluster})
    do(made, lambda fd: store(fd, before))
    old = contents(made)
    shutil.copy(made, path)
    do(path, work)
    check(path, leaks=False)
    new, at = contents(path), 0
    shutil.copy(made, path)
    while killed(path, work, at):
        check(path, leaks=True)
        # Of flags some may be written.
        assert contents(path) in (old, new) or change == "flags", at
        at += 1
        shutil.copy(made, path)
    assert at > 0
    assert contents(path) == new


@pytest.mark.parametrize("where", ["header", "table", "references", "block", "directory"])
def test_what_is_in_use_otherwise_is_not_freed(tmp_path: Path, where: str) -> None:
    """Where a bitmap is said to be where something else is."""
    path = tmp_path / "i"
    make(path)
    do(path, lambda fd: store(fd, [kept(b"a", 5)]))
    fd = os.open(path, os.O_RDWR)
    header = Header(fd)
    (block,) = struct.unpack(">Q", os.pread(fd, 8, header.references[0]))
    places = {
        "header": 0,
        "table": header.table[0],
        "references": header.references[0],
        "block": block,
        "directory": header.directory.at,
    }
    os.close(fd)
    data = bytearray(path.read_bytes())
    (table,) = struct.unpack_from(">Q", data, header.directory.at)
    struct.pack_into(">Q", data, table, places[where])
    if where == "header":
        # 0 is no cluster: of all ones.
        struct.pack_into(">Q", data, header.directory.at, header.table[0])
    path.write_bytes(data)
    with pytest.raises(QMPError):
        do(path, lambda fd: remove(fd, b"a"))
    assert path.read_bytes() == data


def test_references_that_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "i"
    for at in (0, 65536, 3 * 65536, 513, 1 << 40):
        make(path)
        data = bytearray(path.read_bytes())
        struct.pack_into(">Q", data, 65536, at)
        path.write_bytes(data)
        before = bytes(data)
        try:
            do(path, lambda fd: store(fd, [kept(b"a", 5)]))
        except QMPError:
            assert path.read_bytes() == before
        else:
            # Nothing was counted: what was there is as it was, and the rest is behind it.
            assert at == 0
            assert path.read_bytes()[3 * 65536 : len(before)] == before[3 * 65536 :]


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    path, state = tmp_path / "i", os.urandom(3 << 20) + bytes(1 << 20)
    for options in ({"cluster-size": 512}, {"cluster-size": 65536}):
        make(path, **options)
        fd = os.open(path, os.O_RDWR)
        for number in range(3):
            writer = StateWriter(fd, Header(fd))
            for at in range(0, len(state), 99999):
                writer.write(state[at : at + 99999])
            create(fd, Header(fd), Snapshot("", f"s{number}", 0), writer)
        header = Header(fd)
        assert [each.id for each in header.snapshots] == ["1", "2", "3"]
        for each in header.snapshots:
            reader, read = StateReader(fd, header, each), bytearray()
            part = bytearray(70000)
            while count := reader.read_into(memoryview(part)):
                read += part[:count]
            assert read == state
        os.close(fd)


@pytest.mark.parametrize("at", [0, 65536, 3 * 65536, 513, 1 << 40])
@pytest.mark.parametrize("work", [forget, goto])
def test_a_snapshot_whose_table_is_damaged(
    tmp_path: Path, work: Callable[[int], None], at: int
) -> None:
    """Its table, or what that refers to, is the header, another table, or nothing."""
    path = tmp_path / "i"
    make(path)
    do(path, snapshot)
    data = bytearray(path.read_bytes())
    header: list[Header] = []
    do(path, lambda fd: header.append(Header(fd)))
    place = header[0].snapshots[0].table[0]
    for where in (header[0].snapshots_range[0], place):
        changed = bytearray(data)
        struct.pack_into(">Q", changed, where, at)
        path.write_bytes(changed)
        with suppress(QMPError):
            do(path, work)
            # A table of nothing.
            continue
        assert path.read_bytes()[: len(changed)] == changed
