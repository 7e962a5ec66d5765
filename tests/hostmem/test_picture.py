from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from memd.hostmem import files, libc, numa, picture
from memd.hostmem.access import write
from memd.hostmem.usage import Taken
from tests.conftest import NOT_HERE, need_sys
from tests.hostmem.made import HOST, MIB, PAGE, SwappingHost, made, memfd, of_file

HUGE = 2 * MIB
NOTHING = Taken(0, 0, 0, 0)


def test_the_size_of_a_part() -> None:
    with made() as region:
        assert picture.cell_size(region, MIB, 256) == PAGE
        assert picture.cell_size(region, MIB, 4096) == PAGE
        assert picture.cell_size(region, MIB, 255) == 2 * PAGE
        assert picture.cell_size(region, MIB, 1) == MIB
        assert picture.cell_size(region, 0, 1) == PAGE


def test_private_memory() -> None:
    with made() as region:
        write(region, "m", 3 * PAGE, b"x" * 2 * PAGE)
        found = picture.cells(region, 0, MIB, MIB // 64)
        assert found[0] == Taken(PAGE, PAGE, 0, 0)
        assert found[1] == Taken(PAGE, PAGE, 0, 0)
        assert found[2:] == [NOTHING] * 62


def test_the_last_part_is_what_is_left() -> None:
    with made() as region:
        write(region, "m", MIB - PAGE, b"x")
        found = picture.cells(region, MIB - 8 * PAGE, 8 * PAGE, 3 * PAGE)
        assert found == [NOTHING, NOTHING, Taken(PAGE, PAGE, 0, 0)]


def test_shared_memory_counts_what_others_touched() -> None:
    with memfd() as region:
        os.pwrite(region.fd, b"x" * PAGE, 2 * PAGE)
        assert picture.cells(region, 0, 4 * PAGE, PAGE) == [
            NOTHING,
            NOTHING,
            Taken(PAGE, 0, 0, 0),
            NOTHING,
        ]


def test_a_part_of_a_file() -> None:
    fd = os.memfd_create("test")
    os.ftruncate(fd, MIB)
    os.pwrite(fd, b"x", 3 * PAGE)
    with made(fd, MIB // 2, shared=True, offset=PAGE) as region:
        found = picture.cells(region, 0, 4 * PAGE, PAGE)
        assert [each.resident for each in found] == [0, 0, PAGE, 0]


def test_swapped_pages_of_shared_memory() -> None:
    host = SwappingHost(1, 2)
    with memfd(host=host) as region:
        assert picture.cells(region, PAGE, 8 * PAGE, 4 * PAGE) == [Taken(PAGE, 0, 2 * PAGE, 0)] * 2
    assert host.asked == [(PAGE, 4 * PAGE), (5 * PAGE, 4 * PAGE)]


@pytest.mark.parametrize("shared", [False, True])
def test_huge_pages(hugepages: Callable[[int], None], shared: bool) -> None:
    hugepages(4)
    backing = files.memfd(HOST, "m", 4 * HUGE, hugetlb=True, hugetlbsize=HUGE, seal=True)
    with made(backing.take(), 4 * HUGE, shared=shared, page_size=HUGE) as region:
        write(region, "m", HUGE, b"x")
        found = picture.cells(region, 0, 4 * HUGE, HUGE)
        own = 0 if shared else HUGE
        assert found == [NOTHING, Taken(HUGE, own, 0, HUGE), NOTHING, NOTHING]


@need_sys
def test_transparent_huge_pages() -> None:
    state = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(encoding="ascii")
    if "[never]" in state or tuple(map(int, os.uname().release.split(".")[:2])) < (6, 7):
        pytest.skip(f"{NOT_HERE}transparent huge pages that the kernel tells of")
    with made(size=4 * HUGE) as region:
        first = -region.address % HUGE
        libc.madvise(region.address, region.length, 14)
        write(region, "m", first, b"x" * PAGE)
        found = picture.cells(region, first, HUGE, HUGE)
        if found[0].resident == PAGE:
            pytest.skip(f"{NOT_HERE}a free huge page")
        assert found == [Taken(HUGE, HUGE, 0, HUGE)]


def test_mapping(tmp_path: Path) -> None:
    path = tmp_path / "a file"
    with of_file(path, readonly=True) as region:
        (row,) = picture.mapping(region)
        assert row.startswith(f"{region.address:x}-{region.address + MIB:x} rw-p 00000000 ")
        assert row.endswith(f" {path}")


def test_a_mapping_in_several_rows() -> None:
    with made() as region:
        try:
            numa.bind(region.address + 4 * PAGE, PAGE, "bind", [0])
        except OSError:
            pytest.skip(f"{NOT_HERE}NUMA")
        rows = picture.mapping(region)
        ends = [region.address + offset for offset in (0, 4 * PAGE, 5 * PAGE)]
        assert [int(row.split("-")[0], 16) for row in rows] == ends
