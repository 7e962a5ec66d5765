from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from memd.hostmem import capacity, libc
from memd.hostmem.capacity import CannotTell, HugePool
from memd.hostmem.cgroup import Group
from tests.conftest import need_sys

GIB = 1 << 30


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")
    return path


def test_memory() -> None:
    rows = capacity.meminfo()
    pages = os.sysconf("SC_PHYS_PAGES") * libc.PAGE_SIZE
    assert rows["MemTotal"] == pages
    assert rows["HugePages_Total"] < 1 << 30
    assert 0 < capacity.left_to_use() <= rows["MemTotal"] + rows["SwapTotal"]


def test_a_control_group_limits_it(tmp_path: Path) -> None:
    for used, left in ((51424, 48576), (104096, 0)):
        write(tmp_path / "memory.current", f"{used}\n")
        write(tmp_path / "memory.stat", "anon 0\n")
        write(tmp_path / "memory.swap.max", "0\n")
        write(tmp_path / "memory.swap.current", "0\n")
        assert capacity.left_to_use([Group(str(tmp_path), 100_000, 2)]) == left
    assert capacity.left_to_use([]) > GIB


@need_sys
def test_huge_page_sizes(tmp_path: Path) -> None:
    sizes = capacity.huge_page_sizes()
    assert sizes == sorted(sizes)
    if sizes:
        assert capacity.default_huge_page_size() in sizes
    none = str(tmp_path / "none")
    assert capacity.huge_page_sizes(none) == []
    assert capacity.huge_pool(2 << 20, none) is None


def test_a_pool_of_huge_pages(tmp_path: Path) -> None:
    place = tmp_path / "hugepages-2048kB"
    counts = {"nr": 9, "free": 5, "resv": 3, "surplus": 1, "nr_overcommit": 4}
    for name, count in counts.items():
        write(place / f"{name}_hugepages", f"{count}\n")
    pool = capacity.huge_pool(2 << 20, str(tmp_path))
    assert pool == HugePool(9, 5, 3, 1, 4)
    assert (pool.left, pool.extra) == (2, 3)
    assert capacity.huge_page_sizes(str(tmp_path)) == [2 << 20]


@pytest.fixture
def limits() -> Iterator[None]:
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_FSIZE)
    before = [resource.getrlimit(kind) for kind in kinds]
    yield
    for kind, limit in zip(kinds, before, strict=True):
        resource.setrlimit(kind, limit)


def test_limits_of_the_process(limits: None) -> None:
    assert capacity.largest_file() == (1 << 63) - 1
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (1 << 30, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    )
    assert capacity.largest_file() == 1 << 30


@need_sys
def test_cpus() -> None:
    assert os.sched_getaffinity(0) <= capacity.online_cpus()


def test_what_is_not_mounted() -> None:
    with pytest.raises(CannotTell, match="/proc may not be mounted"):
        capacity.rows_of("/proc/nothing")


def test_merging() -> None:
    path = Path("/sys/kernel/mm/ksm/run")
    assert capacity.merging() == (path.exists() and path.read_text() == "1\n")
