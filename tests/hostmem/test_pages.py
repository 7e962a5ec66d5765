from __future__ import annotations

import fcntl
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memd.hostmem import files, pages
from memd.hostmem.access import read, write
from memd.hostmem.pages import FILE, HUGE, PRESENT, ZERO, PageMap, Run
from memd.hostmem.region import Region
from tests.hostmem.made import HOST, MIB, PAGE, made, memfd


def runs(region: Region) -> list[Run]:
    with PageMap() as map:
        return list(map.runs(region.address, region.length))


@pytest.fixture(params=["scanned", "read"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to ask: of Linux 6.7 and later, and of what was before."""
    if request.param == "read":

        def refuse(*_: object) -> int:
            raise OSError(25, "Inappropriate ioctl for device")

        monkeypatch.setattr(fcntl, "ioctl", refuse)
    return str(request.param)


def test_nothing_touched(way: str) -> None:
    with made() as region:
        assert runs(region) == []


def test_kinds(way: str) -> None:
    with memfd() as shared, made(shared.fd, shared=False) as private:
        write(shared, "m", 0, b"x" * 4 * PAGE)
        write(private, "m", PAGE, b"y")
        assert runs(shared) == [(0, 4 * PAGE, PRESENT | FILE)]
        found = runs(private)
        assert (PAGE, 2 * PAGE, PRESENT) in found
        assert all(kinds == PRESENT | FILE for start, _, kinds in found if start != PAGE)
        # The descriptor was lent.
        private.disown()


def test_few_runs_are_told_at_once(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_RUNS", 2)
    with made() as region, PageMap() as map:
        expected = []
        for page in (1, 5, 7):
            write(region, "m", page * PAGE, b"x")
            expected.append((page * PAGE, (page + 1) * PAGE, PRESENT))
            told = map.few(region.address, region.length, PRESENT | ZERO)
            assert told == (expected if way == "scanned" and page < 7 else None)


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
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pages, "_RUNS", 3)
            patch.setattr(pages, "_ENTRIES", 10)
            scanned = runs(region)
            with PageMap() as map:
                map._scans = False
                read_singly = list(map.runs(region.address, region.length))
    for found in (scanned, read_singly):
        assert all(kinds == PRESENT for _, _, kinds in found)
        assert {
            page for start, end, _ in found for page in range(start // PAGE, end // PAGE)
        } == touched


def test_other_failures_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    with made() as region, pytest.raises(PermissionError):
        runs(region)
