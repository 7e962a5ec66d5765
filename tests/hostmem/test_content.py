"""What a region holds is told whole, and telling it makes no pages."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memd.hostmem import export, files, libc
from memd.hostmem.access import read, write
from memd.hostmem.opened import MEMFD
from memd.hostmem.pages import ZERO, PageMap
from memd.hostmem.region import Region
from memd.hostmem.save import Saving, save
from memd.hostmem.usage import usage
from tests.backends.doing import refusal
from tests.conftest import NOT_HERE
from tests.hostmem.made import HOST, MIB, PAGE, made, memfd, of_file


def zero_pages(region: Region) -> int:
    """How many of its pages are the kernel's page of zeroes."""
    with PageMap() as pages:
        found = pages.runs(region.address, region.length)
        return sum(end - start for start, end, kinds in found if kinds & ZERO) // PAGE


@pytest.mark.usefixtures("merging")
def test_zeroes_that_were_written_and_merged(tmp_path: Path) -> None:
    """In a mapping of a file they are content, though the kernel shows no page of their own."""
    path = tmp_path / "file"
    path.write_bytes(b"f" * MIB)
    with of_file(path, readonly=True) as region:
        region.prepare(merge=True, dump=True)
        write(region, "m", 4 * PAGE, bytes(8 * PAGE))
        deadline = time.monotonic() + 10
        while zero_pages(region) < 8:
            if time.monotonic() > deadline:
                pytest.skip(f"{NOT_HERE}a kernel that merges pages of zeroes")
            time.sleep(0.01)
        use = usage([region])[0]
        assert (use.private_dirty, use.resident) == (8 * PAGE, 8 * PAGE)
        assert read(region, "m", 3 * PAGE, 10 * PAGE) == b"f" * PAGE + bytes(8 * PAGE) + b"f" * PAGE
        save(region, "m", str(tmp_path / "saved"), Saving())
    expected = b"f" * 4 * PAGE + bytes(8 * PAGE) + b"f" * (MIB - 12 * PAGE)
    assert (tmp_path / "saved").read_bytes() == expected


@pytest.mark.parametrize("shared", [True, False])
def test_reading_holes_makes_no_pages(shared: bool) -> None:
    with memfd(shared=shared) as region:
        write(region, "m", 5 * PAGE + 7, b"x")
        assert read(region, "m", 0, MIB) == bytes(5 * PAGE + 7) + b"x" + bytes(MIB - 5 * PAGE - 8)
        held = os.fstat(region.fd).st_blocks * 512
        assert held == PAGE
        assert read(region, "m", 5 * PAGE + 6, 3) == b"\0x\0"
        assert read(region, "m", PAGE - 1, 4 * PAGE + 9) == bytes(4 * PAGE + 8) + b"x"


def test_reading_what_can_only_be_mapped_makes_no_pages() -> None:
    """As a guest_memfd, whose holes would be made by touching them."""
    with memfd() as region:
        region.opened = MEMFD._replace(size=-1)
        write(region, "m", 5 * PAGE + 7, b"x")
        assert read(region, "m", 0, MIB) == bytes(5 * PAGE + 7) + b"x" + bytes(MIB - 5 * PAGE - 8)
        assert read(region, "m", PAGE - 1, 4 * PAGE + 9) == bytes(4 * PAGE + 8) + b"x"
        assert os.fstat(region.fd).st_blocks * 512 == PAGE


def test_a_file_that_ends_within_a_page(tmp_path: Path) -> None:
    """Its last page is mapped whole, and ends in zeroes."""
    path = tmp_path / "file"
    with of_file(path, shared=True) as region:
        write(region, "m", 0, b"x" * 3 * PAGE)
        os.truncate(path, PAGE + 10)
        assert read(region, "m", 0, 2 * PAGE) == b"x" * (PAGE + 10) + bytes(PAGE - 10)
        assert "truncated to 4106 bytes" in refusal(lambda: read(region, "m", PAGE, PAGE + 1))


# What other file systems and devices do


@pytest.fixture
def overlaid(directory: Path, mount: Callable[..., None]) -> Path:
    """An overlayfs on which a file is only in the lower layer."""
    for name in ("lower", "upper", "work", "merged"):
        (directory / name).mkdir()
    (directory / "lower/file").write_bytes(b"f" * MIB)
    layers = ",".join(
        f"{name}dir={directory}/{where}"
        for name, where in (("lower", "lower"), ("upper", "upper"), ("work", "work"))
    )
    mount("overlay", directory / "merged", layers)
    return directory / "merged/file"


def test_an_overlaid_file_is_counted(overlaid: Path) -> None:
    with of_file(overlaid, shared=True) as region:
        assert libc.madvise(region.address, MIB, libc.MADV_POPULATE_WRITE) == 0
        assert usage([region])[0].resident == MIB


