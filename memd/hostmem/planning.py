"""The planning host: predicts what the kernel would do, and creates nothing.

Paths are opened with O_PATH, which neither reads nor writes, and permissions are
checked with faccessat(2). It tries what has no lasting effect: whether so much
anonymous memory can be mapped, whether a page can be bound to nodes. If only a real
attempt could tell (a device's driver, an unknown file system) it raises `CannotTell`.
"""

from __future__ import annotations

import errno
import os
import stat

from memd.hostmem import capacity, kvm, libc
from memd.hostmem.capacity import CannotTell
from memd.hostmem.host import Host, Mapping, Populating
from memd.hostmem.opened import EXT4_MAGIC, GUEST_MEMFD, LOCAL, MEMFD, Opened, look
from memd.hostmem.paths import Entry
from memd.hostmem.spec import OFF_T_MAX, UINT64, MapSpec

_MOUNTS = "/proc/self/mountinfo"
_SWAPS = "/proc/swaps"
# An extent counts a file's blocks with 32 bits.
_EXT4_BLOCKS = (1 << 32) - 1
_MEMFD_NAME_MAX = 249
_NULL_DEVICE = os.makedev(1, 3)
_ST_NODEV = 4

_OPENED = frozenset(("file", "fifo", "device"))

FILE_SYSTEMS = {**LOCAL, 0x6969: "nfs"}
"""File systems on which files are known to be mapped as any, by magic number."""


class PlannedFile:
    """The facts that an open file would have.

    Attributes:
        kind: "file", "directory" (an unnamed file in it), "fifo", "device",
            "memfd", "shm" or "guest-memfd".
        opened: what would be known of it.
        creates: whether a file would be made.
        allocated: bytes of it that take space already.
        free: bytes that can still be allocated for it; None where that has no
            limit of its own.
        file_system: its name, or "" where it is not known.
        largest: bytes that its file system lets a file have.
        open_flags: for open(2) or memfd_create(2).
        gets: the size in bytes that it would be given, or None.
        cannot_get: the errno value with which that would fail, or 0.
        dax: whether its file system maps persistent memory directly.
    """

    creates = False
    allocated = 0
    free: int | None = None
    file_system = ""
    largest = OFF_T_MAX
    gets: int | None = None
    cannot_get = 0
    dax = False

    def __init__(self, kind: str, opened: Opened, open_flags: int) -> None:
        self.kind = kind
        self.opened = opened
        self.open_flags = open_flags

    @property
    def had(self) -> int:
        """Its size in bytes before, -1 for what has none."""
        return self.opened.size

    @property
    def page_size(self) -> int:
        """Of its memory, in bytes."""
        return self.opened.page_size

    @property
    def huge(self) -> bool:
        """Whether its memory is made of huge pages."""
        return self.page_size > libc.PAGE_SIZE

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
        return self.kind in _OPENED and self.opened.read_only


