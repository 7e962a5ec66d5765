"""What opening, mapping, binding and populating would come to, without doing it.

Looks only: paths are opened with O_PATH, which neither reads nor writes, and
permissions are asked for with faccessat(2). What only the attempt can tell
(a device's driver, a file system that is not known here) is marked as unsure.
"""

from __future__ import annotations

import errno
import os
import stat

from memd.hostmem import capacity, libc
from memd.hostmem.files import UINT64, Backing, encode_path, unnamed_prefix
from memd.hostmem.paths import Roots, new_entry, open_path
from memd.hostmem.spec import MapSpec

_MAX_FILE = (1 << 63) - 1
_MOUNTS = "/proc/self/mountinfo"
_NAME_MAX = 255
_EXT4_MAGIC = 0xEF53
# An extent counts a file's blocks with 32 bits.
_EXT4_BLOCKS = (1 << 32) - 1
_MEMFD_NAME_MAX = 249
_NULL_DEVICE = os.makedev(1, 3)
_ZERO_DEVICE = os.makedev(1, 5)

_OPENED = frozenset(("file", "fifo", "device"))

FILE_SYSTEMS = {
    _EXT4_MAGIC: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0xF2F52010: "f2fs",
    0x2FC12FC1: "zfs",
    0x794C7630: "overlay",
    0x6969: "nfs",
    libc.TMPFS_MAGIC: "tmpfs",
    0x858458F6: "ramfs",
    libc.HUGETLBFS_MAGIC: "hugetlbfs",
}
"""File systems on which files are known to be mapped as any, by magic number."""


class Foreseen(Backing):
    """What an open file would be, taken for one by whatever works a mapping out.

    Attributes:
        kind: "file", "directory" (an unnamed file in it), "fifo", "device",
            "memfd", "shm" or "guest-memfd".
        creates: whether a file would be made.
        had: its size in bytes before, -1 for what has none.
        allocated: bytes of it that take space already.
        free: bytes that can still be allocated for it; None where that has no
            limit of its own.
        file_system: its name, or "" where it is not known.
        largest: bytes that its file system lets a file have.
        open_flags: for open(2) or memfd_create(2).
        gets: the size in bytes that it would be given, or None.
        cannot_get: the errno value with which that would fail, or 0.
        mappable: whether it can be mapped at all.
        sure: whether its opening and mapping can be told without trying.
        dax: whether its file system maps persistent memory directly.
    """

    __slots__ = (
        "allocated",
        "cannot_get",
        "creates",
        "dax",
        "file_system",
        "free",
        "gets",
        "had",
        "kind",
        "largest",
        "mappable",
        "open_flags",
        "sure",
    )

    def __init__(self, kind: str, size: int, page_size: int = libc.PAGE_SIZE) -> None:
        super().__init__(-1, size, page_size)
        self.kind = kind
        self.had = size
        self.creates = False
        self.allocated = 0
        self.free: int | None = None
        self.file_system = ""
        self.largest = _MAX_FILE
        self.open_flags = 0
        self.gets: int | None = None
        self.cannot_get = 0
        self.mappable = True
        self.sure = True
        self.dax = False

    @property
    def in_memory(self) -> bool:
        """Whether its pages are memory that no disk holds."""
        return self.kind in ("memfd", "shm", "guest-memfd") or self.file_system in (
            "tmpfs",
            "ramfs",
            "hugetlbfs",
        )

    @property
    def read_only(self) -> bool:
        """Whether it would be opened read-only."""
        return self.kind in _OPENED and self.open_flags & os.O_ACCMODE == os.O_RDONLY

    def truncate(self, size: int) -> None:
        """Keep in mind what it would be given; never raises."""
        self.gets = size
        if self.kind == "device" or self.read_only:
            self.cannot_get = errno.EINVAL
        else:
            self.cannot_get = truncate_error(size, self.largest)


def truncate_error(size: int, largest: int = _MAX_FILE) -> int:
    """The errno value with which a file would not get a size, or 0.

    Args:
        largest: bytes that its file system lets a file have.
    """
    if size > _MAX_FILE:
        return errno.EINVAL
    return errno.EFBIG if size > min(largest, capacity.largest_file()) else 0


