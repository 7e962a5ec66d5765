"""Paths that clients name: which links are followed, and what nobody gets out of."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from memd.hostmem.files import open_file
from memd.hostmem.host import Host
from memd.hostmem.paths import Made, Roots, new_entry, open_own, open_path, target
from tests.descriptors import open_descriptors
from tests.differential.server import PATIENCE
from tests.hostmem.made import HOST
from tests.seccomp import OPENAT2, without
from tests.users import STRANGER, need_root

O_PATH = os.O_PATH | os.O_CLOEXEC

OUTSIDE = (errno.EXDEV, "Path is not below a directory of --mem-root")
STRANGE = (errno.EACCES, "Symbolic link of another user in a directory that others can write")


def came_to(fd: int) -> tuple[int, int]:
    """Which file a descriptor leads to; it is closed."""
    found = os.fstat(fd)
    os.close(fd)
    return found.st_dev, found.st_ino


def identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def opened(path: Path | str, roots: Roots | None = None) -> tuple[int, int]:
    return came_to(open_path(os.fsencode(path), O_PATH, roots))


def refusal(work: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(OSError) as caught:
        work()
    assert caught.value.errno is not None
    return caught.value.errno, str(caught.value.strerror)


@contextmanager
def rooted(*directories: Path) -> Iterator[Roots]:
    roots = Roots()
    try:
        for directory in directories:
            roots.add(str(directory))
        yield roots
    finally:
        roots.close()


# As the kernel follows them


@pytest.fixture
def maze(directory: Path) -> Path:
    """Directories, files and links in all sorts of ways."""
    for each in ("d", "d/e", "d/e/g"):
        (directory / each).mkdir()
    for each in ("f", "d/f", "d/e/f"):
        (directory / each).touch()
    for name, to in {
        "to-d": "d",
        "to-e": "d/e/",
        "to-f": "f",
        "absolute": f"{directory}/d",
        "loop": "loop",
        "nowhere": "no/such",
        "d/up": "..",
        "d/e/up": "../../to-d/./e//g",
        "d/root": "/",
        "d/chain": "../to-e/../up/to-f",
        "d/into-file": "f/x",
        "self": "/proc/self/cwd",
        "dev": "/dev/fd",
    }.items():
        (directory / name).symlink_to(to)
    return directory


NAMES = [
    *("d", "e", "f", "g", "to-d", "to-e", "to-f", "absolute", "loop", "nowhere", "up", "root"),
    *("chain", "into-file", "self", "dev", "..", ".", "", "none", "x" * 256),
]


def outcome(work: Callable[[], int]) -> object:
    try:
        return came_to(work())
    except OSError as error:
        return error.errno


@without(OPENAT2, only_if="walking")
@pytest.mark.parametrize("walking", [False, True])
@pytest.mark.parametrize("flags", [O_PATH, os.O_RDWR | os.O_CLOEXEC, O_PATH | os.O_DIRECTORY])
def test_paths_lead_where_they_lead_the_kernel(
    maze: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: int,
    walking: bool,
) -> None:
    monkeypatch.chdir(maze)
    names = random.Random(f"{flags}")
    seen = set()
    for _ in range(1500):
        path = "/".join(names.choices(NAMES, k=names.randint(1, 5)))
        if names.random() < 0.3:
            path = f"{maze}/{path}"
        raw = os.fsencode(path)
        expected = outcome(lambda raw=raw: os.open(raw, flags))  # type: ignore[misc]
        if expected == errno.EINVAL:
            continue
        assert outcome(lambda raw=raw: open_path(raw, flags)) == expected, path  # type: ignore[misc]
        seen.add(expected)
    assert {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG} <= seen


def test_the_kernels_own_links(directory: Path) -> None:
    """What they lead to has no other path, maybe none at all."""
    (directory / "f").touch()
    fd = os.open(directory / "f", os.O_RDONLY)
    os.unlink(directory / "f")
    (directory / "link").symlink_to(f"/proc/self/fd/{fd}")
    try:
        expected = came_to(os.dup(fd))
        for path in (f"/proc/self/fd/{fd}", f"/dev/fd/{fd}", f"{directory}/link"):
            assert opened(path) == expected
        assert opened("/proc/self/root/proc") == identity(Path("/proc"))
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", ["", "/" + "x/" * 2048])
def test_what_is_no_path(path: str) -> None:
    number = errno.ENAMETOOLONG if path else errno.ENOENT
    assert refusal(lambda: opened(path))[0] == number
    assert refusal(lambda: target(path.encode()))[0] == number


# Links of others


@need_root
@without(OPENAT2, only_if="walking")
@pytest.mark.parametrize("walking", [False, True])
@pytest.mark.parametrize(
    ("mode", "directory_owner", "link_owner", "may"),
    [
        # Anybody can put a link there, with a sticky bit or without.
        (0o1777, 0, STRANGER, False),
        (0o777, 0, STRANGER, False),
        (0o702, 0, STRANGER, False),
        # The directory's owner is as strange as anybody.
        (0o1777, STRANGER, STRANGER, False),
        (0o1777, STRANGER, STRANGER + 1, False),
        # A group can.
        (0o770, STRANGER, STRANGER, False),
        (0o770, 0, STRANGER, True),
        # Only its owner can, who was named.
        (0o755, STRANGER, STRANGER, True),
        (0o755, 0, STRANGER, True),
        # It is our own.
        (0o1777, 0, 0, True),
        (0o1777, STRANGER, 0, True),
    ],
)
def test_links_of_others(
    directory: Path,
    mode: int,
    directory_owner: int,
    link_owner: int,
    may: bool,
    walking: bool,
) -> None:
    (directory / "real").mkdir()
    (directory / "real/f").touch()
    shared = directory / "shared"
    shared.mkdir()
    for name, to in {
        "f": "../real/f",
        "d": "../real",
        "again": "d",
        "abs": f"{directory}/real",
    }.items():
        (shared / name).symlink_to(to)
        os.chown(shared / name, link_owner, 0, follow_symlinks=False)
    # A link of ours, in a directory of ours, to one of theirs.
    (directory / "ours").symlink_to("shared/d")
    os.chown(shared, directory_owner, 0)
    shared.chmod(mode)
    there = identity(directory / "real/f")
    ways = [
        *(shared / "f", shared / "d/f", shared / "again/f", shared / "abs/f", directory / "ours/f"),
    ]
    for way in ways:
        if may:
            assert opened(way) == there
            open_file(HOST, str(way), False, "m0").undo()
        else:
            assert refusal(lambda w=way: opened(w)) == STRANGE  # type: ignore[misc]
            assert refusal(lambda w=way: open_file(HOST, str(w), False, "m")) == STRANGE  # type: ignore[misc]
    for work in (new_entry, target):
        new = os.fsencode(shared / "d/new")
        if may:
            work(new).close()
        else:
            assert refusal(lambda w=work, p=new: w(p)) == STRANGE  # type: ignore[misc]
    # Below a root, too, where a link may be followed.
    with rooted(*([] if walking else [directory])) as roots:
        for way in [] if walking else ways[:3]:
            if may:
                assert opened(way, roots) == there
            else:
                assert refusal(lambda w=way: opened(w, roots)) == STRANGE  # type: ignore[misc]
    # To save where a link leads follows it; to make a file does not.
    if not may:
        assert refusal(lambda: target(os.fsencode(shared / "f"))) == STRANGE
    assert os.listdir(directory / "real") == ["f"]


@need_root
def test_a_file_of_others_is_opened_as_it_was_asked_for(directory: Path) -> None:
    """Unlike a link it says itself whose it is, and templates are shared like that."""
    shared = directory / "shared"
    shared.mkdir()
    (shared / "f").write_bytes(b"x")
    os.chown(shared / "f", STRANGER, STRANGER)
    shared.chmod(0o1777)
    backing = open_file(HOST, str(shared / "f"), False, "m0")
    assert backing.size == 1
    backing.undo()


# Below roots


@pytest.fixture
def place(directory: Path) -> Path:
    """A root with a file and a directory in it, and as much outside."""
    for each in ("root", "root/d", "out", "out/d"):
        (directory / each).mkdir()
        (directory / each / "f").touch()
    return directory


def test_what_is_below_a_root(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = place / "root"
    (root / "link").symlink_to("d")
    (root / "d/back").symlink_to("../d/./../f")
    (place / "alias").symlink_to("root")
    monkeypatch.chdir(place)
    with rooted(root) as roots:
        for path, there in {
            f"{root}/f": "root/f",
            f"{root}//.//d/f": "root/d/f",
            f"{root}/d/../f": "root/f",
            f"{root}/link/f": "root/d/f",
            f"{root}/d/back": "root/f",
            f"{root}/link/back": "root/f",
            f"{root}/": "root",
            f"{root}": "root",
            f"{root}/d/": "root/d",
            "root/d/..": "root",
            "root/f": "root/f",
        }.items():
            assert opened(path, roots) == identity(place / there), path
        assert refusal(lambda: opened(f"{root}/f/", roots))[0] == errno.ENOTDIR
        assert refusal(lambda: opened(f"{root}/no", roots))[0] == errno.ENOENT
        assert refusal(lambda: opened(place / "alias/f", roots)) == OUTSIDE
    with rooted(place / "alias") as roots:
        assert opened(place / "alias/f", roots) == identity(root / "f")
        assert opened(root / "f", roots) == identity(root / "f")


@pytest.mark.parametrize(
    "path",
    [
        *("{0}/out/f", "{0}", "/", "/etc/passwd", "out/f", "{0}/root/../out/f", "{0}/rootx/f"),
        *("{0}/root/d/../../out/f", "{0}/root/absolute/f", "{0}/root/to-self/f", "{0}/root/up/f"),
        *("{0}/root/d/up/f", "{0}/root/chain", "{0}/root/proc/fd", "{0}/root/to-f", "{0}/root/.."),
        *("/proc/self/cwd/root/f", "/proc/self/fd/0", "{0}/root/dangling"),
    ],
)
def test_what_is_not_below_a_root(place: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    root = place / "root"
    for name, to in {
        "absolute": f"{place}/out",
        # Where it leads is below the root, but that is found out by following it.
        "to-self": f"{root}",
        "up": "../out",
        "d/up": "../../out",
        "chain": "d/up/f",
        "proc": "/proc/self",
        "to-f": "../out/f",
        "dangling": "../out/none",
    }.items():
        (root / name).symlink_to(to)
    monkeypatch.chdir(place)
    (place / "rootx").mkdir()
    raw = os.fsencode(path.format(place))
    with rooted(root) as roots:
        flags = os.O_RDWR | os.O_CLOEXEC
        assert refusal(lambda: open_path(raw, flags, roots)) == OUTSIDE
        assert refusal(lambda: open_file(Host(roots), raw.decode(), False, "m0")) == OUTSIDE
        assert refusal(lambda: target(raw, roots)) == OUTSIDE
    assert sorted(os.listdir(place / "out")) == ["d", "f"]


def test_an_empty_path_is_missing(place: Path) -> None:
    with rooted(place) as roots:
        for work in (lambda: opened("", roots), lambda: target(b"", roots)):
            assert refusal(work)[0] == errno.ENOENT


def test_no_way_out_through_proc(place: Path, mount: Callable[..., None]) -> None:
    """Not even where it is mounted below the root. Other mounts belong to it."""
    root = place / "root"
    mount("proc", root / "proc")
    mount("tmpfs", root / "tmp")
    (root / "tmp/f").touch()
    with rooted(root) as roots:
        assert opened(root / "tmp/f", roots) == identity(root / "tmp/f")
        assert opened(root / "proc/1/stat", roots)
        for path in ("proc/self/cwd", "proc/self/cwd/x", "proc/self/root/etc", "proc/self/fd/0"):
            assert refusal(lambda p=path: opened(root / p, roots)) == OUTSIDE  # type: ignore[misc]


def test_several_roots(place: Path) -> None:
    with rooted(place / "root", place / "out/d") as roots:
        assert opened(place / "root/f", roots) == identity(place / "root/f")
        assert opened(place / "out/d/f", roots) == identity(place / "out/d/f")
        assert refusal(lambda: opened(place / "out/f", roots)) == OUTSIDE


def test_the_root_of_all(place: Path) -> None:
    with rooted(Path("/")) as roots:
        assert opened(place / "root/f", roots) == identity(place / "root/f")


def test_files_are_made_below_a_root(place: Path) -> None:
    root = place / "root"
    (root / "link").symlink_to("d")
    with rooted(root) as roots:
        for path in ("new", "d/new", "link/new"):
            backing = open_file(Host(roots), f"{root}/{path}", False, "m0")
            assert identity(root / path) == came_to(os.dup(backing.fd))
            backing.undo()
            assert not (root / path).exists()
        backing = open_file(Host(roots), f"{root}/link", False, "m0")
        assert os.readlink(f"/proc/self/fd/{backing.fd}").startswith(f"{root}/d/qemu_back_mem.m0.")
        backing.undo()


@without(OPENAT2)
def test_what_can_be_no_root(directory: Path) -> None:
    (directory / "f").touch()
    for path, number in (
        (directory / "none", errno.ENOENT),
        (directory / "f", errno.ENOTDIR),
        # Of a kernel that can't confine anything to it.
        (directory, errno.ENOSYS),
    ):
        roots = Roots()
        assert refusal(lambda r=roots, p=path: r.add(str(p)))[0] == number  # type: ignore[misc]
        roots.close()


# Against somebody who changes things meanwhile

SWAP = """
import os, sys
os.chdir(sys.argv[1])
print(flush=True)
while True:
    # The directory and the link take turns at being called "d".
    os.rename("d", "real")
    os.rename("link", "d")
    os.rename("d", "link")
    os.rename("real", "d")
