from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from memd.hostmem import files, libc, usage
from memd.hostmem.access import read, write
from memd.hostmem.host import Host
from memd.hostmem.opened import MEMFD
from memd.hostmem.usage import Usage, by_node, parse_numa_maps
from tests.hostmem.made import HOST, MIB, PAGE, SwappingHost, made, memfd, of_file
from tests.hostmem.smaps import row_of

HUGE = 2 * MIB


def one(region: object, **where: str) -> Usage:
    (found,) = usage.usage([region], **where)  # type: ignore[list-item]
    assert sum(size for _, size in found.nodes) == found.resident
    return found


def test_nothing_was_touched() -> None:
    with made() as region, memfd() as shared:
        assert one(region) == one(shared) == Usage(0, 0, 0, [])
        read(region, "m", 0, MIB)
        assert one(region) == Usage(0, 0, 0, []), "the page of zeroes takes nothing"


def test_private_memory() -> None:
    with made() as region:
        write(region, "m", 5 * PAGE, b"x")
        write(region, "m", 9 * PAGE, b"x" * 2 * PAGE)
        assert one(region)[:3] == (3 * PAGE, 3 * PAGE, 0)
        row = row_of(region.address)
        assert row is not None
        assert row.resident == 3 * PAGE


def test_copies_on_write_are_counted_to_the_page(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"f" * MIB)
    with of_file(path, readonly=True) as region:
        assert one(region).private_dirty == 0
        read(region, "m", 0, 8 * PAGE)
        assert one(region).private_dirty == 0
        for count in range(1, 4):
            write(region, "m", count * 16 * PAGE, b"x")
            assert one(region).private_dirty == count * PAGE
        assert one(region).resident == 3 * PAGE


def test_shared_memory_counts_what_others_touched() -> None:
    with memfd() as region:
        os.pwrite(region.fd, b"x" * 3 * PAGE, 2 * PAGE)
        assert one(region)[:3] == (3 * PAGE, 0, 0)
        write(region, "m", 0, b"x")
        assert one(region)[:3] == (4 * PAGE, 0, 0)


def test_a_part_of_a_file(tmp_path: Path) -> None:
    fd = os.memfd_create("test")
    os.ftruncate(fd, MIB)
    os.pwrite(fd, bytes(2 * PAGE), 0)
    with made(fd, MIB // 2, shared=True, offset=PAGE) as region:
        assert one(region).resident == PAGE


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("offset", [0, HUGE])
def test_huge_pages(hugepages: Callable[[int], None], shared: bool, offset: int) -> None:
    hugepages(4)
    backing = files.memfd(HOST, "m", 4 * HUGE, hugetlb=True, hugetlbsize=HUGE, seal=True)
    with made(
        backing.take(), 4 * HUGE - offset, shared=shared, offset=offset, page_size=HUGE
    ) as region:
        write(region, "m", HUGE, b"x")
        assert one(region)[:3] == (HUGE, 0 if shared else HUGE, 0)


@pytest.mark.parametrize(("number", "pages"), [(errno.ENOSYS, 4), (errno.EPERM, 1)])
def test_without_cachestat(number: int, pages: int) -> None:
    """Before Linux 6.5; and of somebody else's file, what this process has touched itself."""

    class Without(Host):
        def cachestat(self, fd: int, offset: int, length: int) -> tuple[int, int]:
            raise libc.os_error(number)

    with memfd(host=Without()) as region:
        os.pwrite(region.fd, b"x" * 3 * PAGE, 2 * PAGE)
        write(region, "m", 0, b"x")
        assert one(region)[:3] == (pages * PAGE, 0, 0)


def test_swapped_pages_of_shared_memory() -> None:
    """What of a file in memory is not in memory is swapped out; of a disk's file it is not."""
    with memfd(host=SwappingHost(3, 2)) as region:
        assert one(region)[:3] == (3 * PAGE, 0, 2 * PAGE)
        region.opened = MEMFD._replace(magic=0xEF53)
        assert one(region)[:3] == (3 * PAGE, 0, 0)


NUMA_MAPS = b"""\
55d4c0000000 default file=/usr/bin/python3 mapped=12 N0=12 kernelpagesize_kB=4
7f0000000000 bind:0-1 anon=5 dirty=5 N0=2 N1=3 kernelpagesize_kB=4
7f0000200000 default file=/memfd:N3=1 huge dirty=2 N1=2 kernelpagesize_kB=2048
7f0000800000 default
"""


def test_nodes_of_several_mappings() -> None:
    rows = parse_numa_maps(NUMA_MAPS)
    assert rows[1:] == [
        (0x7F0000000000, {0: 2 * 4096, 1: 3 * 4096}),
        (0x7F0000200000, {1: 2 * HUGE}),
        (0x7F0000800000, {}),
    ]

    class At:
        def __init__(self, address: int, length: int) -> None:
            self.address, self.length = address, length

    found = by_node(
        [At(0x7F0000000000, HUGE), At(0x7F0000000000, 4 * HUGE), At(0x7F0000800000, PAGE)],  # type: ignore[list-item]
        rows,
    )
    assert found == [
        [(0, 2 * 4096), (1, 3 * 4096)],
        [(0, 2 * 4096), (1, 3 * 4096 + 2 * HUGE)],
        [],
    ]


def test_a_machine_with_nodes(tmp_path: Path) -> None:
    """With more than one, the kernel is asked where a mapping's pages are."""
    nodes = tmp_path / "has_memory"
    with made() as region:
        write(region, "m", 0, b"x" * 3 * PAGE)
        nodes.write_text("0-1\n")
        assert one(region, where=str(tmp_path)).nodes == [(0, 3 * PAGE)]
        nodes.write_text("5\n")
        assert one(region, where=str(tmp_path)).nodes == [(5, 3 * PAGE)]
        nodes.unlink()
        assert one(region, where=str(tmp_path)).nodes == [(0, 3 * PAGE)]