@pytest.mark.parametrize("shared", [True, False])
def test_an_overlaid_file_that_is_copied_up(overlaid: Path, tmp_path: Path, shared: bool) -> None:
    """What was mapped stays mapped: the file of the lower layer."""
    with of_file(overlaid, readonly=True, shared=shared, rom=shared) as region:
        assert export.path_of(region) == str(overlaid)
        with overlaid.open("r+b") as file:
            file.write(b"new")
        if not shared:
            write(region, "m", PAGE, b"own")
        expected = bytearray(b"f" * MIB)
        if not shared:
            expected[PAGE : PAGE + 3] = b"own"
        assert read(region, "m", 0, MIB) == expected
        save(region, "m", str(tmp_path / "saved"), Saving())
        assert (tmp_path / "saved").read_bytes() == expected
        assert export.path_of(region) == ""


@contextmanager
def block_device(content: Path) -> Iterator[str]:
    """A loop device of a file."""
    command = ["losetup", "--show", "-f", str(content)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as lack:
        pytest.skip(f"{NOT_HERE}root and loop devices: {lack}")
    device = done.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


@pytest.mark.parametrize("shared", [True, False])
def test_a_block_device(tmp_path: Path, shared: bool) -> None:
    (tmp_path / "disk").write_bytes(b"d" * 2 * MIB)
    with (
        block_device(tmp_path / "disk") as device,
        of_file(Path(device), offset=PAGE, shared=shared) as region,
    ):
        write(region, "m", 5, b"x")
        expected = b"d" * 5 + b"x" + b"d" * (MIB - 6)
        assert read(region, "m", 0, MIB) == expected
        save(region, "m", str(tmp_path / "saved"), Saving())
        assert (tmp_path / "saved").read_bytes() == expected


def test_a_block_device_that_fails(tmp_path: Path) -> None:
    """It is not a truncated file."""
    disk = tmp_path / "disk"
    disk.write_bytes(b"d" * 2 * MIB)
    with block_device(disk) as device:
        os.truncate(disk, 0)
        with of_file(Path(device), shared=True) as region:
            text = refusal(lambda: read(region, "m", MIB // 2, PAGE))
            assert text == f"cannot read 'm' at offset {MIB // 2}: Input/output error"
            # Where its pages are not read, but only mapped.
            text = refusal(lambda: write(region, "m", MIB // 2, b"x"))
            assert text.startswith(f"cannot write 'm' at offset {MIB // 2}: ")
            assert "truncated" not in text
            text = refusal(lambda: save(region, "m", str(tmp_path / "saved"), Saving()))
            assert text == f"cannot save 'm' to '{tmp_path}/saved': Input/output error"


# Saving onto huge pages


def test_saving_onto_hugetlbfs(
    directory: Path, mount: Callable[..., None], hugepages: Callable[[int], None]
) -> None:
    hugepages(6)
    where = directory / "huge"
    where.mkdir()
    mount("hugetlbfs", where, "pagesize=2M")
    page = 2 * MIB
    with made(size=3 * page) as region:
        write(region, "m", page + 5, b"x")
        save(region, "m", str(where / "saved"), Saving())
        assert (where / "saved").stat().st_size == 3 * page
        assert (where / "saved").stat().st_blocks * 512 == page
        fd = os.open(where / "saved", os.O_RDWR | os.O_CLOEXEC)
        with made(fd, 3 * page, shared=True, page_size=page) as again:
            assert read(again, "m", page, 7) == b"\0\0\0\0\0x\0"
            write(again, "m", 0, b"y")
            os.unlink(where / "saved")
            save(again, "m", str(where / "copy"), Saving())
        os.unlink(where / "copy")
        # More than there are.
        for offset in range(0, 3 * page, page):
            write(region, "m", offset, b"x")
        hugepages(2)
        text = refusal(lambda: save(region, "m", str(where / "saved"), Saving()))
        assert text == f"cannot save 'm' to '{where}/saved': Cannot allocate memory"
        assert os.listdir(where) == []


def test_private_huge_pages_onto_hugetlbfs(
    directory: Path, mount: Callable[..., None], hugepages: Callable[[int], None]
) -> None:
    hugepages(4)
    page = 2 * MIB
    backing = files.memfd(HOST, "m", page, hugetlb=True, hugetlbsize=page, seal=True)
    where = directory / "huge"
    where.mkdir()
    mount("hugetlbfs", where, "pagesize=2M")
    with made(backing.take(), page, page_size=page) as region:
        write(region, "m", 9, b"x")
        save(region, "m", str(where / "saved"), Saving())
        with made(os.open(where / "saved", os.O_RDONLY), page, rom=True, page_size=page) as saved:
            assert read(saved, "m", 8, 3) == b"\0x\0"