def memfd(label: str, flags: int, size: int) -> Foreseen:
    """A memfd to be made.

    Args:
        flags: for memfd_create(2).
        size: that it is to be made with, in bytes.

    Raises:
        OSError: memfd_create(2) would refuse.
    """
    page_size = libc.PAGE_SIZE
    if flags & os.MFD_HUGETLB:
        shift = flags >> os.MFD_HUGE_SHIFT & 0x3F
        page_size = 1 << shift if shift else capacity.default_huge_page_size()
        if page_size not in capacity.huge_page_sizes():
            raise libc.os_error(errno.ENODEV)
    if len(label.encode()) > _MEMFD_NAME_MAX:
        raise libc.os_error(errno.EINVAL)
    found = Foreseen("memfd", size, page_size)
    found.creates = True
    found.open_flags = flags
    return found


def posix_shm(size: int) -> Foreseen:
    """POSIX shared memory to be made in /dev/shm; raises `OSError`."""
    directory = b"/dev/shm"
    _check_makes(directory)
    found = Foreseen("shm", size)
    found.creates = True
    found.open_flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    _look_at_file_system(found, directory)
    return found


def file(path: str, readonly: bool, name: str, roots: Roots | None = None) -> Foreseen:
    """What `files.open_file` would open or make.

    Raises:
        OSError: why it could not.
    """
    raw = encode_path(path)
    try:
        fd = open_path(raw, os.O_PATH | os.O_CLOEXEC, roots)
    except FileNotFoundError:
        if readonly:
            raise
        return _new_file(raw, roots)
    try:
        # By the descriptor: the path may lead elsewhere by now.
        return _existing(b"/proc/self/fd/%d" % fd, os.fstat(fd), readonly, name)
    finally:
        os.close(fd)