class PlanningHost(Host):
    """See the module; for making one backend, and that once.

    Args:
        real: the host that it plans for.
        ready: whether the memory is there already, and only taken.

    Attributes:
        ready: see above.
        file: the file that memory would come from; None for anonymous memory.
        spec: what would be mapped; None before it has come to that.
    """

    plans = True

    def __init__(self, real: Host, *, ready: bool = False) -> None:
        super().__init__(real.roots)
        self._real = real
        self.ready = ready
        self.file: PlannedFile | None = None
        self.spec: MapSpec | None = None
        # By a descriptor that stands for each: of it, of its directory, or of any.
        self._files: dict[int, PlannedFile] = {}

    def warn(self, line: str) -> None:
        """Nothing has happened."""

    # Files

    def open(self, path: bytes, flags: int) -> int:
        """See whether it could be opened."""
        fd = super().open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            self._files[fd] = _existing(fd, flags)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def create(self, entry: Entry, mode: int) -> tuple[int, int | None]:
        """See whether a file could be made."""
        if entry.is_there():
            raise libc.os_error(errno.EEXIST)
        shm = entry.directory == libc.AT_FDCWD
        directory = os.path.dirname(entry.name) if shm else b"."
        where = os.open(
            directory, os.O_PATH | os.O_CLOEXEC, dir_fd=None if shm else entry.directory
        )
        try:
            _check_makes(where)
            kind = "shm" if shm else "file" if mode == 0o644 else "directory"
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            new = PlannedFile(kind, MEMFD, flags | os.O_NOFOLLOW if shm else flags)
            new.creates = True
            _look_at_file_system(new, where)
        except BaseException:
            os.close(where)
            raise
        self._files[where] = new
        return where, None

    def unlink(self, entry: Entry) -> None:
        """Nothing was made."""

    def remove_unused(self, fd: int, entry: Entry) -> bool:
        """Nothing was made."""
        return False

    def look(self, fd: int) -> Opened:
        """What would be known of the file; it is the one that memory comes from."""
        self.file = self._files[fd]
        return self.file.opened

    def truncate(self, fd: int, size: int) -> None:
        """Take note of the size, and see whether the file could be given it."""
        file = self._files[fd]
        file.gets = size
        if (
            file.kind == "device"
            or file.read_only
            or (file.huge and size % file.page_size)
            or size > OFF_T_MAX
        ):
            file.cannot_get = errno.EINVAL
        elif size > min(file.largest, capacity.largest_file()):
            file.cannot_get = errno.EFBIG
        if file.cannot_get:
            raise libc.os_error(file.cannot_get)

    def close(self, fd: int) -> None:
        """Close what stands for a file."""
        self._files.pop(fd, None)
        os.close(fd)

    def memfd(self, label: str, flags: int) -> int:
        """See whether a memfd could be made."""
        opened = MEMFD
        if flags & os.MFD_HUGETLB:
            shift = flags >> os.MFD_HUGE_SHIFT & 0x3F
            page_size = 1 << shift if shift else capacity.default_huge_page_size()
            if page_size not in capacity.huge_page_sizes():
                raise libc.os_error(errno.ENODEV)
            opened = MEMFD._replace(magic=libc.HUGETLBFS_MAGIC, block_size=page_size)
        if len(label.encode()) > _MEMFD_NAME_MAX:
            raise libc.os_error(errno.EINVAL)
        return self._without_name(PlannedFile("memfd", opened, flags))

    def seal(self, fd: int) -> None:
        """A memfd can be sealed."""

    def guest_memfd(self, size: int) -> int:
        """See whether a guest_memfd could be made."""
        kvm.plan(size, self._real.kvm_device)
        file = PlannedFile("guest-memfd", GUEST_MEMFD, kvm.MMAP | kvm.INIT_SHARED)
        file.gets = size
        return self._without_name(file)

    def _without_name(self, file: PlannedFile) -> int:
        file.creates = True
        fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
        self._files[fd] = file
        return fd

    # Memory

    def map(self, spec: MapSpec, fd: int) -> Mapping:
        """See whether it could be mapped."""
        self.spec = spec
        self.file = file = self._files.get(fd)
        if self.ready:
            return Mapping(0, 0, 0, False)
        if file is not None and not _is_sure(file):
            raise CannotTell
        # What the kernel allows a process, and promises all of them, counts alike for
        # a private mapping of a file.
        alike = spec._replace(offset=0, sync=False)
        if file is not None:
            self._try(alike._replace(protection=libc.PROT_NONE, shared=False))
            number = _is_refused(spec, file)
            if number:
                raise libc.os_error(number)
        if file is None or file.opened.zero_device or not (spec.shared or file.huge):
            self._try(alike)
        return Mapping(0, 0, 0, file is not None and file.dax and spec.sync and spec.shared)

    def _try(self, spec: MapSpec) -> None:
        """Map so much anonymous memory for a moment."""
        mapping = super().map(spec, -1)
        libc.munmap(mapping.area, mapping.area_length)

    def never_overcommits(self) -> bool:
        return self._real.never_overcommits()

    def unmap(self, address: int, length: int) -> None:
        """Nothing is mapped."""

    def advise(self, address: int, length: int, advice: int) -> int:
        """Advice is taken, or passed over."""
        return 0

    def bind(self, address: int, length: int, policy: str, nodes: list[int]) -> None:
        """See what the kernel says to binding one page."""
        flags = libc.MAP_PRIVATE | libc.MAP_ANONYMOUS
        page = libc.mmap(0, libc.PAGE_SIZE, libc.PROT_NONE, flags, -1, 0)
        try:
            super().bind(page, libc.PAGE_SIZE, policy, nodes)
        finally:
            libc.munmap(page, libc.PAGE_SIZE)

    def populate(self, population: Populating) -> None:
        """See whether there is enough."""
        spec, file = self.spec, self.file
        if self.ready:
            return
        if spec is None:
            raise CannotTell
        # Of a file system in memory and memory itself, which ends first can't
        # be told; and what the kernel does then is not always an error.
        if memory_wanted(spec, file) > capacity.left_to_use():
            raise CannotTell
        if file is None or file.kind == "device":
            return
        # Past the end of a file that stays empty there is nothing.
        empty = file.kind in ("file", "directory") and file.had == 0 and file.cannot_get
        if empty or lacks_space(spec, file):
            raise libc.os_error(errno.EFAULT)


