from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import random
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memd.faulty.kernel import FaultyHost
from memd.hostmem import files, save
from memd.hostmem.access import write
from memd.hostmem.host import Host
from memd.hostmem.opened import MEMFD
from memd.hostmem.region import Region
from memd.hostmem.usage import usage
from tests.backends.doing import refusal
from tests.conftest import NOT_HERE
from tests.hostmem.made import HOST, MIB, PAGE, failing, made, memfd, of_file
from tests.users import STRANGER, need_root

HUGE = 2 * MIB


class Kernel(Host):
    """A kernel that a test has do something otherwise.

    Args:
        named: whether its file systems have no files without a name.
        rename: called in place of renaming a file.
        sync: called before a file is synced.
    """

    def __init__(
        self,
        named: bool = False,
        rename: Callable[[], None] | None = None,
        sync: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__()
        self._named = named
        self._rename = rename
        self._sync = sync

    def open_at(self, directory: int, name: bytes, flags: int, mode: int = 0) -> int:
        if self._named and flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return super().open_at(directory, name, flags, mode)

    def rename(self, directory: int, old: bytes, new: bytes) -> None:
        if self._rename is None:
            super().rename(directory, old, new)
        else:
            self._rename()

    def sync(self, fd: int) -> None:
        self._sync()
        super().sync(fd)


def saved(region: Region, path: Path) -> bytes:
    """Save, and see that nothing else has come; the content."""
    others = set(os.listdir(path.parent)) - {path.name}
    saving = save.Saving()
    save.save(region, "m", str(path), saving)
    assert 0 <= saving.done < region.length
    assert set(os.listdir(path.parent)) == others | {path.name}
    content = path.read_bytes()
    assert len(content) == region.length
    return content


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.mark.parametrize("named", [False, True])
def test_private_memory(tmp_path: Path, named: bool) -> None:
    """Pages in places, among them some of zeroes; with and without unnamed files."""
    content = bytearray(4 * MIB)
    with made(size=4 * MIB, host=Kernel(named)) as region:
        for page in random.Random(1).sample(range(4 * MIB // PAGE), 40):
            content[page * PAGE + 9] = 1
            write(region, "m", page * PAGE + 9, b"\1")
        write(region, "m", 2 * MIB, bytes(16 * PAGE))
        content[2 * MIB : 2 * MIB + 16 * PAGE] = bytes(16 * PAGE)
        path = tmp_path / "saved"
        assert saved(region, path) == content
        assert allocated(path) <= 40 * PAGE
        assert path.stat().st_mode & 0o777 == 0o600


def test_untouched_memory_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    with made() as private, memfd() as shared:
        write(private, "m", 0, b"x")
        write(shared, "m", PAGE, b"x")
        assert saved(private, path) == b"x" + bytes(MIB - 1)
        assert saved(shared, path) == bytes(PAGE) + b"x" + bytes(MIB - PAGE - 1)
        assert allocated(path) == PAGE
        assert [each.resident for each in usage([private, shared])] == [PAGE, PAGE]


def test_copies_over_a_file(tmp_path: Path) -> None:
    """The file, its holes, and what a private mapping has changed, zeroes included."""
    path = tmp_path / "file"
    path.write_bytes(b"f" * MIB)
    os.truncate(path, 3 * MIB)
    with of_file(path, size=2 * MIB, offset=MIB // 2, readonly=True) as region:
        write(region, "m", 0, b"x")
        write(region, "m", 4 * PAGE, bytes(2 * PAGE))
        write(region, "m", MIB, b"y")
        new = tmp_path / "saved"
        expected = bytearray(b"f" * (MIB // 2) + bytes(MIB + MIB // 2))
        expected[0] = ord("x")
        expected[4 * PAGE : 6 * PAGE] = bytes(2 * PAGE)
        expected[MIB] = ord("y")
        assert saved(region, new) == expected
        assert allocated(new) == MIB // 2 - 2 * PAGE + PAGE


def test_a_disk_without_holes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"f" * MIB)
    with of_file(path) as region:
        region.host = failing(fallocate=errno.EOPNOTSUPP)
        write(region, "m", 0, bytes(PAGE))
        assert saved(region, tmp_path / "saved") == bytes(PAGE) + b"f" * (MIB - PAGE)


@pytest.mark.parametrize("shared", [False, True])
def test_huge_pages(tmp_path: Path, hugepages: Callable[[int], None], shared: bool) -> None:
    hugepages(4)
    backing = files.memfd(HOST, "m", 3 * HUGE, hugetlb=True, hugetlbsize=HUGE, seal=True)
    with made(backing.take(), 3 * HUGE, shared=shared, page_size=HUGE) as region:
        write(region, "m", HUGE, b"x")
        assert saved(region, tmp_path / "saved") == bytes(HUGE) + b"x" + bytes(2 * HUGE - 1)
        assert allocated(tmp_path / "saved") == PAGE
        assert usage([region])[0].resident == HUGE


def test_memory_of_a_device(tmp_path: Path) -> None:
    fd = os.open("/dev/zero", os.O_RDWR | os.O_CLOEXEC)
    with made(fd, MIB, shared=True) as region:
        write(region, "m", 3, b"x")
        assert saved(region, tmp_path / "saved")[:5] == b"\0\0\0x\0"


def test_what_can_only_be_mapped(tmp_path: Path) -> None:
    """As a guest_memfd, which has no position: nothing is made that was not there."""
    with memfd() as region:
        region.opened = MEMFD._replace(size=-1)
        for page in (0, 7, 8, MIB // PAGE - 1):
            write(region, "m", page * PAGE, b"x")
        content = saved(region, tmp_path / "saved")
        assert [at // PAGE for at, byte in enumerate(content) if byte] == [0, 7, 8, 255]
        assert usage([region])[0].resident == 4 * PAGE


def test_a_file_in_its_place(tmp_path: Path) -> None:
    """It is replaced, not written to, keeps its permissions, and is found through a link."""
    path = tmp_path / "real"
    path.write_bytes(b"old")
    path.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(path)
    with path.open("rb") as old, made() as region:
        write(region, "m", 0, b"x")
        save.save(region, "m", str(link), save.Saving())
        assert old.read() == b"old"
    assert link.is_symlink()
    assert path.stat().st_size == MIB
    assert path.stat().st_mode & 0o777 == 0o640


def test_its_own_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"f" * MIB)
    with of_file(path) as region:
        write(region, "m", 0, b"x")
        assert saved(region, path) == b"x" + b"f" * (MIB - 1)
        assert saved(region, path) == b"x" + b"f" * (MIB - 1)


def test_what_can_not_be_saved_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with made() as region:
        for name, why in (
            ("", "No such file or directory"),
            (f"{tmp_path}", "Is a directory"),
            (f"{tmp_path}/new/", "Is a directory"),
            (f"{tmp_path}/none/file", "No such file or directory"),
            (f"{tmp_path}/fifo/file", "Not a directory"),
            (f"{tmp_path}/fifo", "File exists"),
            (f"{tmp_path}/{'x' * 300}", "File name too long"),
        ):
            text = refusal(lambda to=name: save.save(region, "m", to, save.Saving()))  # type: ignore[misc]
            assert text == f"cannot save 'm' to '{name}': {why}"
    assert os.listdir(tmp_path) == ["fifo"]


@pytest.mark.parametrize("named", [False, True])
def test_a_full_disk(tmp_path: Path, mount: Callable[..., None], named: bool) -> None:
    """What was there stays, and nothing else does."""
    small = tmp_path / "small"
    mount("tmpfs", small, "size=64k")
    (small / "saved").write_bytes(b"old")
    with made(host=Kernel(named)) as region:
        write(region, "m", 0, b"x" * (100 << 10))
        text = refusal(lambda: save.save(region, "m", str(small / "saved"), save.Saving()))
    assert text == f"cannot save 'm' to '{small}/saved': No space left on device"
    assert os.listdir(small) == ["saved"]
    assert (small / "saved").read_bytes() == b"old"
    assert os.statvfs(small).f_bfree * 4096 == 60 << 10


@pytest.mark.parametrize("named", [False, True])
def test_a_failure_at_the_end(tmp_path: Path, named: bool) -> None:
    def refuse() -> None:
        raise OSError(5, "Input/output error")

    path = tmp_path / "saved"
    path.write_bytes(b"old")
    with made(host=Kernel(named, rename=refuse)) as region:
        text = refusal(lambda: save.save(region, "m", str(path), save.Saving()))
    assert text.endswith(": Input/output error")
    assert os.listdir(tmp_path) == ["saved"]
    assert path.read_bytes() == b"old"


def mode_after(path: Path) -> int:
    """Save over a file; the permissions, all of them, that are there then."""
    with made() as region:
        save.save(region, "m", str(path), save.Saving())
    there = path.stat()
    assert (there.st_size, there.st_uid) == (MIB, os.geteuid())
    return stat.S_IMODE(there.st_mode)


def test_special_bits_are_not_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "saved"
    path.write_bytes(b"")
    path.chmod(0o4755)
    assert mode_after(path) == 0o755
    path.chmod(0o3644)
    assert mode_after(path) == 0o644


def test_what_others_could_have_put_there_tells_nothing(tmp_path: Path) -> None:
    """A file that has another name is, for all that is known, not meant to be replaced."""
    path, other = tmp_path / "saved", tmp_path / "other"
    path.write_bytes(b"")
    path.chmod(0o644)
    os.link(path, other)
    assert mode_after(path) == 0o600
    place = tmp_path / "for-all"
    place.mkdir()
    place.chmod(0o777)
    path = place / "saved"
    path.write_bytes(b"")
    path.chmod(0o644)
    assert mode_after(path) == 0o600
    # Where only the owner can rename and remove, it is the owner's choice.
    path.chmod(0o644)
    place.chmod(0o1777)
    assert mode_after(path) == 0o644


@need_root
def test_a_file_of_another_user(tmp_path: Path) -> None:
    """Its permissions were chosen by somebody who is not to have what memory holds."""
    for place, owner in ((tmp_path, 0), (tmp_path / "theirs", STRANGER)):
        place.mkdir(exist_ok=True)
        os.chown(place, owner, owner)
        path = place / "saved"
        for mode in (0o666, 0o4755):
            path.write_bytes(b"")
            os.chown(path, STRANGER, STRANGER)
            path.chmod(mode)
            assert mode_after(path) == 0o600
            assert path.stat().st_gid == os.getegid()
    # Nor is a file of memd's own, in a directory whose owner can put any there.
    path.chmod(0o644)
    assert mode_after(path) == 0o600


@contextmanager
def without_chown() -> Iterator[None]:
    """This thread may not give files away (capabilities(7)); root may otherwise."""
    kernel = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    # Effective, permitted, inheritable; CAP_CHOWN is the lowest bit of the first.
    capabilities = (ctypes.c_uint32 * 6)()
    assert kernel.capget(header, capabilities) == 0
    capabilities[0] &= ~1
    assert kernel.capset(header, capabilities) == 0
    try:
        yield
    finally:
        capabilities[0] |= 1
        assert kernel.capset(header, capabilities) == 0


@need_root
def test_the_group_stays(tmp_path: Path) -> None:
    """Or has no permissions: they were another's."""
    path = tmp_path / "saved"
    path.write_bytes(b"")
    os.chown(path, -1, STRANGER)
    path.chmod(0o664)
    assert mode_after(path) == 0o664
    assert path.stat().st_gid == STRANGER
    with without_chown():
        assert mode_after(path) == 0o604
    assert path.stat().st_gid == os.getegid()


def test_a_list_of_the_directory_lets_nobody_in(tmp_path: Path) -> None:
    """An ACL that new files get would come in with the group's permissions."""
    path = tmp_path / "saved"
    path.write_bytes(b"")
    path.chmod(0o640)
    # acl(5): the owner, a user, the group, the mask and others, in the kernel's form.
    nobody = 0xFFFFFFFF
    entries = [(1, 7, nobody), (2, 7, STRANGER), (4, 0, nobody), (16, 7, nobody), (32, 0, nobody)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *each) for each in entries)
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", acl)
    except OSError:
        pytest.skip(f"{NOT_HERE}access control lists")
    assert mode_after(path) == 0o640
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(path, "system.posix_acl_access")


@pytest.mark.parametrize("named", [False, True])
def test_only_where_nothing_is(tmp_path: Path, named: bool) -> None:
    path = tmp_path / "saved"

    def again() -> str:
        return refusal(lambda: save.save(region, "m", str(path), save.Saving(), replace=False))

    with made(host=Kernel(named)) as region:
        save.save(region, "m", str(path), save.Saving(), replace=False)
        path.write_bytes(b"precious")
        assert again() == f"cannot save 'm' to '{path}': File exists"
        # One that comes only while it is saved.
        path.unlink()
        region.host = Kernel(named, sync=lambda: path.write_bytes(b"precious"))
        assert again() == f"cannot save 'm' to '{path}': File exists"
    assert path.read_bytes() == b"precious"
    assert os.listdir(tmp_path) == ["saved"]


def killed_at_the_renaming(region: Region, path: Path, named: bool) -> str:
    """Save in a process that ends before it renames; the name of the file that this leaves."""
    child = os.fork()
    if not child:
        region.host = Kernel(named, rename=lambda: os._exit(9))
        save.save(region, "m", str(path), save.Saving())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    (left,) = set(os.listdir(path.parent)) - {path.name}
    return left


@pytest.mark.parametrize("named", [False, True])
def test_a_kill_at_the_renaming(tmp_path: Path, named: bool) -> None:
    """What that leaves is gone with the next one that saves there, and nothing else."""
    path = tmp_path / "saved"
    path.write_bytes(b"old")
    with made(host=Kernel(named)) as region:
        left = killed_at_the_renaming(region, path, named)
        assert path.read_bytes() == b"old"
        # Of another it can't be removed: it may be at work.
        with open(tmp_path / left, "rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            save.save(region, "m", str(path), save.Saving())
            assert set(os.listdir(tmp_path)) == {"saved", left}
        save.save(region, "m", str(path), save.Saving())
    assert os.listdir(tmp_path) == ["saved"]


@need_root
def test_another_users_file_at_a_temporary_name_stays(tmp_path: Path) -> None:
    """Nothing of another user's is removed."""
    path = tmp_path / "saved"
    path.write_bytes(b"old")
    with made(host=Kernel(named=True)) as region:
        left = killed_at_the_renaming(region, path, named=True)
        os.chown(tmp_path / left, STRANGER, STRANGER)
        save.save(region, "m", str(path), save.Saving())
    assert set(os.listdir(tmp_path)) == {"saved", left}


def test_a_long_name(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    with made() as region:
        save.save(region, "m", str(path), save.Saving())
        save.save(region, "m", str(path), save.Saving())
        region.host = Kernel(named=True)
        save.save(region, "m", str(path), save.Saving())
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("named", [False, True])
def test_a_directory_that_can_only_be_appended_to(
    tmp_path: Path, named: bool, append_only: Callable[[Path], None]
) -> None:
    """Nothing that can't be removed again is left."""
    append_only(tmp_path)
    path, other = tmp_path / "saved", tmp_path / "other"
    why = "cannot save 'm' to '{}': Operation not permitted"
    with made(host=Kernel(named)) as region:
        if not named:
            # A file without a name needs no renaming where there is none yet.
            save.save(region, "m", str(path), save.Saving())
        text = refusal(lambda: save.save(region, "m", str(path), save.Saving()))
        assert text == why.format(path)
        # One that comes only while it is saved.
        region.host = Kernel(named, sync=other.touch)
        text = refusal(lambda: save.save(region, "m", str(other), save.Saving()))
        assert text == why.format(other)
    assert set(os.listdir(tmp_path)) == (set() if named else {"saved", "other"})


def test_a_directory_that_can_not_be_synced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The file has been replaced, so it is not an error; that it may not last is logged."""
    # The file is synced first, then its directory.
    outcomes = iter((0, errno.EIO))
    host = FaultyHost(lambda kind: next(outcomes) if kind == "fsync" else 0)
    path = tmp_path / "saved"
    path.write_bytes(b"old")
    with made() as region:
        region.host = host
        save.save(region, "m", str(path), save.Saving())
    assert path.stat().st_size == MIB
    (line,) = caplog.messages
    assert line.endswith("its directory can't be synced: Input/output error")


@pytest.mark.parametrize("named", [False, True])
def test_files_that_are_there_together_or_not_at_all(tmp_path: Path, named: bool) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    failures = iter([None, errno.ENOSPC, errno.EIO])

    def sync() -> None:
        if number := next(failures, None):
            raise OSError(number, os.strerror(number))

    def save_both(host: Host, fill: Callable[[save.Put], None] = lambda put: put(0, b"2")) -> None:
        one = save.NewFile(str(first), PAGE, lambda put: put(0, b"1"))
        save.save_new(host, "m", one, save.NewFile(str(second), PAGE, fill))

    host = Kernel(named, sync=sync)
    # The first is on the disk, the second's writing fails; then the first's does.
    for path, why in ((second, "No space left on device"), (first, "Input/output error")):
        assert refusal(lambda: save_both(host)) == f"cannot save 'm' to '{path}': {why}"
        assert os.listdir(tmp_path) == []

    def take(put: save.Put) -> None:
        second.write_bytes(b"another's")

    assert refusal(lambda: save_both(host, take)) == f"cannot save 'm' to '{second}': File exists"
    assert os.listdir(tmp_path) == ["second"]
    assert second.read_bytes() == b"another's"
    second.unlink()
    save_both(host)
    assert (first.read_bytes()[:1], second.read_bytes()[:1]) == (b"1", b"2")
    assert sorted(os.listdir(tmp_path)) == ["first", "second"]


@pytest.mark.parametrize("shared", [False, True])
def test_a_truncated_file(tmp_path: Path, shared: bool) -> None:
    path = tmp_path / "file"
    with of_file(path, shared=shared) as region:
        os.truncate(path, PAGE)
        text = refusal(lambda: save.save(region, "m", str(tmp_path / "saved"), save.Saving()))
    assert text == f"cannot save 'm' to '{tmp_path}/saved': its file was truncated to 4096 bytes"
    assert os.listdir(tmp_path) == ["file"]


def test_how_far_it_is(tmp_path: Path) -> None:
    """It is seen meanwhile, and only ever grows."""
    path = tmp_path / "file"
    path.write_bytes(b"f" * 4 * MIB)
    saving = save.Saving()
    seen = []

    def look(kind: str) -> int:
        if kind == "pwrite":
            seen.append(saving.done)
        return 0

    with of_file(path, size=4 * MIB) as region:
        write(region, "m", 0, b"x" * 4 * MIB)
        region.host = FaultyHost(look)
        save.save(region, "m", str(tmp_path / "saved"), saving)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, 3 * MIB)
