from __future__ import annotations

import fcntl
import mmap
import os
import stat
import subprocess
from pathlib import Path

import pytest

from memd.hostmem.access import read, write
from memd.hostmem.export import export, path_of
from memd.hostmem.region import Region
from tests.backends.doing import refusal
from tests.conftest import NOT_HERE
from tests.hostmem.made import MIB, PAGE, made, memfd, of_file

NOBODY = 65534


def opens(path: str, flags: int, uid: int = 0, *, keep: int = -1) -> bool:
    """Whether another process, of that user, can open a path."""
    how = "<>" if flags == os.O_RDWR else "<"
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec 9{how}'{path}'"],
        pass_fds=[keep] if keep >= 0 else [],
        user=uid or None,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def exported(region: Region, writable: bool) -> int:
    """A descriptor, with what every one of them has to be."""
    fd = export(region, "m", writable)
    assert not os.get_inheritable(fd)
    access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    assert access == (os.O_RDWR if writable else os.O_RDONLY)
    return fd


def test_both_ways() -> None:
    with memfd() as region:
        fd = exported(region, True)
        with mmap.mmap(fd, MIB) as there:
            there[5] = 1
            write(region, "m", 6, b"\2")
            assert there[:8] == read(region, "m", 0, 8) == b"\0\0\0\0\0\1\2\0"
        os.close(fd)


@pytest.mark.parametrize("rom", [False, True])
def test_what_is_read_only_can_not_be_written(tmp_path: Path, rom: bool) -> None:
    """Of memory that memd itself can write, and of ROM."""
    path = tmp_path / "file"
    path.write_bytes(b"f" * MIB)
    with of_file(path, readonly=rom, rom=rom, shared=True) as region:
        fd = exported(region, False)
        with pytest.raises(PermissionError):
            mmap.mmap(fd, MIB)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(fd, b"x")
        with pytest.raises(OSError, match="Invalid argument"):
            os.ftruncate(fd, 0)
        with mmap.mmap(fd, MIB, prot=mmap.PROT_READ) as there:
            assert there[:] == b"f" * MIB
            if not rom:
                write(region, "m", 0, b"x")
                assert there[:2] == b"xf"
        os.close(fd)


def test_who_can_open_it_again() -> None:
    """A memfd is everybody's when it is made; a taker of another user gets no further."""
    if os.geteuid() != 0:
        pytest.skip(f"{NOT_HERE}root")
    with memfd() as region:
        assert stat.S_IMODE(os.fstat(region.fd).st_mode) & 0o666 == 0o666
        fd = exported(region, False)
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
        again = f"/proc/self/fd/{fd}"
        assert not opens(again, os.O_RDWR, NOBODY, keep=fd)
        assert not opens(again, os.O_RDONLY, NOBODY, keep=fd)
        # memd's own user can: that is what the documentation says.
        assert opens(again, os.O_RDWR, keep=fd)
        os.close(fd)


def test_a_shared_memory_object_can_be_opened_by_its_owner() -> None:
    """shm_open's mode is 0 here, which lets nobody but root do it."""
    fd = os.open(f"/dev/shm/memd-test-{os.getpid()}", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0)
    os.unlink(f"/dev/shm/memd-test-{os.getpid()}")
    os.ftruncate(fd, MIB)
    with made(fd, MIB, shared=True) as region:
        os.close(exported(region, False))
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600


def test_a_named_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with of_file(path, shared=True) as region:
        path.chmod(0o664)
        os.close(exported(region, True))
        assert stat.S_IMODE(path.stat().st_mode) == 0o664


def test_memory_without_a_descriptor() -> None:
    with made() as region:
        assert refusal(lambda: export(region, "m", False)) == (
            "'m' is private memory without a descriptor: make it with share=on to export it"
        )


def test_what_can_not_be_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(MIB))
    with of_file(path, readonly=True, rom=True) as region:
        assert refusal(lambda: export(region, "m", True)) == (
            "'m' is read-only memory (ROM): it can't be exported writable"
        )
    with of_file(path, readonly=True) as region:
        assert refusal(lambda: export(region, "m", True)) == (
            "the file of 'm' is opened read-only: it can't be exported writable"
        )


def test_a_private_mapping(tmp_path: Path) -> None:
    """What it copied is not in its file: only the file can be handed on, and only to read."""
    path = tmp_path / "file"
    with of_file(path) as region:
        write(region, "m", 0, b"x")
        assert "is a private mapping" in refusal(lambda: export(region, "m", True))
        fd = exported(region, False)
        assert os.pread(fd, 2, 0) == b"\0\0"
        os.close(fd)


def test_memory_that_no_descriptor_leads_to() -> None:
    fd = os.open("/dev/zero", os.O_RDWR | os.O_CLOEXEC)
    with made(fd, MIB, shared=True) as region:
        assert "memory of /dev/zero" in refusal(lambda: export(region, "m", True))


def test_the_path(tmp_path: Path) -> None:
    """The file's own as long as it leads there, else one that does."""
    path = tmp_path / "file"
    with of_file(path, shared=True) as region:
        here = f"/proc/{os.getpid()}/fd/{region.fd}"
        assert path_of(region) == str(path)
        moved = path.rename(tmp_path / "moved")
        assert path_of(region) == str(moved)
        path.write_bytes(b"another")
        moved.unlink()
        assert path_of(region) == here
        assert os.path.samestat(os.stat(here), os.fstat(region.fd))
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    with of_file(odd, shared=True) as region:
        assert path_of(region).startswith("/proc/")
    with memfd() as region:
        assert opens(path_of(region), os.O_RDWR)


def test_mapping_is_page_by_page() -> None:
    """A region that begins further on in its file."""
    fd = os.memfd_create("test")
    os.ftruncate(fd, MIB)
    with made(fd, MIB - PAGE, shared=True, offset=PAGE) as region:
        write(region, "m", 0, b"x")
        out = exported(region, True)
        with mmap.mmap(out, region.length, offset=region.offset) as there:
            assert there[:2] == b"x\0"
        os.close(out)
