from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memd.errors import QMPError
from memd.hostmem import files, libc
from memd.hostmem.files import Backing, memfd, open_file, plain_memfd, posix_shm
from memd.hostmem.host import Host
from memd.hostmem.opened import MEMFD
from memd.hostmem.paths import Entry, encode_path, new_entry
from tests.conftest import NOT_HERE
from tests.hostmem.made import HOST

PAGE = libc.PAGE_SIZE
MIB = 1 << 20


def opened(path: Path | str, readonly: bool = False, name: str = "m0") -> Backing:
    return open_file(HOST, str(path), readonly, name)


def refusal(path: Path | str, readonly: bool) -> int | None:
    """The errno value, by whatever way it is opened."""
    found: set[int | None] = set()
    for near in (None, HOST.near(os.fspath(path))):
        try:
            open_file(HOST, str(path), readonly, "m0", near).undo()
            found.add(0)
        except OSError as failed:
            if near is None or failed.errno != errno.EAGAIN:
                found.add(failed.errno)
        finally:
            if near is not None:
                near.close()
    (number,) = found
    return number


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def test_an_existing_file(directory: Path) -> None:
    path = directory / "f"
    path.write_bytes(b"x" * 5000)
    for readonly in (False, True):
        backing = opened(path, readonly)
        mode = fcntl.fcntl(backing.fd, fcntl.F_GETFL) & os.O_ACCMODE
        assert mode == (os.O_RDONLY if readonly else os.O_RDWR)
        assert not os.get_inheritable(backing.fd)
        assert (backing.size, backing.page_size) == (5000, PAGE)
        backing.undo()
        assert backing.fd == -1
        backing.undo()
    assert path.read_bytes() == b"x" * 5000


def test_a_device_may_be_waited_for() -> None:
    """Though its name is on a tmpfs, as all in /dev are."""
    host, fd = Host(), os.open(os.devnull, os.O_RDWR)
    opened = host.look(fd)
    os.close(fd)
    assert host.near(os.fspath(os.devnull)) is None
    assert host.waits_on(os.fspath(os.devnull)) == {opened.number}


def test_what_is_in_memory_is_opened_at_once(directory: Path, mount: Callable[..., None]) -> None:
    """Once a file there has been looked at, and nothing that is mounted there is gone into."""
    mount("tmpfs", directory)
    for name in ("d", "other"):
        (directory / name).mkdir()
    host, path = Host(), directory / "d/f"
    path.write_bytes(bytes(PAGE))
    (directory / "d/empty").touch()
    (directory / "d/link").symlink_to("f")
    assert host.near(os.fspath(path)) is None
    open_file(host, str(path), True, "m0").undo()
    near = host.near(os.fspath(path))
    if near is None:
        pytest.skip(f"{NOT_HERE}Linux 6.8")
    for readonly in (False, True):
        for way in (near, None):
            backing = open_file(host, str(path), readonly, "m0", way)
            # It is known without asking, and so that is what asking says.
            assert backing.opened == HOST.look(backing.fd)
            backing.undo()
    (directory / "d/mounted").touch()
    subprocess.run(["mount", "--bind", "/etc/hostname", directory / "d/mounted"], check=True)
    try:
        for inside in (b"link", b"mounted", b".", b"new", b"empty"):
            near.name = inside
            with pytest.raises(BlockingIOError):
                open_file(host, str(path), False, "m0", near)
    finally:
        subprocess.run(["umount", directory / "d/mounted"], check=True)
    near.close()
    for elsewhere in (directory / "d/link/x", directory / "none/f", Path("/proc/version")):
        assert host.near(os.fspath(elsewhere)) is None


