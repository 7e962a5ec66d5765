"""What is foreseen, beside what then happens."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memd.hostmem import files, foresight, libc
from memd.hostmem.foresight import Foreseen
from memd.hostmem.spec import READ, MapSpec
from tests.users import NOBODY, need_root

PAGE = libc.PAGE_SIZE
MIB = 1 << 20


def outcome(work: Callable[[], files.Backing]) -> tuple[int, int, int] | int:
    """The size, page size and access of a backing, or why there is none."""
    try:
        backing = work()
    except OSError as failed:
        return failed.errno or -1
    if isinstance(backing, Foreseen):
        return backing.size, backing.page_size, backing.open_flags & os.O_ACCMODE
    with open(f"/proc/self/fdinfo/{backing.fd}", encoding="ascii") as rows:
        flags = int(next(row for row in rows if row.startswith("flags:"))[6:], 8)
    found = backing.size, backing.page_size, flags & os.O_ACCMODE
    backing.undo()
    return found


def both(path: Path | str, name: str = "m0") -> list[tuple[int, int, int] | int]:
    """What is foreseen of a path for writing and for reading, which is what happens."""
    found = []
    for readonly in (False, True):
        there = os.path.lexists(path)
        foreseen = outcome(lambda readonly=readonly: foresight.file(str(path), readonly, name))  # type: ignore[misc]
        assert os.path.lexists(path) == there
        happened = outcome(
            lambda readonly=readonly: files.open_file(str(path), readonly, name, True)  # type: ignore[misc]
        )
        assert foreseen == happened, (path, readonly)
        found.append(foreseen)
    return found


def test_files(directory: Path) -> None:
    (directory / "full").write_bytes(b"x" * 5000)
    assert both(directory / "full") == [(5000, PAGE, os.O_RDWR), (5000, PAGE, os.O_RDONLY)]
    assert both(directory / "new") == [(0, PAGE, os.O_RDWR), errno.ENOENT]
    assert both(directory) == [(0, PAGE, os.O_RDWR), errno.EISDIR]
    os.mkfifo(directory / "fifo")
    assert both(directory / "fifo") == [(-1, PAGE, os.O_RDWR), (-1, PAGE, os.O_RDONLY)]


def test_links(directory: Path) -> None:
    (directory / "full").write_bytes(b"x" * 5000)
    (directory / "link").symlink_to("full")
    (directory / "dangling").symlink_to("nowhere")
    (directory / "loop").symlink_to("loop")
    assert both(directory / "link")[0] == (5000, PAGE, os.O_RDWR)
    assert both(directory / "dangling") == [errno.EEXIST, errno.ENOENT]
    assert both(directory / "loop") == [errno.ELOOP, errno.ELOOP]


def test_paths_that_lead_nowhere(directory: Path) -> None:
    (directory / "full").touch()
    assert both("") == [errno.ENOENT, errno.ENOENT]
    assert both(f"{directory}/none/new") == [errno.ENOENT, errno.ENOENT]
    assert both(f"{directory}/new/") == [errno.EISDIR, errno.ENOENT]
    assert both(f"{directory}/full/new") == [errno.ENOTDIR, errno.ENOTDIR]
    assert both(f"{directory}/{'x' * 256}") == [errno.ENAMETOOLONG, errno.ENAMETOOLONG]
    assert both(directory, "x" * 300)[0] == errno.ENAMETOOLONG


def test_a_socket(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "socket"))
        assert both(directory / "socket") == [errno.ENXIO, errno.ENXIO]


@pytest.mark.parametrize(("path", "mappable"), [("/dev/null", False), ("/dev/zero", True)])
def test_devices(path: str, mappable: bool) -> None:
    both(path)
    found = foresight.file(path, False, "m0")
    assert found.kind == "device"
    assert found.sure
    assert found.mappable is mappable
    assert not foresight.file("/dev/full", False, "m0").sure


def test_paths_relative_to_the_working_directory(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory)
    both("new")
    both("./new")
    both("nowhere/new")


def test_file_systems(directory: Path, mount: Callable[..., None]) -> None:
    place = directory / "small"
    mount("tmpfs", place, "size=64k")
    found = foresight.file(str(place / "new"), False, "m0")
    assert (found.file_system, found.free, found.in_memory) == ("tmpfs", 64 << 10, True)
    assert found.creates
    found = foresight.file("/proc/version", True, "m0")
    assert not found.sure
    assert not found.dax


@need_root
def test_read_only_mounts(directory: Path, mount: Callable[..., None]) -> None:
    """Said before what the directory's mode denies, whichever of the two is read-only."""
    place = directory / "mount"
    mount("tmpfs", place, "mode=755")
    (place / "full").write_bytes(b"x" * 5000)
    (place / "closed").mkdir(mode=0o700)
    directory.chmod(0o755)

    def ask() -> None:
        os.seteuid(NOBODY)
        try:
            assert both(place / "new") == [errno.EROFS, errno.ENOENT]
            assert both(place) == [errno.EROFS, errno.EISDIR]
            assert both(place, "x" * 300)[0] == errno.ENAMETOOLONG
            both(place / "full")
            assert both(place / "closed" / "new") == [errno.EACCES, errno.EACCES]
            assert both(place / "closed") == [errno.EACCES, errno.EACCES]
        finally:
            os.seteuid(0)

    subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
    ask()
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    ask()


