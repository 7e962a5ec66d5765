from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from memd.hostmem import files
from memd.hostmem.access import read, write
from memd.hostmem.discard import check, discard
from memd.hostmem.usage import usage
from tests.backends.doing import refusal
from tests.hostmem.made import HOST, MIB, PAGE, failing, made, memfd, of_file

HUGE = 2 * MIB


def test_private_memory_is_dropped() -> None:
    with made() as region:
        write(region, "m", 0, b"x" * 8 * PAGE)
        discard(region, "m", PAGE, 2 * PAGE)
        assert read(region, "m", 0, 4 * PAGE) == b"x" * PAGE + bytes(2 * PAGE) + b"x" * PAGE
        assert usage([region])[0].private_dirty == 6 * PAGE


@pytest.mark.parametrize("shared", [False, True])
def test_a_file_gets_a_hole(tmp_path: Path, shared: bool) -> None:
    """Also behind a private mapping, and its copies go too; the rest stays as it was."""
    path = tmp_path / "file"
    path.write_bytes(b"f" * MIB)
    before = path.stat().st_blocks
    with of_file(path, size=MIB // 2, offset=MIB // 4, shared=shared) as region:
        write(region, "m", 0, b"x" * 8 * PAGE)
        discard(region, "m", 4 * PAGE, 32 * PAGE)
        # Before it is looked at: a hole of a file in memory gets pages by that.
        assert (before - path.stat().st_blocks) * 512 == 32 * PAGE
        expected = b"x" * 4 * PAGE + bytes(32 * PAGE) + b"f" * PAGE
        assert read(region, "m", 0, 37 * PAGE) == expected
    held = path.read_bytes()
    assert len(held) == MIB
    start = MIB // 4 + 4 * PAGE
    assert held[start : start + 32 * PAGE] == bytes(32 * PAGE)
    assert held[start - PAGE : start] == (b"x" if shared else b"f") * PAGE


def test_a_memfd_gets_a_hole() -> None:
    with memfd() as region:
        write(region, "m", 0, b"x" * MIB)
        discard(region, "m", 0, MIB - PAGE)
        assert os.fstat(region.fd).st_blocks * 512 == PAGE
        assert usage([region])[0].resident == PAGE


@pytest.mark.parametrize("rom", [False, True])
def test_a_read_only_file_is_refused(tmp_path: Path, rom: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"f" * MIB)
    with of_file(path, readonly=True, rom=rom) as region:
        assert (
            refusal(lambda: check(region, "m", 0, PAGE))
            == "cannot discard memory of 'm': its file is opened read-only"
        )


def test_whole_pages_within_the_region() -> None:
    with made() as region:
        check(region, "m", 0, MIB)
        check(region, "m", MIB, 0)
        discard(region, "m", MIB, 0)
        for offset, length, parameter in ((1, PAGE, "offset"), (0, 1, "length")):
            text = refusal(lambda a=offset, b=length: check(region, "m", a, b))  # type: ignore[misc]
            assert text == (
                f"Parameter '{parameter}' must be a multiple of the page size 0x1000 of 'm'"
            )
        for offset, length in ((0, MIB + PAGE), ((1 << 64) - PAGE, 2 * PAGE)):
            text = refusal(lambda a=offset, b=length: check(region, "m", a, b))  # type: ignore[misc]
            assert text.endswith("not within the 1048576 bytes of 'm'")


@pytest.mark.parametrize("shared", [False, True])
def test_huge_pages(hugepages: Callable[[int], None], shared: bool) -> None:
    hugepages(4)
    backing = files.memfd(HOST, "m", 3 * HUGE, hugetlb=True, hugetlbsize=HUGE, seal=True)
    with made(backing.take(), 3 * HUGE, shared=shared, page_size=HUGE) as region:
        write(region, "m", HUGE, b"x")
        write(region, "m", 2 * HUGE, b"y")
        assert "page size 0x200000" in refusal(lambda: check(region, "m", PAGE, HUGE))
        check(region, "m", HUGE, HUGE)
        discard(region, "m", HUGE, HUGE)
        assert usage([region])[0].resident == HUGE
        assert read(region, "m", 2 * HUGE, 1) == b"y"
        assert read(region, "m", HUGE, 1) == b"\0"


def test_a_file_system_that_makes_no_holes(tmp_path: Path) -> None:
    with of_file(tmp_path / "file", shared=True) as region:
        region.host = failing(fallocate=errno.EOPNOTSUPP)
        assert (
            refusal(lambda: discard(region, "m", 0, PAGE))
            == "cannot discard memory of 'm': Operation not supported"
        )


def test_copies_that_can_not_be_dropped_are_cleared(tmp_path: Path) -> None:
    """The file has its hole by then, so an error would not be true."""
    path = tmp_path / "file"
    path.write_bytes(b"f" * MIB)
    with of_file(path) as region, made() as anonymous:
        for each in (region, anonymous):
            write(each, "m", 0, b"x" * 8 * PAGE)
            each.host = failing(madvise=errno.EINVAL)
        discard(region, "m", PAGE, 32 * PAGE)
        assert read(region, "m", 0, 34 * PAGE) == b"x" * PAGE + bytes(32 * PAGE) + b"f" * PAGE
        text = refusal(lambda: discard(anonymous, "m", 0, PAGE))
        assert text == "cannot discard memory of 'm': Invalid argument"
        assert read(anonymous, "m", 0, PAGE) == b"x" * PAGE