def _existing(fd: int, flags: int) -> PlannedFile:
    """The file that would be opened with these flags; raises `OSError`."""
    status = os.fstat(fd)
    readonly = flags & os.O_ACCMODE == os.O_RDONLY
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR and not readonly:
        raise libc.os_error(errno.EISDIR)
    if kind in (stat.S_IFCHR, stat.S_IFBLK) and os.fstatvfs(fd).f_flag & _ST_NODEV:
        raise libc.os_error(errno.EACCES)
    libc.check_access(fd, os.R_OK if readonly else os.R_OK | os.W_OK)
    if kind == stat.S_IFSOCK:
        raise libc.os_error(errno.ENXIO)
    if not readonly and libc.is_append_only(fd):
        raise libc.os_error(errno.EPERM)
    known = kind == stat.S_IFCHR and status.st_rdev in (_NULL_DEVICE, libc.ZERO_DEVICE)
    size = status.st_size if kind == stat.S_IFREG else 0 if known else -1
    name = "file" if kind == stat.S_IFREG else "fifo" if kind == stat.S_IFIFO else "device"
    # There is no end to seek where nothing is opened.
    opened = look(fd, read_only=readonly)._replace(size=size)
    found = PlannedFile(name, opened, flags)
    if kind == stat.S_IFREG:
        _look_at_file_system(found, fd)
    found.allocated = status.st_blocks * 512
    return found


def _check_makes(directory: int) -> None:
    """Ask whether a file could be made in a directory; raises `OSError`.

    A mount that is read-only is said before what the directory's mode denies:
    faccessat(2) says it after, where it is the mount alone and not what is mounted.
    """
    libc.check_access(directory, os.X_OK)
    space = os.fstatvfs(directory)
    if space.f_flag & os.ST_RDONLY:
        raise libc.os_error(errno.EROFS)
    libc.check_access(directory, os.W_OK)
    if space.f_files and not (space.f_ffree if os.geteuid() == 0 else space.f_favail):
        raise libc.os_error(errno.ENOSPC)