def test_a_missing_file(directory: Path) -> None:
    path = directory / "new"
    assert refusal(path, readonly=True) == errno.ENOENT
    assert names(directory) == []
    os.umask(umask := os.umask(0))
    backing = opened(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644 & ~umask
    assert backing.size == 0
    backing.undo()
    assert names(directory) == []


def test_a_file_that_was_taken_stays(directory: Path) -> None:
    backing = opened(directory / "new")
    fd = backing.take()
    backing.undo()
    assert names(directory) == ["new"]
    os.close(fd)


def test_somebody_elses_file_is_not_removed(directory: Path) -> None:
    backing = opened(directory / "new")
    (directory / "other").write_text("theirs")
    os.replace(directory / "other", directory / "new")
    backing.undo()
    assert (directory / "new").read_text() == "theirs"


HOLDER = """
import mmap, os, sys
access = mmap.ACCESS_READ if sys.argv[2] == "read" else mmap.ACCESS_WRITE
fd = os.open(sys.argv[1], os.O_RDONLY if sys.argv[2] == "read" else os.O_RDWR)
memory = mmap.mmap(fd, 4096, access=access)
os.close(fd)
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("way", ["read", "write"])
def test_a_file_that_another_process_has_mapped_stays(directory: Path, way: str) -> None:
    backing = opened(directory / "new")
    backing.try_truncate(PAGE)
    command = [sys.executable, "-c", HOLDER, str(directory / "new"), way]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        backing.undo()
        assert names(directory) == ["new"]


def test_a_file_that_this_process_has_opened_again_stays(directory: Path) -> None:
    made = opened(directory / "new")
    again = opened(directory / "new")
    made.undo()
    assert names(directory) == ["new"]
    again.undo()
    assert names(directory) == ["new"]


class OpenedMeanwhile(Entry):
    """A name at which somebody begins to open the file while it is looked at."""

    def stat(self) -> os.stat_result:
        with pytest.raises(BlockingIOError):
            os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        return super().stat()


def test_a_file_that_somebody_is_about_to_open_stays(directory: Path) -> None:
    path = os.fsencode(directory / "new")
    made = new_entry(path, None)
    fd, _noted = HOST.create(made, 0o600)
    entry = OpenedMeanwhile(path, made.directory, made.name)
    try:
        assert not HOST.remove_unused(fd, entry)
        assert names(directory) == ["new"]
        assert HOST.remove_unused(fd, made)
        assert names(directory) == []
    finally:
        os.close(fd)
        made.close()


def test_opening_a_file_that_is_removed_makes_a_new_one(directory: Path) -> None:
    """Both at the same time, again and again: nobody is left with a file without a name."""
    done = threading.Event()

    def remove() -> None:
        while not done.is_set():
            opened(directory / "new").undo()

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        for _ in range(300):
            fd = opened(directory / "new").take()
            left = os.fstat(fd).st_nlink
            # While it is open: else the other one may have seen that it is its own, and
            # then remove by its name what has come there since.
            (directory / "new").unlink(missing_ok=True)
            os.close(fd)
            assert left == 1
    finally:
        done.set()
        thread.join()


def test_a_file_without_a_name(directory: Path) -> None:
    with (directory / "f").open("w+b") as file:
        (directory / "f").unlink()
        opened(f"/proc/self/fd/{file.fileno()}").undo()


def test_a_file_that_is_gone_already(directory: Path) -> None:
    backing = opened(directory / "new")
    (directory / "new").unlink()
    backing.undo()


def test_files_of_what_does_not_become_whole(directory: Path) -> None:
    kept = opened(directory / "kept")
    os.close(kept.take())
    unfinished = opened(directory / "unfinished")
    files.remove_unfinished()
    assert names(directory) == ["kept"]
    # A thread that works with the descriptor still has it.
    os.fstat(unfinished.fd)
    unfinished.undo()
    assert not files._unfinished


@pytest.mark.parametrize("path", ["", ".", "{}", "{}/", "{}/link"])
def test_directories(directory: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(directory)
    (directory / "link").symlink_to(".")
    path = path.format(directory)
    if path == "":
        assert refusal(path, readonly=False) == errno.ENOENT
        return
    assert refusal(path, readonly=True) == errno.EISDIR
    backing = opened(path, name="/objects/m0")
    target = os.readlink(f"/proc/self/fd/{backing.fd}")
    head, _, tail = target.removesuffix(" (deleted)").rpartition(".")
    assert head == f"{directory}/qemu_back_mem._objects_m0"
    assert len(tail) == 6
    assert tail.isalnum()
    found = os.fstat(backing.fd)
    assert (stat.S_IMODE(found.st_mode), found.st_nlink, found.st_size) == (0o600, 0, 0)
    backing.undo()
    assert names(directory) == ["link"]


class Crowded(Host):
    """A kernel in whose directories the first names are taken."""

    def __init__(self, taken: int) -> None:
        super().__init__()
        self._taken = taken
        self.asked: set[bytes] = set()

    def create(self, entry: Entry, mode: int) -> tuple[int, int | None]:
        self.asked.add(entry.name)
        if len(self.asked) <= self._taken:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        return super().create(entry, mode)


def test_a_name_that_is_taken(directory: Path) -> None:
    """Another one is tried, a hundred times."""
    host = Crowded(1)
    open_file(host, str(directory), False, "m0").undo()
    assert len(host.asked) == 2
    host = Crowded(1000)
    with pytest.raises(FileExistsError):
        open_file(host, str(directory), False, "m0")
    assert len(host.asked) == 100
    assert names(directory) == []


def test_a_dangling_link(directory: Path) -> None:
    (directory / "link").symlink_to("nowhere")
    assert refusal(directory / "link", readonly=False) == errno.EEXIST
    assert refusal(directory / "link", readonly=True) == errno.ENOENT
    assert names(directory) == ["link"]


def test_others_that_make_the_file_meanwhile(directory: Path) -> None:
    path = directory / "f"

    class Late(Host):
        def open(self, raw: bytes, flags: int) -> int:
            try:
                return super().open(raw, flags)
            finally:
                path.touch()

    open_file(Late(), str(path), False, "m0").undo()
    # It was not made for this, so it stays.
    assert names(directory) == ["f"]


def test_a_loop_of_links(directory: Path) -> None:
    (directory / "a").symlink_to("b")
    (directory / "b").symlink_to("a")
    for readonly in (False, True):
        assert refusal(directory / "a", readonly) == errno.ELOOP


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("{}/no/f", errno.ENOENT),
        ("{}/f/x", errno.ENOTDIR),
        ("{}/" + "a" * 300, errno.ENAMETOOLONG),
        ("{}/socket", errno.ENXIO),
    ],
)
def test_what_can_not_be_opened(directory: Path, path: str, number: int) -> None:
    (directory / "f").touch()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(directory / "socket"))
    for readonly in (False, True):
        assert refusal(path.format(directory), readonly) == number
    assert names(directory) == ["f", "socket"]


@pytest.mark.parametrize("readonly", [False, True])
def test_a_fifo_does_not_wait(directory: Path, readonly: bool) -> None:
    os.mkfifo(directory / "fifo")
    (directory / "fifo").stat()
    backing = open_file(HOST, str(directory / "fifo"), readonly, "m0")
    assert backing.size == -1
    backing.undo()


@pytest.mark.parametrize("readonly", [False, True])
@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero"])
def test_devices(path: str, readonly: bool) -> None:
    backing = opened(path, readonly)
    assert (backing.size, backing.page_size) == (0, PAGE)
    backing.undo()


def test_u_0000_is_spelled_as_qemu_spells_it(directory: Path) -> None:
    backing = opened(f"{directory}/a\0b")
    assert os.listdir(os.fsencode(directory)) == [b"a\xc0\x80b"]
    backing.undo()
    assert names(directory) == []


def test_a_read_only_file_system(directory: Path, mount: Callable[..., None]) -> None:
    mount("tmpfs", directory / "ro", "size=1m")
    (directory / "ro/f").touch()
    subprocess.run(["mount", "-o", "remount,ro", str(directory / "ro")], check=True)
    for name in ("", "f", "new"):
        assert refusal(directory / "ro" / name, readonly=False) == errno.EROFS
    opened(directory / "ro/f", readonly=True).undo()


@pytest.mark.parametrize("name", ["f", "directory", "directory/f"])
def test_permission_denied(directory: Path, name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("not here: root")
    (directory / "f").touch(0o400)
    (directory / "directory").mkdir(0o555)
    directory.chmod(0o755)
    child = os.fork()
    if child == 0:
        number = -1
        try:
            os.setuid(65534)
            opened(directory / name)
        except OSError as failed:
            number = failed.errno or -1
        finally:
            os._exit(number)
    _pid, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == errno.EACCES
    assert names(directory) == ["directory", "f"]


@pytest.fixture
def leased(directory: Path) -> Iterator[Path]:
    """A file that another process holds a lease on, and gives up when asked to."""
    path = directory / "f"
    path.touch()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, os, signal, sys\n"
            "fd = os.open(sys.argv[1], os.O_RDWR)\n"
            "def give_up(*_): fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)\n"
            "signal.signal(signal.SIGIO, give_up)\n"
            "fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n"
            "print(flush=True)\n"
            "while True: signal.pause()\n",
            str(path),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    yield path
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()


def test_a_leased_file_is_waited_for_in_a_thread(leased: Path) -> None:
    # Asking is what breaks the lease, so it is asked for only once.
    outcome: list[Backing] = []
    worker = threading.Thread(target=lambda: outcome.append(opened(leased)))
    worker.start()
    worker.join(60)
    (backing,) = outcome
    backing.undo()


# memfd and POSIX shared memory


def seals(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GET_SEALS)


ALL = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


@pytest.mark.parametrize("seal", [False, True])
def test_memfd(seal: bool) -> None:
    backing = memfd(HOST, "a-label", 12345, hugetlb=False, hugetlbsize=0, seal=seal)
    assert os.readlink(f"/proc/self/fd/{backing.fd}") == "/memfd:a-label (deleted)"
    assert os.fstat(backing.fd).st_size == backing.size == 12345
    assert backing.page_size == PAGE
    # Without MFD_ALLOW_SEALING the kernel sets the seal against sealing.
    assert seals(backing.fd) == (ALL if seal else fcntl.F_SEAL_SEAL)
    assert not os.get_inheritable(backing.fd)
    backing.undo()


def test_plain_memfd() -> None:
    backing = plain_memfd(HOST, "/objects/m0")
    assert os.readlink(f"/proc/self/fd/{backing.fd}") == "/memfd:/objects/m0 (deleted)"
    assert backing.size == 0
    backing.undo()
    with pytest.raises(QMPError) as refused:
        plain_memfd(HOST, "m" * 250)
    assert refused.value.desc == "failed to create memfd with flags 0x1: Invalid argument"


@pytest.mark.parametrize("size", [0, 1, 7, 2 * MIB, (1 << 64) - 1])
def test_memfd_of_huge_pages(hugepages: Callable[[int], None], size: int) -> None:
    hugepages(2)
    backing = memfd(HOST, "x", 4 * MIB, hugetlb=True, hugetlbsize=size, seal=True)
    assert (backing.size, backing.page_size) == (4 * MIB, 2 * MIB)
    assert seals(backing.fd) == ALL
    backing.undo()


@pytest.mark.parametrize(
    ("hugetlb", "hugetlbsize", "size", "seal", "text"),
    [
        (False, 6, PAGE, True, "Hugepage size must be a power of 2"),
        (True, 3 * MIB, PAGE, True, "Hugepage size must be a power of 2"),
        (True, 4096, PAGE, True, "failed to create memfd with flags 0x30000007: No such device"),
        (True, 4096, PAGE, False, "failed to create memfd with flags 0x30000005: No such device"),
        (True, 1 << 63, PAGE, True, "failed to create memfd with flags 0xfc000007: No such device"),
        (True, 0, 3 * MIB, True, "failed to resize memfd to 3145728: Invalid argument"),
        (
            False,
            0,
            1 << 63,
            True,
            "failed to resize memfd to 9223372036854775808: Invalid argument",
        ),
        (
            False,
            0,
            (1 << 64) - 1,
            False,
            "failed to resize memfd to 18446744073709551615: Invalid argument",
        ),
    ],
)
def test_memfd_refusals(hugetlb: bool, hugetlbsize: int, size: int, seal: bool, text: str) -> None:
    with pytest.raises(QMPError) as refused:
        memfd(HOST, "x", size, hugetlb=hugetlb, hugetlbsize=hugetlbsize, seal=seal)
    assert refused.value.desc == text


def test_posix_shm() -> None:
    backing = posix_shm(HOST, 7, 12345)
    target = os.readlink(f"/proc/self/fd/{backing.fd}")
    assert target == f"/dev/shm/qemu-{os.getpid()}-shm-7 (deleted)"
    assert os.fstat(backing.fd).st_size == backing.size == 12345
    assert stat.S_IMODE(os.fstat(backing.fd).st_mode) == 0
    backing.undo()
    with pytest.raises(QMPError) as refused:
        posix_shm(HOST, 8, 1 << 63)
    assert refused.value.desc == (
        "failed to resize POSIX shared memory to 9223372036854775808: Invalid argument"
    )
    # Other processes make theirs meanwhile.
    own = f"qemu-{os.getpid()}-"
    assert not [each for each in names(Path("/dev/shm")) if each.startswith(own)]


def test_posix_shm_whose_name_is_taken() -> None:
    path = Path(f"/dev/shm/qemu-{os.getpid()}-shm-9")
    path.touch()
    try:
        with pytest.raises(QMPError) as refused:
            posix_shm(HOST, 9, 4096)
        assert refused.value.desc == "failed to create POSIX shared memory: File exists"
    finally:
        path.unlink()


def test_too_many_files(directory: Path) -> None:
    # In a process of its own: the limit would hit whatever else runs here.
    (directory / "f").touch()
    script = (
        "import os, resource, sys\n"
        "from memd.errors import QMPError\n"
        "from memd.hostmem.files import memfd, open_file, plain_memfd, posix_shm\n"
        "from memd.hostmem.host import Host\n"
        "HOST = Host()\n"
        "fd = os.open('/dev/null', os.O_RDONLY)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (fd + 1, fd + 1))\n"
        "for make in (\n"
        "    lambda: memfd(HOST, 'x', 4096, hugetlb=False, hugetlbsize=0, seal=True),\n"
        "    lambda: plain_memfd(HOST, 'x'),\n"
        "    lambda: posix_shm(HOST, 1, 4096),\n"
        "    lambda: open_file(HOST, sys.argv[1] + '/f', False, 'm0'),\n"
        "    lambda: open_file(HOST, sys.argv[1], False, 'm0'),\n"
        "    lambda: open_file(HOST, sys.argv[1] + '/new', False, 'm0'),\n"
        "):\n"
        "    try: make()\n"
        "    except QMPError as error: print(error.desc)\n"
        "    except OSError as error: print(error.strerror)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(directory)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.splitlines() == [
        "failed to create memfd with flags 0x3: Too many open files",
        "failed to create memfd with flags 0x1: Too many open files",
        "failed to create POSIX shared memory: Too many open files",
        "Too many open files",
        "Too many open files",
        "Too many open files",
    ]
    assert names(directory) == ["f"]


# What fits


def backing_of(size: int, page_size: int = PAGE) -> Backing:
    magic = libc.TMPFS_MAGIC if page_size == PAGE else libc.HUGETLBFS_MAGIC
    opened = MEMFD._replace(size=size, magic=magic, block_size=page_size)
    return Backing(HOST, os.memfd_create("x"), opened)


@pytest.mark.parametrize(
    ("there", "page", "size", "offset", "align", "text"),
    [
        (
            MIB,
            PAGE,
            1 << 30,
            0,
            3,
            "m0 backing store size 0x100000 is too small for 'size' option 0x40000000"
            " plus 'offset' option 0x0",
        ),
        (
            MIB,
            PAGE,
            MIB - 1,
            1,
            3,
            "m0 backing store size 0x100000 is too small for 'size' option 0x100000"
            " plus 'offset' option 0x1",
        ),
        (MIB, PAGE, PAGE, 100, 3, "alignment 0x3 must be multiples of page size 0x1000"),
        (MIB, PAGE, PAGE, 100, 0x3000, "alignment 0x3000 must be a power of two"),
        (MIB, PAGE, PAGE, 100, 0, "offset 0x64 must be multiples of page size 0x1000"),
        (0, 2 * MIB, PAGE, 0, PAGE, "alignment 0x1000 must be multiples of page size 0x200000"),
        (0, 2 * MIB, PAGE, PAGE, 0, "offset 0x1000 must be multiples of page size 0x200000"),
        (
            0,
            2 * MIB,
            1,
            0,
            0,
            "memory size 0x1000 must be equal to or larger than page size 0x200000",
        ),
        (
            -1,
            PAGE,
            (1 << 64) - 1,
            0,
            0,
            "memory size 0x0 must be equal to or larger than page size 0x1000",
        ),
    ],
)
def test_what_does_not_fit(
    there: int, page: int, size: int, offset: int, align: int, text: str
) -> None:
    backing = backing_of(there, page)
    with pytest.raises(QMPError) as refused:
        backing.fit("m0", size, offset, align)
    assert refused.value.desc == text
    assert os.fstat(backing.fd).st_size == 0
    backing.undo()


@pytest.mark.parametrize(
    ("there", "page", "size", "offset", "align", "length", "size_then"),
    [
        (0, PAGE, 1, 0, 0, PAGE, PAGE),
        (0, PAGE, PAGE + 1, PAGE, 8 * PAGE, 2 * PAGE, 3 * PAGE),
        (0, 2 * MIB, 2 * MIB + 1, 2 * MIB, 2 * MIB, 4 * MIB, 6 * MIB),
        # A file with content is left alone, and so is what has no size.
        (MIB, PAGE, MIB, 0, 0, MIB, 0),
        (MIB, PAGE, MIB // 2, MIB // 2, 0, MIB // 2, 0),
        (-1, PAGE, MIB, 0, 0, MIB, 0),
        # QEMU adds at 64 bits.
        (MIB, PAGE, MIB, (1 << 64) - PAGE, 0, MIB, 0),
    ],
)
def test_what_fits(
    there: int,
    page: int,
    size: int,
    offset: int,
    align: int,
    length: int,
    size_then: int,
) -> None:
    backing = backing_of(there, page)
    assert backing.fit("m0", size, offset, align) == length
    assert os.fstat(backing.fd).st_size == size_then
    backing.undo()


@pytest.mark.parametrize(
    ("size", "offset"), [(1 << 63, 0), (PAGE, 1 << 63), (PAGE, (1 << 63) - PAGE)]
)
def test_a_size_that_can_not_be_given_is_logged(
    caplog: pytest.LogCaptureFixture, size: int, offset: int
) -> None:
    backing = backing_of(0)
    backing.fit("m0", size, offset, 0)
    assert caplog.messages == ["ftruncate: Invalid argument"]
    backing.undo()


def test_truncate() -> None:
    backing = backing_of(0)
    HOST.truncate(backing.fd, 5)
    assert os.fstat(backing.fd).st_size == 5
    with pytest.raises(OSError) as failed:
        HOST.truncate(backing.fd, 1 << 64)
    assert failed.value.errno == errno.EINVAL
    backing.undo()


def test_random_letters() -> None:
    assert len(files.random_letters()) == 6
    assert files.random_letters() != files.random_letters()


def test_a_file_of_huge_pages(
    directory: Path, mount: Callable[..., None], hugepages: Callable[[int], None]
) -> None:
    hugepages(2)
    mount("hugetlbfs", directory / "huge")
    for path in (directory / "huge", directory / "huge/f"):
        backing = opened(path)
        assert backing.page_size == 2 * MIB
        backing.undo()
    assert names(directory / "huge") == []


def test_names_that_are_not_text(directory: Path) -> None:
    """The command line may have any bytes: the file is the one that they name."""
    path = os.fsencode(directory) + b"/\xff\xc3\xa9"
    files.open_file(HOST, os.fsdecode(path), False, "m0").undo()
    assert encode_path(os.fsdecode(path)) == path
    with open(path, "wb") as file:
        file.write(b"x" * 5000)
    backing = files.open_file(HOST, os.fsdecode(path), True, "m0")
    assert backing.size == 5000
    backing.undo()
    assert encode_path("a\0é") == b"a\xc0\x80\xc3\xa9"