"""


@contextmanager
def swapping(directory: Path) -> Iterator[None]:
    """For the length of a block, `d` is a directory, a link, or nothing, in turn."""
    argv = [sys.executable, "-c", SWAP, str(directory)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("to", ["../out/d", "{}/out/d"])
def test_a_link_that_comes_and_goes(place: Path, to: str) -> None:
    """What is reached is within, whatever is swapped for what in the meantime."""
    root = place / "root"
    (root / "link").symlink_to(to.format(place))
    (root / "d/deeper").mkdir()
    (place / "out/d/deeper").mkdir()
    (place / "out/d/deeper/f").touch()
    inside = {identity(root / "d/f"), identity(root / "f")}
    raw = os.fsencode(root)
    seen = set[object]()
    made = 0
    end = time.monotonic() + PATIENCE
    with rooted(root) as roots, swapping(root):
        # Until everything was seen; on a busy machine that takes its time.
        for turn in range(10_000_000):
            path = raw + (b"/d/f", b"/d/deeper/../f", b"/d/deeper/../../f")[turn % 3]
            seen.add(outcome(lambda p=path: open_path(p, O_PATH, roots)))  # type: ignore[misc]
            if turn % 4 == 0:
                try:
                    open_file(Host(roots), f"{root}/d/new", False, "m0").undo()
                    made += 1
                except OSError as error:
                    seen.add(error.errno)
            if turn > 500 and made and {*inside, errno.EXDEV, errno.ENOENT} <= seen:
                break
            if time.monotonic() > end:
                break
    assert {*inside, errno.EXDEV, errno.ENOENT} <= seen
    assert seen - inside <= {errno.EXDEV, errno.ENOENT, errno.EAGAIN, errno.ELOOP, errno.ENOTDIR}
    assert made
    assert sorted(os.listdir(place / "out/d")) == ["deeper", "f"]
    (found,) = (
        root / name
        for name in ("d", "real")
        if (root / name).is_dir() and not (root / name).is_symlink()
    )
    assert sorted(os.listdir(found)) == ["deeper", "f"]


def test_what_was_made_is_removed_where_it_was_made(place: Path) -> None:
    """And not where its path leads by then."""
    root = place / "root"
    backing = open_file(HOST, f"{root}/d/new", False, "m0")
    (root / "d").rename(root / "moved")
    (root / "d").symlink_to("../out/d")
    os.link(root / "moved/new", place / "out/d/new")
    backing.undo()
    assert sorted(os.listdir(root / "moved")) == ["f"]
    assert sorted(os.listdir(place / "out/d")) == ["f", "new"]


@need_root
@without(OPENAT2)
def test_a_link_that_comes_at_the_last_moment(directory: Path) -> None:
    """After the last name was seen to be none."""
    directory.chmod(0o1777)
    (directory / "d").touch()
    (directory / "link").symlink_to("/etc/hostname")
    os.chown(directory / "link", STRANGER, 0, follow_symlinks=False)
    inside = identity(directory / "d")
    raw = os.fsencode(directory / "d")
    seen = set[object]()
    end = time.monotonic() + PATIENCE
    with swapping(directory):
        while not {inside, errno.EACCES, errno.ELOOP} <= seen and time.monotonic() < end:
            seen.add(outcome(lambda: open_path(raw, os.O_RDONLY)))
    assert {inside, errno.EACCES, errno.ELOOP} <= seen
    assert seen <= {inside, errno.EACCES, errno.ELOOP, errno.ENOENT}


def test_directories_are_not_kept_open(place: Path) -> None:
    before = open_descriptors()
    (place / "root/link").symlink_to("../out/d")
    (place / "root/loop").symlink_to("loop")
    with rooted(place / "root") as roots:
        held = open_descriptors()
        for each in (None, roots):
            for name in ("d/f", "link/f", "loop", "none", "d/new", "d/../d", "f/x", "d/new/"):
                path = f"{place}/root/{name}"
                for work in (
                    lambda p=path, r=each: opened(p, r),
                    lambda p=path, r=each: target(p.encode(), r).close(),
                    lambda p=path, r=each: new_entry(p.encode(), r).close(),
                    lambda p=path, r=each: open_file(Host(r), p, False, "m").undo(),
                    lambda p=path, r=each: os.close(open_file(Host(r), p, True, "m").take()),
                ):
                    try:
                        work()
                    except OSError:
                        pass
        assert open_descriptors() == held
    assert open_descriptors() == before


def test_an_entry(directory: Path) -> None:
    entry = target(os.fsencode(directory / "f"))
    assert not entry.is_there()
    os.close(entry.open(os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    assert entry.is_there()
    assert stat.S_ISREG(entry.stat().st_mode)
    entry.unlink()
    (directory / "f").symlink_to("x")
    assert refusal(lambda: entry.open(os.O_RDWR | os.O_CREAT))[0] == errno.ELOOP
    assert os.listdir(directory) == ["f"]
    entry.close()
    entry.close()


# What memd itself writes


def test_a_file_of_ones_own(directory: Path) -> None:
    """It is made where there is none, through a link too, and taken as it is otherwise."""
    path = directory / "log"
    link = directory / "link"
    link.symlink_to(path)
    for each, mode in ((path, 0o600), (link, 0o644)):
        path.unlink(missing_ok=True)
        mask = os.umask(0)
        try:
            first = open_own(os.fsencode(each), os.O_WRONLY, mode)
        finally:
            os.umask(mask)
        assert stat.S_IMODE(path.stat().st_mode) == mode
        again = open_own(os.fsencode(each), os.O_WRONLY, 0o600)
        assert came_to(first) == came_to(again) == identity(path)
    assert came_to(open_own(b"/dev/null", os.O_WRONLY, 0o600)) == identity(Path("/dev/null"))
    read, write = os.pipe()
    found = os.fstat(write)
    to = f"/proc/self/fd/{write}".encode()
    assert came_to(open_own(to, os.O_WRONLY, 0o600)) == (found.st_dev, found.st_ino)
    os.close(read)
    os.close(write)


@need_root
def test_what_strangers_put_there_is_not_written_to(directory: Path) -> None:
    precious = directory / "precious"
    precious.write_bytes(b"x")
    place = directory / "for-all"
    place.mkdir()
    theirs, link, fifo = place / "file", place / "link", place / "fifo"
    theirs.write_bytes(b"")
    link.symlink_to(precious)
    os.mkfifo(fifo)
    for each in (theirs, link, fifo):
        os.chown(each, STRANGER, STRANGER, follow_symlinks=False)
    strange = (errno.EACCES, "File of another user in a directory that others can write")
    for mode in (0o1777, 0o777):
        place.chmod(mode)
        assert refusal(lambda: open_own(os.fsencode(theirs), os.O_WRONLY, 0)) == strange
        assert refusal(lambda: open_own(os.fsencode(link), os.O_WRONLY, 0)) == STRANGE
    place.chmod(0o755)
    for each in (theirs, link):
        os.close(open_own(os.fsencode(each), os.O_WRONLY, 0))
    # Nobody takes a FIFO for a file that was kept.
    place.chmod(0o1777)
    os.close(open_own(os.fsencode(fifo), os.O_RDWR, 0))


@pytest.mark.parametrize("replaced", [False, True])
def test_what_was_made_is_removed_unless_it_is_anothers_by_now(
    tmp_path: Path, replaced: bool
) -> None:
    """A link, which is not followed."""
    path = tmp_path / "link"
    entry = new_entry(os.fsencode(path))
    os.symlink("/dev/null", path)
    made = Made(entry)
    if replaced:
        # The first one stays: its inode's number could be the other's.
        path.rename(tmp_path / "moved")
        os.symlink("/dev/null", path)
    made.remove()
    assert path.is_symlink() is replaced
    # It is closed, and nothing more happens.
    made.remove()
    assert entry.directory == -1