def _existing(path: bytes, status: os.stat_result, readonly: bool, name: str) -> Foreseen:
    if stat.S_ISDIR(status.st_mode):
        return _in_directory(path, readonly, name)
    libc.check_access(path, os.R_OK if readonly else os.R_OK | os.W_OK)
    if stat.S_ISSOCK(status.st_mode):
        raise libc.os_error(errno.ENXIO)
    if stat.S_ISREG(status.st_mode):
        found = Foreseen("file", status.st_size)
        _look_at_file_system(found, path)
        # A dead file in /proc answers with what it likes.
        found.sure = bool(found.file_system)
    elif stat.S_ISFIFO(status.st_mode):
        found = Foreseen("fifo", -1)
        found.mappable = False
    else:
        known = status.st_rdev in (_NULL_DEVICE, _ZERO_DEVICE) and stat.S_ISCHR(status.st_mode)
        found = Foreseen("device", 0 if known else -1)
        found.sure = known
        found.mappable = status.st_rdev != _NULL_DEVICE
    found.allocated = status.st_blocks * 512
    found.open_flags = (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC | os.O_NONBLOCK
    return found


def _new_file(path: bytes, roots: Roots | None) -> Foreseen:
    """The file that would be made by a path which leads nowhere."""
    entry = new_entry(path, roots)
    try:
        if entry.is_there():
            raise libc.os_error(errno.EEXIST)
        directory = b"/proc/self/fd/%d" % entry.directory
        _check_makes(directory)
        return _made_in(directory, "file")
    finally:
        entry.close()


def _in_directory(path: bytes, readonly: bool, name: str) -> Foreseen:
    if readonly:
        libc.check_access(path, os.R_OK)
        raise libc.os_error(errno.EISDIR)
    libc.check_access(path, os.X_OK)
    if len(unnamed_prefix(name)) + 6 > _NAME_MAX:
        raise libc.os_error(errno.ENAMETOOLONG)
    _check_makes(path)
    return _made_in(path, "directory")


def _check_makes(directory: bytes) -> None:
    """Ask whether a file could be made in a directory; raises `OSError`.

    A mount that is read-only is said before what the directory's mode denies:
    faccessat(2) says it after, where it is the mount alone and not what is mounted.
    """
    libc.check_access(directory, os.X_OK)
    if os.statvfs(directory).f_flag & os.ST_RDONLY:
        raise libc.os_error(errno.EROFS)
    libc.check_access(directory, os.W_OK)


def _made_in(directory: bytes, kind: str) -> Foreseen:
    found = Foreseen(kind, 0)
    found.creates = True
    found.open_flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    _look_at_file_system(found, directory)
    found.sure = bool(found.file_system)
    return found


def _look_at_file_system(found: Foreseen, path: bytes) -> None:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        magic = libc.file_system_type(fd)
        space = os.fstatvfs(fd)
        found.dax = _is_dax(os.fstat(fd).st_dev)
    finally:
        os.close(fd)
    found.file_system = FILE_SYSTEMS.get(magic, "")
    if magic == _EXT4_MAGIC:
        found.largest = _EXT4_BLOCKS * space.f_bsize
    if magic == libc.HUGETLBFS_MAGIC:
        found.page_size = space.f_bsize
    if space.f_blocks:
        left = space.f_bfree if os.geteuid() == 0 else space.f_bavail
        found.free = left * space.f_frsize


def _is_dax(device: int) -> bool:
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as rows:
        for row in rows:
            words = row.split()
            if words[2] == wanted:
                options = words[-1].split(",")
                return "dax" in options or "dax=always" in options
    return False


def map_error(spec: MapSpec, backing: Foreseen | None) -> int:
    """The errno value with which a mapping would fail, or 0."""
    try:
        area = spec.area(libc.PAGE_SIZE)
    except OSError as failed:
        return failed.errno or errno.EINVAL
    # What is set aside for the alignment has a page behind it that stays free.
    if area > capacity.largest_gap():
        return errno.ENOMEM
    if backing is not None:
        # What is no file with a size counts in all 64 bits.
        end = UINT64 if backing.kind in ("fifo", "device") else _MAX_FILE
        if spec.offset > end - spec.length:
            return errno.EOVERFLOW
        if not backing.mappable:
            return errno.ENODEV
        if backing.huge:
            return 0 if not spec.reserve or _huge_pages_are_there(spec, backing) else errno.ENOMEM
    private_ram = not spec.shared and spec.protection & libc.PROT_WRITE
    if private_ram and not capacity.can_promise(spec.length, spec.reserve):
        return errno.ENOMEM
    return 0


def huge_pages_wanted(spec: MapSpec, backing: Foreseen) -> int:
    """How many huge pages a mapping would have set aside."""
    # A shared mapping counts on the pages that its file has already.
    there = min(backing.allocated, spec.length) if spec.shared else 0
    return (spec.length - there) // spec.page_size


def _huge_pages_are_there(spec: MapSpec, backing: Foreseen) -> bool:
    wanted = huge_pages_wanted(spec, backing)
    if backing.free is not None and wanted * spec.page_size > backing.free:
        return False
    pool = capacity.huge_pool(spec.page_size)
    return pool is not None and wanted <= pool.left + pool.extra


def bind_error(policy: str, nodes: list[int]) -> int:
    """The errno value with which the kernel would refuse nodes, or 0."""
    if policy == "default":
        return 0
    there = capacity.memory_nodes()
    if there is None:
        return errno.ENOSYS
    if nodes[-1] >= capacity.node_limit() or not there & set(nodes):
        return errno.EINVAL
    return 0


def populate_error(spec: MapSpec, backing: Foreseen | None) -> int:
    """The errno value with which preallocation would fail, or 0."""
    if backing is None or backing.kind == "device":
        return 0
    if backing.kind in ("file", "directory") and backing.had == 0 and backing.cannot_get:
        # The file stays empty, and past its end there is nothing.
        return errno.EFAULT
    wanted = space_wanted(spec, backing)
    return errno.EFAULT if backing.free is not None and wanted > backing.free else 0


def space_wanted(spec: MapSpec, backing: Foreseen) -> int:
    """Bytes of the file system that touching every page would take."""
    if backing.huge or backing.kind in ("fifo", "device", "guest-memfd"):
        return 0
    # In memory a hole takes a page when it is read, on a disk when it is written.
    takes = backing.in_memory or (spec.shared and spec.protection & libc.PROT_WRITE)
    return max(0, spec.length - backing.allocated) if takes else 0


def memory_wanted(spec: MapSpec, backing: Foreseen | None) -> int:
    """Bytes of memory that touching every page for writing would take for good."""
    if backing is not None and backing.huge:
        return 0
    private = 0 if spec.shared or not spec.protection & libc.PROT_WRITE else spec.length
    if backing is None:
        return spec.length
    held = max(0, spec.length - backing.allocated) if backing.in_memory else 0
    return private + held
