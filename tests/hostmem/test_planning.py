"""What the host that only plans says, beside what then happens."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memd.hostmem import files, libc, planning
from memd.hostmem.capacity import CannotTell
from memd.hostmem.host import Host
from memd.hostmem.opened import MEMFD
from memd.hostmem.planning import PlannedFile, PlanningHost
from memd.hostmem.region import Region
from memd.hostmem.spec import READ, MapSpec
from tests.conftest import need_sys
from tests.hostmem.made import HOST
from tests.users import NOBODY, need_root

PAGE = libc.PAGE_SIZE
MIB = 1 << 20


def outcome(host: Host, path: Path | str, readonly: bool, name: str) -> tuple[int, ...] | int:
    """The size, page size and access of a file that is opened, or why there is none."""
    try:
        backing = files.open_file(host, str(path), readonly, name)
    except OSError as failed:
        return failed.errno or -1
    if isinstance(host, PlanningHost):
        assert host.file is not None
        flags = host.file.open_flags
    else:
        with open(f"/proc/self/fdinfo/{backing.fd}", encoding="ascii") as rows:
            flags = int(next(row for row in rows if row.startswith("flags:"))[6:], 8)
    found = backing.size, backing.page_size, flags & os.O_ACCMODE
    backing.undo()
    return found


def both(path: Path | str, name: str = "m0") -> list[tuple[int, ...] | int]:
    """What is planned of a path for writing and for reading, which is what happens."""
    found = []
    for readonly in (False, True):
        there = os.path.lexists(path)
        planned = outcome(PlanningHost(HOST), path, readonly, name)
        assert os.path.lexists(path) == there
        assert planned == outcome(HOST, path, readonly, name), (path, readonly)
        found.append(planned)
    return found


def planned(path: Path | str, readonly: bool = False) -> PlannedFile:
    host = PlanningHost(HOST)
    files.open_file(host, str(path), readonly, "m0").undo()
    assert host.file is not None
    return host.file


def number_of(work: Callable[[], object]) -> int:
    """The errno value with which it fails, or 0."""
    try:
        work()
    except OSError as failed:
        return failed.errno or -1
    return 0


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


@pytest.mark.parametrize(
    ("path", "number"), [("/dev/null", errno.ENODEV), ("/dev/zero", 0), ("/dev/full", None)]
)
def test_devices(path: str, number: int | None) -> None:
    host = PlanningHost(HOST)
    if number is not None:
        both(path)
    backing = files.open_file(host, path, False, "m0")
    try:
        if number is None:
            with pytest.raises(CannotTell):
                host.map(spec(MIB), backing.fd)
        else:
            assert number_of(lambda: host.map(spec(MIB), backing.fd)) == number
    finally:
        backing.undo()


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
    found = planned(place / "new")
    assert (found.file_system, found.free, found.in_memory) == ("tmpfs", 64 << 10, True)
    assert found.creates
    found = planned("/proc/version", readonly=True)
    assert (found.file_system, found.dax) == ("", False)


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


def test_direct_access(directory: Path) -> None:
    """Told by the options of the mount."""
    (directory / "file").touch()
    assert not planned(directory / "file").dax
    rows = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    device = directory.stat().st_dev
    if not any(row.split()[2] == f"{os.major(device)}:{os.minor(device)}" for row in rows):
        pytest.skip("not here: a root directory that is a mount (this is a chroot)")
    table = directory / "mountinfo"
    table.write_text("".join(f"{row},dax=always\n" for row in rows), encoding="utf-8")
    assert planning.is_dax(device, str(table))
    assert not planning.is_dax(device)


def test_getting_a_size(directory: Path) -> None:
    (directory / "empty").touch()
    for readonly, size, number in (
        *((False, MIB, 0), (False, 1 << 63, errno.EINVAL)),
        (True, MIB, errno.EINVAL),
    ):
        host = PlanningHost(HOST)
        backing = files.open_file(host, str(directory / "empty"), readonly, "m0")
        assert number_of(lambda h=host, b=backing, s=size: h.truncate(b.fd, s)) == number  # type: ignore[misc]
        assert host.file is not None
        assert (host.file.gets, host.file.cannot_get) == (size, number)
        backing.undo()
    # Nothing of it was done.
    assert (directory / "empty").stat().st_size == 0


@need_sys
def test_memfds() -> None:
    host, plain = PlanningHost(HOST), os.MFD_CLOEXEC
    host.close(host.memfd("x" * 249, plain))
    flags = [plain | os.MFD_HUGETLB | shift << os.MFD_HUGE_SHIFT for shift in (1, 12, 40, 63)]
    for label, kind in (("x" * 250, plain), *(("x", each) for each in flags)):
        number = number_of(lambda a=label, b=kind: host.memfd(a, b))  # type: ignore[misc]
        assert number == number_of(lambda a=label, b=kind: os.memfd_create(a, b)) != 0  # type: ignore[misc]


def spec(length: int, **more: Any) -> MapSpec:
    return MapSpec(length, length, PAGE, PAGE)._replace(**more)


def mapped(what: MapSpec, path: Path | str = "") -> int:
    """With which errno value mapping it would fail, as it does."""
    numbers = []
    for host in (PlanningHost(HOST), HOST):
        backing = files.open_file(host, str(path), False, "m0") if path else None
        try:
            region = Region(host, what, -1 if backing is None else backing.fd)
            region.disown()
            region.close()
            numbers.append(0)
        except OSError as failed:
            numbers.append(failed.errno or -1)
        finally:
            if backing is not None:
                backing.undo()
    assert numbers[0] == numbers[1]
    return numbers[0]


def test_what_can_be_mapped(directory: Path) -> None:
    os.mkfifo(directory / "fifo")
    (directory / "file").write_bytes(b"x")
    assert mapped(spec(MIB), directory / "fifo") == errno.ENODEV
    assert mapped(spec(MIB, offset=1 << 63), directory / "fifo") == errno.ENODEV
    assert mapped(spec(MIB, offset=(1 << 64) - MIB), directory / "fifo") == errno.EOVERFLOW
    assert mapped(spec(MIB)) == 0
    assert mapped(spec(1 << 47)) == errno.ENOMEM
    assert mapped(spec((1 << 64) - PAGE)) == errno.EINVAL
    assert mapped(spec(MIB, align=1 << 63)) == errno.ENOMEM
    assert mapped(spec(MIB, offset=1 << 63), directory / "file") == errno.EOVERFLOW
    # More than there is memory, and little enough to fit between whatever is mapped.
    private = spec(1 << 45, shared=False)
    assert mapped(private) == errno.ENOMEM
    assert mapped(private._replace(reserve=False)) == 0
    assert mapped(private._replace(protection=READ)) == 0
    assert mapped(spec(1 << 45), "/dev/zero") == errno.ENOMEM


def test_what_is_wanted() -> None:
    disk, memory = PlannedFile("file", MEMFD, 0), PlannedFile("memfd", MEMFD, 0)
    disk.allocated = MIB // 4
    shared, private = spec(MIB), spec(MIB, shared=False)
    rom = spec(MIB, protection=READ)
    assert planning.space_wanted(shared, disk) == MIB * 3 // 4
    # Reading a hole on a disk takes nothing.
    assert planning.space_wanted(private, disk) == 0
    assert planning.space_wanted(rom, disk) == 0
    assert planning.space_wanted(private, memory) == MIB
    assert planning.memory_wanted(shared, None) == MIB
    assert planning.memory_wanted(shared, disk) == 0
    assert planning.memory_wanted(private, disk) == MIB
    assert planning.memory_wanted(shared, memory) == MIB
    assert planning.memory_wanted(private, memory) == 2 * MIB


@pytest.mark.parametrize("nodes", [[0], [0, 1], [63], [100], [127]])
@pytest.mark.parametrize("policy", ["bind", "preferred", "interleave"])
def test_nodes(policy: str, nodes: list[int]) -> None:
    region = Region(HOST, spec(MIB, shared=False))
    try:
        arguments = (region.address, MIB, policy, nodes)
        expected = number_of(lambda: HOST.bind(*arguments))
        assert number_of(lambda: PlanningHost(HOST).bind(*arguments)) == expected
    finally:
        region.close()
