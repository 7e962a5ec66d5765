from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memd.hostmem import libc, region
from memd.hostmem.host import Host, Unsupported
from memd.hostmem.region import ANONYMOUS_ALIGN, Region
from memd.hostmem.spec import READ, READ_WRITE, MapSpec
from tests.hostmem.made import HOST, StrictHost, anonymous
from tests.hostmem.smaps import Row, row_of, rows

PAGE = libc.PAGE_SIZE
MIB = 1 << 20


def spec(size: int = MIB, align: int = PAGE, **options: object) -> MapSpec:
    return MapSpec(size, size, PAGE, align)._replace(**options)  # type: ignore[arg-type]


@contextmanager
def file_of(size: int, readonly: bool = False) -> Iterator[int]:
    """A descriptor of a file without a name, given to a process that maps it."""
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(size)
        yield os.open(file.name, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)


def the_row(made: Region) -> Row:
    found = row_of(made.address)
    assert found is not None
    return found


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("protection", [READ, READ_WRITE])
@pytest.mark.parametrize("offset", [0, 4 * PAGE])
@pytest.mark.parametrize("align", [PAGE, 2 * MIB, 8 * MIB])
def test_a_file(align: int, offset: int, protection: int, shared: bool) -> None:
    with file_of(2 * MIB) as fd:
        made = Region(
            HOST, spec(align=align, offset=offset, protection=protection, shared=shared), fd
        )
    row = the_row(made)
    assert row.start % align == 0
    assert row.end - row.start == MIB
    assert row.offset == offset
    assert (
        row.permissions == f"r{'w' if protection == READ_WRITE else '-'}-{'s' if shared else 'p'}"
    )
    assert (made.shared, made.writable, made.offset) == (shared, protection == READ_WRITE, offset)
    made.close()
    assert row_of(row.start) is None


@pytest.mark.parametrize("size", [PAGE, MIB, 2 * MIB, 3 * MIB, 64 * MIB])
def test_anonymous_memory_is_aligned_and_stands_alone(size: int) -> None:
    made = [anonymous(size) for _ in range(5)]
    for each in made:
        assert each.address % ANONYMOUS_ALIGN == 0
        row = the_row(each)
        # The kernel joins neighbours of the same kind; these have none.
        assert row.end - row.start == size
        assert row.permissions == "rw-p"
    for each in made:
        each.close()


def test_nothing_of_what_was_set_aside_stays() -> None:
    def protected() -> int:
        return sum(row.end - row.start for row in rows() if row.permissions == "---p")

    before = protected()
    made = Region(HOST, spec(align=64 * MIB, shared=False))
    assert protected() - before == PAGE
    made.close()
    assert protected() == before


@pytest.mark.parametrize("align", [PAGE, 2 * MIB])
def test_what_can_not_be_mapped_leaves_nothing(align: int) -> None:
    before = {(row.start, row.end) for row in rows()}
    fd = os.open("/dev/null", os.O_RDWR)
    with pytest.raises(OSError) as failed:
        Region(HOST, spec(align=align), fd)
    assert failed.value.errno == errno.ENODEV
    os.close(fd)
    now = {(row.start, row.end) for row in rows()}
    assert not {end - start for start, end in now - before} & {MIB, MIB + align}


@pytest.mark.parametrize(
    ("size", "align", "error"),
    [
        (1 << 62, PAGE, errno.ENOMEM),
        (1 << 62, 2 * MIB, errno.ENOMEM),
        ((1 << 64) - PAGE, 2 * MIB, errno.ENOMEM),
        ((1 << 64) - 2 * MIB, 2 * MIB, errno.EINVAL),
        ((1 << 64) - PAGE, PAGE, errno.EINVAL),
        (MIB, 1 << 63, errno.ENOMEM),
    ],
)
def test_impossible_sizes(size: int, align: int, error: int) -> None:
    with pytest.raises(OSError) as failed:
        Region(HOST, spec(size, align, shared=False))
    assert failed.value.errno == error


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("dump", [False, True])
@pytest.mark.parametrize("kind", ["anonymous", "private", "shared"])
def test_prepare(kind: str, dump: bool, merge: bool) -> None:
    with file_of(MIB) as fd:
        if kind == "anonymous":
            os.close(fd)
            fd = -1
        made = Region(HOST, spec(shared=kind == "shared"), fd)
    made.prepare(merge, dump)
    flags = the_row(made).flags
    assert {"dc", "hg"} <= flags
    assert ("dd" in flags) is not dump
    # QEMU marks anonymous memory as mergeable whatever it was told, and
    # shared memory can't be merged.
    assert ("mg" in flags) is {"anonymous": True, "private": merge, "shared": False}[kind]
    made.close()


@pytest.mark.parametrize("shared", [False, True])
def test_changes(shared: bool) -> None:
    with file_of(MIB) as fd:
        made = Region(HOST, spec(shared=shared), fd)
    made.prepare(merge=False, dump=True)
    for value in (True, False, True):
        made.set_merge(value)
        assert ("mg" in the_row(made).flags) is (value and not shared)
    for value in (False, True, False):
        made.set_dump(value)
        assert ("dd" in the_row(made).flags) is not value
    made.close()