def _look_at_file_system(found: PlannedFile, fd: int) -> None:
    """See what there is to know of the file system that a file or directory is on."""
    magic = libc.file_system_type(fd)
    space = os.fstatvfs(fd)
    found.dax = is_dax(os.fstat(fd).st_dev)
    found.file_system = FILE_SYSTEMS.get(magic, "")
    if magic == EXT4_MAGIC:
        found.largest = _EXT4_BLOCKS * space.f_bsize
    found.opened = found.opened._replace(magic=magic)
    if magic == libc.HUGETLBFS_MAGIC:
        found.opened = found.opened._replace(block_size=space.f_bsize)
    if space.f_blocks:
        left = space.f_bfree if os.geteuid() == 0 else space.f_bavail
        found.free = left * space.f_frsize


def is_dax(device: int, mounts: str = _MOUNTS) -> bool:
    """Whether files of a device are mapped directly, as the kernel's table of mounts tells."""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for row in capacity.rows_of(mounts):
        words = row.split()
        if words[2] == wanted:
            options = words[-1].split(",")
            return "dax" in options or "dax=always" in options
    return False


def _is_sure(file: PlannedFile) -> bool:
    """Whether its mapping can be told without trying."""
    if file.kind == "device":
        return file.had == 0
    # A file in /proc of a process that has ended may answer with any error.
    return bool(file.file_system) or file.kind not in ("file", "directory")


def _is_refused(spec: MapSpec, file: PlannedFile) -> int:
    """The errno value with which the kernel would refuse to map a file, or 0."""
    # What is not a file with a size counts in all 64 bits.
    end = UINT64 if file.kind in ("fifo", "device") else OFF_T_MAX
    if spec.offset > end - spec.length:
        return errno.EOVERFLOW
    if spec.shared and spec.protection & libc.PROT_WRITE and _is_swap(file.opened):
        return errno.ETXTBSY
    if file.kind in ("fifo", "device") and not file.opened.zero_device:
        return errno.ENODEV
    if file.huge and spec.reserve and not _huge_pages_are_there(spec, file):
        return errno.ENOMEM
    return 0


def _is_swap(opened: Opened) -> bool:
    """Whether it is a file that the kernel swaps to."""
    for row in capacity.rows_of(_SWAPS)[1:]:
        path = row.split()[0].encode("utf-8", "surrogateescape")
        try:
            found = os.stat(path.decode("unicode_escape").encode("latin-1"))
        except OSError:
            continue
        if (found.st_dev, found.st_ino) == (opened.device, opened.inode):
            return True
    return False


def huge_pages_wanted(spec: MapSpec, file: PlannedFile) -> int:
    """How many huge pages a mapping would have set aside."""
    # A shared mapping counts on the pages that its file has already.
    there = min(file.allocated, spec.length) if spec.shared else 0
    return (spec.length - there) // spec.page_size


def _huge_pages_are_there(spec: MapSpec, file: PlannedFile) -> bool:
    wanted = huge_pages_wanted(spec, file)
    if file.free is not None and wanted * spec.page_size > file.free:
        return False
    pool = capacity.huge_pool(spec.page_size)
    return pool is not None and wanted <= pool.left + pool.extra


def space_wanted(spec: MapSpec, file: PlannedFile) -> int:
    """Bytes of the file system that touching every page would take."""
    if file.huge or file.kind in ("fifo", "device", "guest-memfd"):
        return 0
    # In memory a hole takes a page when it is read, on a disk when it is written.
    takes = file.in_memory or (spec.shared and spec.protection & libc.PROT_WRITE)
    return max(0, spec.length - file.allocated) if takes else 0


def lacks_space(spec: MapSpec | None, file: PlannedFile | None) -> bool:
    """Whether not every page of a file's memory is available."""
    if file is None or spec is None or file.free is None:
        return False
    return space_wanted(spec, file) > file.free


def memory_wanted(spec: MapSpec, file: PlannedFile | None) -> int:
    """Bytes of memory that touching every page for writing would take for good."""
    if file is not None and file.huge:
        return 0
    private = 0 if spec.shared or not spec.protection & libc.PROT_WRITE else spec.length
    if file is None:
        return spec.length
    held = max(0, spec.length - file.allocated) if file.in_memory else 0
    return private + held
