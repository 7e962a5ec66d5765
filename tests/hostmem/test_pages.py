from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memd.hostmem import files
from memd.hostmem.access import read, write
from memd.hostmem.pages import FILE, HUGE, PRESENT, ZERO, PageMap, Run
from memd.hostmem.region import Region
from tests.hostmem.made import HOST, MIB, PAGE, made, memfd


def runs(region: Region, **how: int) -> list[Run]:
    with PageMap(**how) as map:  # type: ignore[arg-type]
        return list(map.runs(region.address, region.length))


both = pytest.mark.parametrize("scans", [True, False], ids=["scanned", "read"])
"""Both ways to ask: of Linux 6.7 and later, and of what was before."""


@both
def test_nothing_touched(scans: bool) -> None:
    with made() as region:
        assert runs(region, scans=scans) == []


@both
def test_kinds(scans: bool) -> None:
    with memfd() as shared, made(shared.fd, shared=False) as private:
        write(shared, "m", 0, b"x" * 4 * PAGE)
        write(private, "m", PAGE, b"y")
        assert runs(shared, scans=scans) == [(0, 4 * PAGE, PRESENT | FILE)]
        found = runs(private, scans=scans)
        assert (PAGE, 2 * PAGE, PRESENT) in found
        assert all(kinds == PRESENT | FILE for start, _, kinds in found if start != PAGE)
        # The descriptor was lent.
        private.disown()


@both
def test_few_runs_are_told_at_once(scans: bool) -> None:
    with made() as region, PageMap(2, scans=scans) as map:
        expected = []
        for page in (1, 5, 7):
            write(region, "m", page * PAGE, b"x")
            expected.append((page * PAGE, (page + 1) * PAGE, PRESENT))
            told = map.few(region.address, region.length, PRESENT | ZERO)
            assert told == (expected if scans and page < 7 else None)


def test_the_page_of_zeroes_takes_no_memory() -> None:
    with made() as region:
        read(region, "m", 5 * PAGE, 1)
        write(region, "m", 7 * PAGE, b"x")
        assert runs(region) == [
            (5 * PAGE, 6 * PAGE, PRESENT | ZERO),
            (7 * PAGE, 8 * PAGE, PRESENT),
        ]


def test_huge_pages_are_told_apart_on_request(hugepages: Callable[[int], None]) -> None:
    hugepages(1)
    size = 2 * MIB
    backing = files.memfd(HOST, "m", size, hugetlb=True, hugetlbsize=size, seal=True)
    with made(backing.take(), size, shared=True, page_size=size) as region, PageMap() as map:
        write(region, "m", 0, b"x")
        ((start, end, kinds),) = map.runs(region.address, size)
        assert (start, end, kinds & HUGE) == (0, size, 0)
        ((start, end, kinds),) = map.runs(region.address, size, kinds=HUGE)
        # Before Linux 6.7 the kernel does not say.
        assert (start, end) == (0, size)
        assert kinds & HUGE or not map._scans


@given(st.sets(st.integers(0, MIB // PAGE - 1)))
@settings(max_examples=25, deadline=None)
def test_every_page(touched: set[int]) -> None:
    """The two ways agree, however few answers come at once."""
    with made() as region:
        for page in touched:
            write(region, "m", page * PAGE, b"x")
        scanned = runs(region, runs=3)
        read_singly = runs(region, entries=10, scans=False)
    for found in (scanned, read_singly):
        assert all(kinds == PRESENT for _, _, kinds in found)
        assert {
            page for start, end, _ in found for page in range(start // PAGE, end // PAGE)
        } == touched


def test_other_failures_are_raised() -> None:
    with PageMap() as map, pytest.raises(OSError, match="Bad address"):
        list(map.runs(1 << 62, PAGE))