def test_direct_access(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told by the options of the mount."""
    (directory / "file").touch()
    assert not foresight.file(str(directory / "file"), False, "m0").dax
    rows = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    device = directory.stat().st_dev
    if not any(row.split()[2] == f"{os.major(device)}:{os.minor(device)}" for row in rows):
        pytest.skip("not here: a root directory that is a mount (this is a chroot)")
    table = directory / "mountinfo"
    table.write_text("".join(f"{row},dax=always\n" for row in rows), encoding="utf-8")
    monkeypatch.setattr(foresight, "_MOUNTS", str(table))
    assert foresight.file(str(directory / "file"), False, "m0").dax


def test_getting_a_size(directory: Path) -> None:
    (directory / "empty").touch()
    written = foresight.file(str(directory / "empty"), False, "m0")
    written.truncate(MIB)
    assert (written.gets, written.cannot_get) == (MIB, 0)
    written.truncate(1 << 63)
    assert written.cannot_get == errno.EINVAL
    read = foresight.file(str(directory / "empty"), True, "m0")
    read.truncate(MIB)
    assert read.cannot_get == errno.EINVAL
    # Nothing of it was done.
    assert (directory / "empty").stat().st_size == 0


def test_memfds() -> None:
    plain = os.MFD_CLOEXEC
    assert foresight.memfd("x" * 249, plain, MIB).page_size == PAGE
    with pytest.raises(OSError) as caught:
        foresight.memfd("x" * 250, plain, MIB)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(OSError):
        os.memfd_create("x" * 250)
    for shift in (1, 12, 40, 63):
        flags = plain | os.MFD_HUGETLB | shift << os.MFD_HUGE_SHIFT
        with pytest.raises(OSError) as caught:
            foresight.memfd("x", flags, MIB)
        with pytest.raises(OSError) as happened:
            os.memfd_create("x", flags)
        assert caught.value.errno == happened.value.errno


def spec(length: int, **more: Any) -> MapSpec:
    return MapSpec(length, length, PAGE, PAGE)._replace(**more)


def test_what_can_be_mapped(directory: Path) -> None:
    fifo = Foreseen("fifo", -1)
    fifo.mappable = False
    assert foresight.map_error(spec(MIB), fifo) == errno.ENODEV
    assert foresight.map_error(spec(MIB, offset=1 << 63), fifo) == errno.ENODEV
    assert foresight.map_error(spec(MIB, offset=(1 << 64) - MIB), fifo) == errno.EOVERFLOW
    assert foresight.map_error(spec(MIB), None) == 0
    assert foresight.map_error(spec(1 << 47), None) == errno.ENOMEM
    assert foresight.map_error(spec((1 << 64) - PAGE), None) == errno.EINVAL
    assert foresight.map_error(spec(MIB, align=1 << 63), None) == errno.ENOMEM
    assert foresight.map_error(spec(MIB, offset=1 << 63), Foreseen("file", 0)) == errno.EOVERFLOW
    # More than there is memory, and little enough to fit between whatever is mapped.
    private = spec(1 << 45, shared=False)
    assert foresight.map_error(private, None) == errno.ENOMEM
    assert foresight.map_error(private._replace(reserve=False), None) == 0
    assert foresight.map_error(private._replace(protection=READ), None) == 0


def test_what_is_wanted() -> None:
    disk, memory = Foreseen("file", MIB), Foreseen("memfd", MIB)
    disk.allocated = MIB // 4
    shared, private = spec(MIB), spec(MIB, shared=False)
    rom = spec(MIB, protection=READ)
    assert foresight.space_wanted(shared, disk) == MIB * 3 // 4
    # Reading a hole on a disk takes nothing.
    assert foresight.space_wanted(private, disk) == 0
    assert foresight.space_wanted(rom, disk) == 0
    assert foresight.space_wanted(private, memory) == MIB
    assert foresight.memory_wanted(shared, None) == MIB
    assert foresight.memory_wanted(shared, disk) == 0
    assert foresight.memory_wanted(private, disk) == MIB
    assert foresight.memory_wanted(shared, memory) == MIB
    assert foresight.memory_wanted(private, memory) == 2 * MIB


def test_preallocation() -> None:
    small = Foreseen("shm", MIB)
    small.free = MIB // 2
    assert foresight.populate_error(spec(MIB), small) == errno.EFAULT
    assert foresight.populate_error(spec(MIB // 4), small) == 0
    assert foresight.populate_error(spec(MIB), None) == 0
    empty = Foreseen("file", 0)
    empty.cannot_get = errno.EINVAL
    assert foresight.populate_error(spec(MIB, protection=READ), empty) == errno.EFAULT


def test_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    from memd.hostmem import capacity

    monkeypatch.setattr(capacity, "node_limit", lambda: 64)
    monkeypatch.setattr(capacity, "memory_nodes", lambda: {0, 2})
    assert foresight.bind_error("default", []) == 0
    assert foresight.bind_error("bind", [0, 1]) == 0
    assert foresight.bind_error("bind", [1, 3]) == errno.EINVAL
    assert foresight.bind_error("bind", [0, 100]) == errno.EINVAL
    monkeypatch.setattr(capacity, "memory_nodes", lambda: None)
    assert foresight.bind_error("bind", [0]) == errno.ENOSYS
