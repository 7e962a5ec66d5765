from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from memd.hostmem import libc
from tests.conftest import NOT_HERE

PAGE = libc.PAGE_SIZE
ANONYMOUS = libc.MAP_PRIVATE | libc.MAP_ANONYMOUS
READ_WRITE = libc.PROT_READ | libc.PROT_WRITE


def test_mmap_and_munmap() -> None:
    address = libc.mmap(0, PAGE, READ_WRITE, ANONYMOUS, -1, 0)
    assert address % PAGE == 0
    libc.munmap(address, PAGE)


@pytest.mark.parametrize(
    ("length", "error"),
    [(0, errno.EINVAL), (1 << 62, errno.ENOMEM), ((1 << 64) - PAGE, errno.ENOMEM)],
)
def test_mmap_errors(length: int, error: int) -> None:
    with pytest.raises(OSError) as failed:
        libc.mmap(0, length, READ_WRITE, ANONYMOUS, -1, 0)
    assert failed.value.errno == error
    assert failed.value.strerror == os.strerror(error)


def test_offsets_beyond_what_c_holds_wrap() -> None:
    with tempfile.TemporaryFile() as file:
        file.truncate(PAGE)
        with pytest.raises(OSError) as failed:
            libc.mmap(0, PAGE, READ_WRITE, libc.MAP_SHARED, file.fileno(), (1 << 64) - PAGE)
    assert failed.value.errno == errno.EOVERFLOW


def test_munmap_error() -> None:
    with pytest.raises(OSError) as failed:
        libc.munmap(1, PAGE)
    assert failed.value.errno == errno.EINVAL


def test_madvise() -> None:
    address = libc.mmap(0, PAGE, READ_WRITE, ANONYMOUS, -1, 0)
    assert libc.madvise(address, PAGE, libc.MADV_DONTFORK) == 0
    assert libc.madvise(address, PAGE, 12345) == errno.EINVAL
    libc.munmap(address, PAGE)
    assert libc.madvise(address, PAGE, libc.MADV_DONTFORK) == errno.ENOMEM


def test_file_system_type(directory: Path, mount: Callable[..., None]) -> None:
    mount("hugetlbfs", directory / "huge")
    mount("tmpfs", directory / "small")
    for name, huge in (("huge", True), ("small", False)):
        fd = os.open(directory / name, os.O_RDONLY)
        assert (libc.file_system_type(fd) == libc.HUGETLBFS_MAGIC) is huge
        os.close(fd)


def test_file_system_type_of_nothing() -> None:
    assert libc.file_system_type(-1) == 0


def test_a_mount_is_told_apart(directory: Path, mount: Callable[..., None]) -> None:
    mount("tmpfs", directory)
    here, there = os.open(directory, os.O_PATH), os.open("/proc", os.O_PATH)
    try:
        if not libc.mount_of(here):
            pytest.skip(f"{NOT_HERE}Linux 6.8")
        assert libc.mount_of(here) != libc.mount_of(there)
        assert libc.mount_of(-2) == 0
    finally:
        os.close(here)
        os.close(there)


def test_memory_is_copied_up_to_what_can_not_be_had() -> None:
    address = libc.mmap(0, 2 * PAGE, libc.PROT_READ | libc.PROT_WRITE, ANONYMOUS, -1, 0)
    try:
        assert libc.write_memory(address + 1, b"abc") == 3
        into = bytearray(5)
        assert libc.read_memory(address, into) == 5
        assert into == b"\0abc\0"
        libc.munmap(address + PAGE, PAGE)
        assert libc.write_memory(address + PAGE - 2, b"abc") == 2
        assert libc.read_memory(address + PAGE - 2, into) == 2
        assert libc.read_memory(address + PAGE, into) == 0
        assert libc.write_memory(address, b"") == libc.read_memory(0, bytearray()) == 0
    finally:
        libc.munmap(address, PAGE)


def test_calls_that_fail_say_why() -> None:
    for call, why in (
        (lambda: libc.punch_hole(-1, 0, PAGE), "Bad file descriptor"),
        (lambda: libc.cachestat(-1, 0, PAGE), "Bad file descriptor"),
        (lambda: libc.resident_pages(0, PAGE), "Cannot allocate memory"),
    ):
        with pytest.raises(OSError, match=why):
            call()


def test_pages_in_memory() -> None:
    """Asked for in parts, where there are many."""
    part = libc.RESIDENT_MAP
    length = part + 3 * PAGE
    address = libc.mmap(0, length, READ_WRITE, ANONYMOUS | libc.MAP_NORESERVE, -1, 0)
    libc.madvise(address, length, mmap.MADV_NOHUGEPAGE)
    for at in (0, part - PAGE, part, part + 2 * PAGE):
        libc.write_memory(address + at, b"x")
    assert libc.resident_pages(address, length) == 4
    assert libc.resident_pages(address, part + 2 * PAGE + 1) == 4
    assert libc.resident_pages(address, part + 2 * PAGE) == 3
    assert libc.resident_pages(address, part - PAGE) == 1
    libc.munmap(address, length)


def test_threads_share_one_heap() -> None:
    """What threads allocate and free is one heap's: there is no mapping for each of them."""
    program = """
import sys, threading, ctypes
from memd.hostmem import libc
if len(sys.argv) > 1:
    libc.use_one_heap()
libc_ = ctypes.CDLL(None)
libc_.malloc.restype = ctypes.c_size_t
held = []
def work():
    held.append(libc_.malloc(1000))
    barrier.wait()
barrier = threading.Barrier(4)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
# Each further heap begins at a multiple of 64 MiB.
print(max(held) - min(held) >= 1 << 25)
"""
    ask = [sys.executable, "-c", program]
    apart = [
        subprocess.run([*ask, *more], capture_output=True, text=True, check=True).stdout
        for more in ([], ["one"])
    ]
    # The first shows that there is something to do here.
    assert apart == ["True\n", "False\n"]