@pytest.mark.parametrize("shared", [False, True])
def test_reserve(shared: bool) -> None:
    for reserve in (True, False):
        with file_of(MIB) as fd:
            made = Region(HOST, spec(shared=shared, reserve=reserve), fd)
        assert ("nr" in the_row(made).flags) is not reserve
        made.close()


def test_reserve_where_nothing_is_overcommitted() -> None:
    strict = StrictHost()
    for align in (PAGE, 2 * MIB):
        with pytest.raises(Unsupported) as refused:
            Region(strict, spec(align=align, shared=False, reserve=False))
        assert str(refused.value) == (
            "Skipping reservation of swap space is not supported:"
            ' "/proc/sys/vm/overcommit_memory" is "2"'
        )
    # Only what would be charged for is refused.
    Region(strict, spec(shared=False, reserve=False, protection=READ)).close()
    with file_of(MIB) as fd:
        Region(strict, spec(reserve=False), fd).close()


def test_the_overcommit_setting_is_read() -> None:
    setting = Path("/proc/sys/vm/overcommit_memory").read_text().strip()
    assert HOST.never_overcommits() is (setting == "2")


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("offset", [0, 2 * PAGE])
def test_discard(offset: int, writable: bool, shared: bool) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x" * 4 * PAGE)
        file.flush()
        protection = READ_WRITE if writable else READ
        what = spec(2 * PAGE, offset=offset, shared=shared, protection=protection)
        made = Region(HOST, what, os.open(file.name, os.O_RDWR))
        made.discard()
        made.close()
        file.seek(0)
        hole = bytes(2 * PAGE) if shared and writable else b"x" * 2 * PAGE
        rest = b"x" * 2 * PAGE
        assert file.read() == (rest + hole if offset else hole + rest)


def test_discard_of_anonymous_memory_is_nothing() -> None:
    made = anonymous()
    made.discard()
    made.close()


@pytest.mark.parametrize("shared", [False, True])
def test_sync_falls_back(shared: bool) -> None:
    with file_of(MIB) as fd:
        made = Region(HOST, spec(shared=shared, sync=True), fd)
    # No file system here is DAX.
    assert made.synced is False
    assert "sf" not in the_row(made).flags
    made.close()


def test_sync_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = libc.mmap

    def mmap(address: int, length: int, protection: int, flags: int, fd: int, offset: int) -> int:
        asked.append(flags)
        return real(address, length, protection, flags & ~libc.MAP_SYNC, fd, offset)

    monkeypatch.setattr(libc, "mmap", mmap)
    with file_of(MIB) as fd:
        made = Region(HOST, spec(sync=True), fd)
    assert asked == [libc.MAP_SHARED_VALIDATE | libc.MAP_SYNC]
    assert made.synced is True
    made.close()


def test_large_memory_goes_in_pieces() -> None:
    gone: list[tuple[int, int]] = []

    class Unmapping(Host):
        def unmap(self, address: int, length: int) -> None:
            gone.append((address, length))
            super().unmap(address, length)

    piece = region.UNMAP_PIECE
    made = Region(Unmapping(), spec(2 * piece + PAGE))
    made.close()
    at = made.address
    assert gone == [(at, piece), (at + piece, piece), (at + 2 * piece, PAGE)]


def test_close_twice() -> None:
    with file_of(MIB) as fd:
        made = Region(HOST, spec(), fd)
    made.close()
    assert made.closed
    assert made.fd == -1
    # Whatever has the number now is left alone.
    with open("/dev/null") as null:
        os.dup2(null.fileno(), fd)
    made.close()
    os.fstat(fd)
    os.close(fd)


def test_disown_leaves_the_descriptor() -> None:
    with file_of(MIB) as fd:
        made = Region(HOST, spec(), fd)
        made.disown()
        made.close()
        assert row_of(made.address) is None
        os.fstat(fd)
        os.close(fd)


def test_pins_put_off_closing() -> None:
    made = anonymous()
    made.pin()
    made.pin()
    made.close()
    assert row_of(made.address) is not None
    made.unpin()
    assert row_of(made.address) is not None
    made.unpin()
    assert not made.pinned
    assert row_of(made.address) is None
    made.close()


def test_unpin_without_close_keeps_it() -> None:
    made = anonymous()
    made.pin()
    made.unpin()
    assert row_of(made.address) is not None
    made.close()


def test_huge_pages(hugepages: Callable[[int], None]) -> None:
    hugepages(4)
    size = 4 * MIB
    fd = os.memfd_create("x", os.MFD_CLOEXEC | os.MFD_HUGETLB)
    os.ftruncate(fd, size)
    made = Region(HOST, MapSpec(size, size, 2 * MIB, 2 * MIB), fd)
    made.prepare(merge=True, dump=False)
    row = the_row(made)
    assert (row.start % (2 * MIB), row.end - row.start) == (0, size)
    assert {"ht", "dc", "dd"} <= row.flags
    made.close()
    assert row_of(row.start) is None
