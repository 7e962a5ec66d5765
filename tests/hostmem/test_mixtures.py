"""What memory takes, compared with each page looked at by itself."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memd.hostmem import libc, picture
from memd.hostmem.access import read, write
from memd.hostmem.pages import PageMap
from memd.hostmem.region import Region
from memd.hostmem.usage import Taken, taken, usage
from tests.hostmem.made import MIB, PAGE, made, memfd, of_file

SIZE = 8 * MIB
PAGES = SIZE // PAGE
MADV_PAGEOUT = 21

# Of an entry of pagemap (proc_pid_pagemap(5)), and of kpageflags.
PRESENT, SWAPPED, FILE = 1 << 63, 1 << 62, 1 << 61
NUMBER = (1 << 55) - 1
ZERO_PAGE = 1 << 24


def looked_at(region: Region, start: int, length: int) -> Taken:
    """Page by page: which are there, whose they are, and which are the page of zeroes."""
    resident = own = swapped = 0
    # Without buffers, which are a thousand entries each.
    with open("/proc/self/pagemap", "rb", 0) as map, open("/proc/kpageflags", "rb", 0) as flags:
        map.seek((region.address + start) // PAGE * 8)
        entries = struct.unpack(f"{length // PAGE}Q", map.read(length // PAGE * 8))
        for entry in entries:
            if entry & PRESENT:
                flags.seek((entry & NUMBER) * 8)
                (kind,) = struct.unpack("Q", flags.read(8))
                if kind & ZERO_PAGE:
                    continue
                resident += PAGE
                own += 0 if entry & FILE else PAGE
            elif entry & SWAPPED and not entry & FILE:
                swapped += PAGE
    if region.shared:
        # A file's are there whether they are mapped or not.
        resident, out = (n * PAGE for n in libc.cachestat(region.fd, region.offset + start, length))
        return Taken(resident, 0, out, 0)
    return Taken(resident, own, swapped, 0)


def of_memfd() -> AbstractContextManager[Region]:
    return memfd(SIZE)


def of_ram() -> AbstractContextManager[Region]:
    return made(size=SIZE)


def discard(region: Region, _id: str, at: int, length: int) -> None:
    advice = libc.MADV_REMOVE if region.shared else libc.MADV_DONTNEED
    libc.madvise(region.address + at, length, advice)


def page_out(region: Region, _id: str, at: int, length: int) -> None:
    """Where there is swap, these are swapped out."""
    libc.madvise(region.address + at, length, MADV_PAGEOUT)


def fill(region: Region, id: str, at: int, length: int) -> None:
    write(region, id, at, b"x" * length)


def fill_file(region: Region, id: str, at: int, length: int) -> None:
    """Of shared memory, these are not mapped then."""
    if region.shared:
        os.pwrite(region.fd, b"y" * length, at)
    else:
        fill(region, id, at, length)


ACTS = (fill, fill, read, discard, page_out, fill_file)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(ACTS),
        st.integers(0, PAGES - 1),
        st.one_of(st.integers(1, 4), st.integers(1, PAGES)),
    ),
    min_size=1,
    max_size=12,
)
needs_root = pytest.mark.skipif(
    not os.access("/proc/kpageflags", os.R_OK), reason="/proc/kpageflags is not to be read"
)


def compare(
    region: Region, steps: list[tuple[Callable[..., object], int, int]], **how: int
) -> None:
    for act, page, count in steps:
        act(region, "m", page * PAGE, min(count, PAGES - page) * PAGE)
    with PageMap(**how) as map:  # type: ignore[arg-type]
        whole = taken(region, map, 0, SIZE)
        assert whole == looked_at(region, 0, SIZE)
    with PageMap(scans=False) as map:
        # Without the scan, the page of zeroes is told from no other.
        assert taken(region, map, 0, SIZE).resident >= whole.resident
    (found,) = usage([region])
    assert found[:3] == whole[:3]
    for first, size in ((PAGE, SIZE // 16), (0, 3 * PAGE), (0, SIZE)):
        for number, cell in enumerate(picture.cells(region, first, SIZE - first, size)):
            at = first + number * size
            assert cell._replace(huge=0) == looked_at(region, at, min(size, SIZE - at))
            assert cell.huge <= cell.resident


@needs_root
@pytest.mark.parametrize("make", [of_ram, of_memfd])
@given(steps=STEPS)
@settings(max_examples=25, deadline=None)
def test_any_mixture(make: Callable[[], AbstractContextManager[Region]], steps: object) -> None:
    with make() as region:
        compare(region, steps)  # type: ignore[arg-type]


@needs_root
@given(steps=STEPS)
@settings(max_examples=25, deadline=None)
def test_any_mixture_in_more_runs_than_are_told_at_once(steps: object) -> None:
    for make in (of_ram, of_memfd):
        with make() as region:
            compare(region, steps, runs=2)  # type: ignore[arg-type]


@needs_root
@given(steps=STEPS)
@settings(max_examples=25, deadline=None)
def test_any_mixture_of_huge_pages(steps: object) -> None:
    size = 2 * MIB
    with made(size=SIZE + size) as outer:
        # Whole huge pages fit from here on.
        outer.address += -outer.address % size
        outer.length = SIZE
        libc.madvise(outer.address, SIZE, libc.MADV_HUGEPAGE)
        compare(outer, steps)  # type: ignore[arg-type]


@needs_root
@given(steps=STEPS, there=st.sets(st.integers(0, PAGES - 1), max_size=20))
@settings(max_examples=25, deadline=None)
def test_any_mixture_of_a_copy(
    tmp_path_factory: pytest.TempPathFactory, steps: object, there: set[int]
) -> None:
    path = Path(tmp_path_factory.mktemp("copy")) / "file"
    with path.open("wb") as file:
        file.truncate(SIZE)
        for page in there:
            file.seek(page * PAGE)
            file.write(b"f")
    with of_file(path, SIZE, readonly=True) as region:
        compare(region, steps)  # type: ignore[arg-type]


def test_all_of_a_file_in_memory() -> None:
    """Its blocks tell; what it has beyond its mapping is not counted."""
    with memfd(SIZE) as region:
        for length in (0, PAGE, SIZE):
            os.posix_fallocate(region.fd, 0, length or 1)
            libc.allocate(region.fd, SIZE, 16 * PAGE)
            (found,) = usage([region])
            resident = max(length, PAGE)
            assert found[:3] == (resident, 0, 0)
            cells = picture.cells(region, 0, SIZE, SIZE // 4)
            assert sum(cell.resident for cell in cells) == resident
        os.ftruncate(region.fd, 3 * PAGE)
        assert usage([region])[0].resident == 3 * PAGE
