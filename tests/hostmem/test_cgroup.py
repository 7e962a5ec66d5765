"""Control groups: which there are, what they allow, what is charged to them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memd.hostmem import cgroup, content, libc
from memd.hostmem.opened import look
from memd.hostmem.populate import populate_range
from memd.hostmem.region import Region
from memd.hostmem.spec import MapSpec
from tests.conftest import NOT_HERE
from tests.hostmem.made import HOST

MIB = 1 << 20
PAGE = libc.PAGE_SIZE

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
    assert cgroup.memory_left(found) == 2120


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
    assert cgroup.memory_left(cgroup.groups()) == -880
    (where / "memory.max").write_text("max\n")
    assert cgroup.groups() == []


def test_none_that_can_be_seen(system: Path) -> None:
    assert cgroup.groups() == []
    describe(system, "0::/../elsewhere\n", V2)
    assert cgroup.groups() == []
    assert cgroup.memory_left([]) is None


def test_this_machine() -> None:
    left = cgroup.memory_left(cgroup.groups())
    assert left is None or left > 0


def spec(*, shared: bool = False) -> MapSpec:
    return MapSpec(
        size=MIB, length=MIB, page_size=libc.PAGE_SIZE, align=0, shared=shared, reserve=True
    )


def refused(region: Region, start: int = 0, length: int = MIB) -> bool:
    """Whether pages of a range are more than is allowed, each time asked anew."""
    cgroup._asked, cgroup._allowance = float("-inf"), 0
    try:
        with cgroup.making(region, start, length):
            return False
    except OSError as failed:
        return failed.errno == errno.ENOMEM


@pytest.fixture
def one_group(system: Path) -> Iterator[Callable[[int, int], None]]:
    """A group of which so much is left, and so much swap."""
    describe(system, "0::/a\n", V2)
    (system / "swappiness").write_text("60\n")

    def leave(memory: int, swap: int) -> None:
        files = {
            "memory.max": f"{1 << 30}\n",
            "memory.current": f"{(1 << 30) - memory - cgroup.MARGIN}\n",
            "memory.stat": "anon 0\n",
            "memory.swap.max": "max\n",
        }
        make_group(system / "unified/a", files)
        (system / "meminfo").write_text(f"SwapFree: {swap >> 10} kB\n")

    # What was asked of the machine's own groups, just before, does not count.
    cgroup._asked, cgroup._allowance = float("-inf"), 0
    yield leave
    cgroup._asked, cgroup._allowance = float("-inf"), 0


def test_what_is_surely_too_much(one_group: Callable[[int, int], None]) -> None:
    region = Region(HOST, spec())
    try:
        assert cgroup.takes_memory(region)
        for left, swap, too_much in ((MIB, 0, False), (MIB - 1024, 0, True), (0, MIB, False)):
            one_group(left, swap)
            assert refused(region) is too_much
        # Half of it is there already.
        one_group(MIB // 2, 0)
        assert libc.madvise(region.address, MIB // 2, libc.MADV_POPULATE_WRITE) == 0
        assert not refused(region)
        one_group(MIB // 2 - PAGE, 0)
        assert refused(region)
        assert not refused(region, 0, MIB // 2)
    finally:
        region.close()


def test_what_is_being_made_is_counted(one_group: Callable[[int, int], None]) -> None:
    """The kernel does not count it yet, and another thread may have begun with it."""
    one_group(MIB, 0)
    region, other = Region(HOST, spec()), Region(HOST, spec())
    try:
        with cgroup.making(region, 0, MIB // 2):
            assert not refused(other, 0, MIB // 2)
            assert refused(other, 0, MIB // 2 + PAGE)
        assert not refused(other)
    finally:
        region.close()
        other.close()


def test_reading_a_shared_mapping_of_zeroes_is_counted(
    one_group: Callable[[int, int], None],
) -> None:
    """Of /dev/zero, it makes pages; of a private one it does not."""
    for shared, too_much in ((True, True), (False, False)):
        fd = os.open("/dev/zero", os.O_RDWR | os.O_CLOEXEC)
        region = Region(HOST, spec(shared=shared), fd)
        try:
            cgroup._asked, cgroup._allowance = float("-inf"), 0
            one_group(0, 0)
            data = bytearray(MIB)
            expected = (0, errno.ENOMEM) if too_much else (MIB, errno.EFAULT)
            assert content.read(region, 0, data) == expected
            if too_much:
                assert libc.resident_pages(region.address, MIB) == 0
                with pytest.raises(OSError, match="Cannot allocate memory"):
                    list(content.pieces(region))
        finally:
            region.close()


def test_writing_to_a_file_in_memory_is_counted(one_group: Callable[[int, int], None]) -> None:
    """But for pages that it has; what is no such file is not, as a pipe."""
    one_group(0, 0)
    fd = os.memfd_create("test", os.MFD_CLOEXEC)
    read, write = os.pipe()
    try:
        try:
            libc.cachestat(fd, 0, PAGE)
        except OSError as lack:
            pytest.skip(f"{NOT_HERE}cachestat(2): {lack}")
        cgroup._asked, cgroup._allowance = float("-inf"), 0
        os.pwrite(fd, bytes(2 * PAGE), PAGE)
        for at, length, too_much in (
            (0, PAGE, True),
            (PAGE, 2 * PAGE, False),
            (PAGE, 3 * PAGE, True),
            (None, PAGE, True),
        ):
            if too_much:
                with pytest.raises(OSError, match="Cannot allocate"):
                    cgroup.writing(fd, length, at).__enter__()
            else:
                with cgroup.writing(fd, length, at):
                    pass
        os.lseek(fd, PAGE, os.SEEK_SET)
        with cgroup.writing(fd, PAGE), cgroup.writing(write, PAGE):
            pass
    finally:
        for each in (fd, read, write):
            os.close(each)


def test_a_part_of_a_region_is_populated(one_group: Callable[[int, int], None]) -> None:
    """As a virtio-mem device has it done."""
    region = Region(HOST, spec())
    try:
        one_group(0, 0)
        with pytest.raises(OSError, match="Cannot allocate memory"):
            populate_range(region, 0, MIB)
        assert libc.resident_pages(region.address, MIB) == 0
    finally:
        region.close()


def test_small_ones_are_counted_together(one_group: Callable[[int, int], None]) -> None:
    """Though not each of them asks how much is left."""
    one_group(MIB, 0)
    region = Region(HOST, spec())
    try:
        cgroup._asked, cgroup._allowance = float("-inf"), 0
        for page in range(MIB // PAGE):
            with cgroup.making(region, page * PAGE + 1, 1):
                pass
        one_group(0, 0)
        with pytest.raises(OSError, match="Cannot allocate"), cgroup.making(region, 0, 1):
            pass
    finally:
        region.close()


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"memory.swap.max": "max"}, 10 * MIB),
        ({"memory.swap.max": "0", "memory.swap.current": "0"}, 0),
        ({"memory.swap.max": str(3 * MIB), "memory.swap.current": str(MIB)}, 2 * MIB),
        ({}, 10 * MIB),
    ],
)
def test_swap_of_version_2(
    system: Path, one_group: Callable[[int, int], None], files: dict[str, str], left: int
) -> None:
    one_group(MIB, 10 * MIB)
    (system / "unified/a/memory.swap.max").unlink()
    make_group(system / "unified/a", files)
    assert cgroup.swap_left(cgroup.groups()) == left
    if files:
        (system / "swappiness").write_text("0\n")
        assert cgroup.swap_left(cgroup.groups()) == 0


@pytest.mark.parametrize(
    ("swappiness", "both", "left"), [(60, 5, 4), (60, 1, 0), (0, 5, 0), (60, 100, 10)]
)
def test_swap_of_version_1(system: Path, swappiness: int, both: int, left: int) -> None:
    """Its limit is on memory and swap together."""
    describe(system, "4:memory:/a\n", V1)
    (system / "meminfo").write_text(f"SwapFree: {10 << 10} kB\n")
    files = {
        "memory.limit_in_bytes": MIB,
        "memory.usage_in_bytes": MIB // 2,
        "memory.memsw.limit_in_bytes": both * MIB,
        "memory.memsw.usage_in_bytes": MIB // 2,
        "memory.swappiness": swappiness,
    }
    make_group(system / "memory/a", {name: f"{value}\n" for name, value in files.items()})
    assert cgroup.swap_left(cgroup.groups()) == left * MIB


def test_pages_of_a_file_on_a_disk_are_not_charged_for_good(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for kind, charged in ((libc.TMPFS_MAGIC, True), (0xEF53, False)):
        for shared in (True, False):
            path.write_bytes(bytes(MIB))
            with path.open("r+b") as file:
                fd = os.dup(file.fileno())
                region = Region(HOST, spec(shared=shared), fd, look(fd)._replace(magic=kind))
            assert cgroup.takes_memory(region) is (charged or not shared)
            region.close()


def test_huge_pages_that_groups_of_version_2_allow(system: Path) -> None:
    describe(system, "4:memory:/\n0::/a/b\n", V2)
    make_group(system / "unified/a", {"hugetlb.2MB.max": "max\n", "hugetlb.1GB.max": "0\n"})
    limits = {"hugetlb.2MB.max": f"{10 * MIB}\n", "hugetlb.2MB.current": f"{4 * MIB}\n"}
    make_group(system / "unified/a/b", limits)
    make_group(system / "unified/a", {"hugetlb.1GB.current": "0\n"})
    assert list(cgroup.huge_pages_left(2 * MIB)) == [3]
    assert list(cgroup.huge_pages_left(1 << 30)) == [0]
    assert list(cgroup.huge_pages_left(64 << 10)) == []
    (system / "cgroup").unlink()
    assert list(cgroup.huge_pages_left(2 * MIB)) == []
