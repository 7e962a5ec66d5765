from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memd.errors import QMPError
from memd.hostmem import access, libc
from memd.hostmem.access import MAX_LENGTH, check_length, check_range, may_wait, read, write
from memd.hostmem.pages import PageMap
from tests.backends.doing import refusal
from tests.conftest import NOT_HERE
from tests.hostmem.made import MIB, PAGE, failing, made, memfd, of_file

UINT64 = (1 << 64) - 1


@given(
    size=st.integers(1, 40),
    writes=st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=20)), max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_it_is_like_an_array_of_bytes(size: int, writes: list[tuple[int, bytes]]) -> None:
    """Around the end of a page, where a copy is in two parts."""
    model = bytearray(2 * PAGE)
    base = PAGE - size // 2
    with made(size=2 * PAGE) as region:
        for at, data in writes:
            write(region, "m", base + at, data)
            model[base + at : base + at + len(data)] = data
        assert read(region, "m", 0, 2 * PAGE) == model
        assert read(region, "m", base, size) == model[base : base + size]


@pytest.mark.parametrize("advised", [False, True])
@pytest.mark.parametrize("offset", [0, PAGE + 5])
@pytest.mark.parametrize("there", [(), (2,), (0, 600)])
def test_memory_that_is_not_there_is_written_as_a_file(
    monkeypatch: pytest.MonkeyPatch, there: tuple[int, ...], offset: int, advised: bool
) -> None:
    """Unless huge pages are made for its mapping, or a part of it is there."""
    monkeypatch.setattr(access, "_advised_is_huge", lambda: advised)
    size = MIB // 2
    content = os.urandom(size // 2) + bytes(size // 2)
    fd = os.memfd_create("window", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    os.pwrite(fd, content[: size // 2], 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    with memfd(4 * MIB) as region, PageMap() as pages:
        for page in there:
            os.pwrite(region.fd, b"x", page * PAGE)
        access.write(region, "m", offset, access.InMemfd(fd, size, to_read=True))
        mapped = pages.few(region.address, region.length, 0)
        if mapped is None:
            pytest.skip(f"{NOT_HERE}a kernel that tells which pages are there")
        assert bool(mapped) == (advised or 2 in there or (0 in there and offset == 0))
        assert read(region, "m", offset, size) == content
        for page in {0, 600} & set(there) - ({0} if offset == 0 else set()):
            assert read(region, "m", page * PAGE, 2) == b"x\0"
    os.close(fd)


def refusing_to_copy(*_arguments: object) -> int:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("offset", [0, PAGE + 5])
def test_memory_is_copied_from_and_to_a_memfd(
    monkeypatch: pytest.MonkeyPatch, offset: int, copies: bool
) -> None:
    """Without a mapping of its pages, and by hand where the kernel does not copy it."""
    if not copies:
        monkeypatch.setattr(os, "copy_file_range", refusing_to_copy)
    content = bytes(PAGE) + os.urandom(2 * MIB - PAGE)
    with memfd(4 * MIB) as region, PageMap() as pages, open(os.memfd_create("w"), "w+b") as file:
        os.pwrite(region.fd, content, offset)
        access.read_to(region, "m", offset, access.InMemfd(file.fileno(), 3 * MIB, to_read=False))
        assert file.read() == content.ljust(3 * MIB, b"\0")
        assert not pages.few(region.address, region.length, 0)
        os.truncate(region.fd, MIB)
        text = refusal(
            lambda: access.read_to(
                region, "m", 0, access.InMemfd(file.fileno(), 2 * MIB, to_read=False)
            )
        )
        assert text == f"cannot read 'm' at offset {MIB}: its file was truncated to {MIB} bytes"


@given(st.integers(0, UINT64), st.integers(0, UINT64), st.integers(0, UINT64))
def test_bounds(size: int, offset: int, length: int) -> None:
    """Every byte of the range is one of the region's; nothing wraps around."""
    try:
        check_range("m", size, offset, length)
    except QMPError:
        assert offset > size or length > size - offset
    else:
        assert offset <= size
        assert length <= size - offset


def test_what_is_said_of_bounds_and_lengths() -> None:
    assert (
        refusal(lambda: check_range("m", 100, UINT64, 2))
        == "2 bytes at offset 18446744073709551615 are not within the 100 bytes of 'm'"
    )
    check_range("m", 100, 100, 0)
    check_length(MAX_LENGTH, "length")
    text = refusal(lambda: check_length(MAX_LENGTH + 1, "length"))
    assert text == "Parameter 'length' exceeds 16777216 bytes"


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("length", [0, 1, PAGE, 3 * PAGE, 200_000])
def test_rom_is_denied_by_its_mapping(tmp_path: Path, shared: bool, length: int) -> None:
    """Also where it is in memory already, and where memd thinks that it is writable."""
    path = tmp_path / "rom"
    path.write_bytes(b"\x5a" * MIB)
    with of_file(path, readonly=True, rom=True, shared=shared) as region:
        assert read(region, "m", 0, MIB) == b"\x5a" * MIB
        text = refusal(lambda: write(region, "m", 17, bytes(length)))
        assert text == "cannot write 'm' at offset 17: it is read-only memory (ROM)"
        if length:
            region.writable = True
            assert (
                refusal(lambda: write(region, "m", 17, bytes(length)))
                == "cannot write 'm' at offset 17: Bad address"
            )
        assert read(region, "m", 0, MIB) == b"\x5a" * MIB
    assert path.read_bytes() == b"\x5a" * MIB


@pytest.mark.parametrize("shared", [False, True])
def test_a_truncated_file(tmp_path: Path, shared: bool) -> None:
    """What is left can be used; beyond it is an error, and a write changes nothing then."""
    path = tmp_path / "file"
    with of_file(path, shared=shared) as region:
        os.truncate(path, 4 * PAGE)
        write(region, "m", 3 * PAGE, b"x" * PAGE)
        assert (
            refusal(lambda: read(region, "m", 3 * PAGE, PAGE + 1))
            == f"cannot read 'm' at offset {4 * PAGE}: its file was truncated to {4 * PAGE} bytes"
        )
        for offset, data in ((3 * PAGE, b"y" * 2 * PAGE), (5 * PAGE, b"y"), (0, b"y" * MIB)):
            text = refusal(lambda at=offset, of=data: write(region, "m", at, of))  # type: ignore[misc]
            assert text.endswith(f"its file was truncated to {4 * PAGE} bytes")
        assert read(region, "m", 0, 4 * PAGE) == bytes(3 * PAGE) + b"x" * PAGE
        os.truncate(path, MIB)
        write(region, "m", 5 * PAGE, b"z")


def test_a_hole_on_a_full_disk(tmp_path: Path, mount: Callable[..., None]) -> None:
    small = tmp_path / "small"
    mount("tmpfs", small, "size=64k")
    with of_file(small / "file", MIB, shared=True) as region:
        write(region, "m", 0, b"x" * (8 * PAGE))
        before = read(region, "m", 0, 8 * PAGE)
        text = refusal(lambda: write(region, "m", PAGE, b"y" * (64 << 10)))
        assert text == f"cannot write 'm' at offset {PAGE}: No space left on device"
        assert read(region, "m", 0, 8 * PAGE) == before


def test_a_broken_page() -> None:
    """One that the kernel marked as lost: reading it oneself would be a SIGBUS."""
    with made(size=4 * PAGE) as region:
        write(region, "m", 0, b"x" * 4 * PAGE)
        if not poison(region.address + PAGE):
            pytest.skip(f"{NOT_HERE}UFFDIO_POISON (Linux 6.6), or the right to use it")
        assert refusal(lambda: read(region, "m", PAGE - 1, 2)).startswith(
            f"cannot read 'm' at offset {PAGE}: "
        )
        for offset, length in ((PAGE, 1), (0, 3 * PAGE)):
            with pytest.raises(QMPError, match=r"^cannot write 'm' at offset"):
                write(region, "m", offset, bytes(length))
        assert read(region, "m", 0, PAGE) == b"x" * PAGE
        assert read(region, "m", 2 * PAGE, PAGE) == b"x" * PAGE


def poison(address: int) -> bool:
    """Have accesses to a page fail as those to broken memory do (userfaultfd(2))."""
    import fcntl
    import struct

    syscall = ctypes.CDLL(None, use_errno=True).syscall
    number = 323 if os.uname().machine == "x86_64" else 282
    fd = syscall(number, os.O_CLOEXEC | 1)
    if fd < 0:
        return False
    try:
        # UFFDIO_API with UFFD_FEATURE_POISON, UFFDIO_REGISTER (missing pages), UFFDIO_POISON.
        fcntl.ioctl(fd, 0xC018AA3F, struct.pack("=3Q", 0xAA, 1 << 14, 0))
        libc.madvise(address, PAGE, libc.MADV_DONTNEED)
        fcntl.ioctl(fd, 0xC020AA00, bytearray(struct.pack("=4Q", address, PAGE, 1, 0)))
        fcntl.ioctl(fd, 0xC020AA08, bytearray(struct.pack("=4Q", address, PAGE, 0, 0)))
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def test_without_the_advice_that_makes_pages() -> None:
    """A device's memory does not take it, and can be written."""
    with made() as region:
        region.host = failing(populate=errno.EINVAL)
        write(region, "m", 5, b"x" * 3 * PAGE)
        assert read(region, "m", 0, 4 * PAGE).strip(b"\0") == b"x" * 3 * PAGE


def test_what_is_done_beside_the_event_loop(tmp_path: Path) -> None:
    with made() as anonymous, memfd() as shared:
        for region in (anonymous, shared):
            assert not may_wait(region, access.INLINE_LENGTH)
            assert may_wait(region, access.INLINE_LENGTH + 1)
    on_disk = tmp_path / "file"
    on_disk.write_bytes(b"x" * MIB)
    with on_disk.open() as file:
        if libc.file_system_type(file.fileno()) == libc.TMPFS_MAGIC:
            pytest.skip(f"{NOT_HERE}a temporary directory on a disk")
    with of_file(on_disk) as private, of_file(on_disk, shared=True) as shared:
        assert may_wait(private, 1)
        assert may_wait(shared, 1)
