"""Control groups: which there are, what they allow, what is charged to them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from memd.hostmem import cgroup, libc
from memd.hostmem.region import Region
from memd.hostmem.spec import MapSpec

MIB = 1 << 20

V1 = "23 29 0:20 / {top}/memory rw - cgroup cgroup rw,memory"
V2 = "24 29 0:21 / {top}/unified rw - cgroup2 cgroup2 rw"
CONTAINER = "24 29 0:21 /pod/a {top}/unified rw - cgroup2 cgroup2 rw"


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose files stand for those of /proc and of the control groups."""

    def text(path: str) -> str:
        inside = tmp_path / Path(path).name if path.startswith("/proc") else Path(path)
        return inside.read_text()

    monkeypatch.setattr(cgroup, "_text", text)
    return tmp_path


def describe(system: Path, memberships: str, *mounts: str) -> None:
    (system / "cgroup").write_text(memberships)
    rows = [mount.format(top=system) for mount in mounts]
    (system / "mountinfo").write_text("\n".join(["1 1 0:1 / / rw - ext4 /dev/a rw", *rows, ""]))


def make_group(path: Path, files: dict[str, str]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name).write_text(text)


def test_version_1(system: Path) -> None:
    describe(system, "4:memory:/a/b\n1:cpu:/\n0::/\n", V1)
    make_group(system / "memory", {"memory.limit_in_bytes": "9223372036854771712\n"})
    make_group(system / "memory/a", {"memory.limit_in_bytes": "1000\n"})
    own = {
        "memory.limit_in_bytes": "5000\n",
        "memory.usage_in_bytes": "3000\n",
        "memory.stat": "inactive_file 9\ntotal_inactive_file 100\ntotal_active_file 20\n",
    }
    make_group(system / "memory/a/b", own)
    found = cgroup.groups()
    assert [each.limit for each in found] == [5000, 1000]
    # Of the group above nothing else is known: it limits nothing.
    assert cgroup.room(found) == 2120


@pytest.mark.parametrize(("member", "mount"), [("/pod/a", V2), ("/pod/a", CONTAINER), ("/", V2)])
def test_version_2(system: Path, member: str, mount: str) -> None:
    describe(system, f"0::{member}\n", mount)
    where = system / "unified" / ("" if mount == CONTAINER else member.strip("/"))
    own = {
        "memory.max": "5000\n",
        "memory.current": "6000\n",
        "memory.stat": "anon 5\ninactive_file 100\nactive_file 20\n",
    }
    make_group(where, own)
    assert cgroup.room(cgroup.groups()) == -880
    (where / "memory.max").write_text("max\n")
    assert cgroup.groups() == []


def test_none_that_can_be_seen(system: Path) -> None:
    assert cgroup.groups() == []
    describe(system, "0::/../elsewhere\n", V2)
    assert cgroup.groups() == []
    assert cgroup.room([]) is None


def test_this_machine() -> None:
    left = cgroup.room(cgroup.groups())
    assert left is None or left > 0


def spec(*, shared: bool = False) -> MapSpec:
    return MapSpec(
        size=MIB, length=MIB, page_size=libc.PAGE_SIZE, align=0, shared=shared, reserve=True
    )


def test_what_is_surely_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    region = Region(spec())
    try:
        assert cgroup.takes_memory(region)
        monkeypatch.setattr(cgroup, "swap_left", lambda: 0)
        for left, fits in ((None, True), (MIB + 10, True), (MIB + 9, False)):
            monkeypatch.setattr(cgroup, "room", lambda _groups, left=left: left)
            assert cgroup.fits([], region, 0, MIB, 10) is fits
        # Half of it is there already.
        assert libc.madvise(region.address, MIB // 2, libc.MADV_POPULATE_WRITE) == 0
        assert cgroup.fits([], region, 0, MIB, 10)
        monkeypatch.setattr(cgroup, "room", lambda _groups: MIB // 2)
        assert not cgroup.fits([], region, 0, MIB, 10)
        assert cgroup.fits([], region, 0, MIB // 2, 10)
        monkeypatch.setattr(cgroup, "swap_left", lambda: 10)
        assert cgroup.fits([], region, 0, MIB, 10)
    finally:
        region.close()


def test_pages_of_a_file_on_a_disk_are_not_charged_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    for kind, charged in ((libc.TMPFS_MAGIC, True), (0xEF53, False)):
        monkeypatch.setattr(libc, "file_system_type", lambda _fd, kind=kind: kind)
        for shared in (True, False):
            path.write_bytes(bytes(MIB))
            with path.open("r+b") as file:
                region = Region(spec(shared=shared), os.dup(file.fileno()))
            assert cgroup.takes_memory(region) is (charged or not shared)
            region.close()
