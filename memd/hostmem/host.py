"""The interface to the kernel for memory and its files.

There are three: `Host` calls the kernel; `planning.PlanningHost` predicts results and
creates nothing; that of `memd.faulty.kernel` fails on request. Code that allocates
memory is the same with each.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Sequence
from typing import Protocol

from memd.hostmem import file_systems, kvm, libc, numa
from memd.hostmem.opened import Opened, look
from memd.hostmem.paths import Entry, Roots, encode_path, open_path
from memd.hostmem.spec import OFF_T_MAX, MapSpec
from memd.named_tuple import NamedTuple

_ELSEWHERE = frozenset((errno.ELOOP, errno.EXDEV, errno.EISDIR, errno.ENOENT))
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_KNOWN = libc.RESOLVE_CACHED | libc.RESOLVE_NO_SYMLINKS
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

NO_RESERVE_UNSUPPORTED = (
    'Skipping reservation of swap space is not supported: "/proc/sys/vm/overcommit_memory" is "2"'
)


class Unsupported(Exception):
    """The kernel would not do what the options ask for; its text is for the log."""


class Mapping(NamedTuple):
    """Where memory is mapped.

    Attributes:
        address: where it begins.
        area: where the addresses begin that are set aside for it.
        area_length: how many bytes of them there are.
        synced: whether writes survive a crash without fsync(2) (MAP_SYNC).
    """

    address: int
    area: int
    area_length: int
    synced: bool


class Populating(Protocol):
    """A population that is to be run; see `populate.Population`."""

    def run(self) -> None:
        """Make the pages."""


class CreationLog(Protocol):
    """Takes note of files that are made, so that they can go even after a kill -9.

    Called from any thread. Each may raise `OSError`; a file whose making can't be
    noted is not made.
    """

    def making(self, path: bytes) -> int:
        """A file is going to be made; gives it a number."""

    def made(self, number: int, fd: int) -> None:
        """It is there, and empty."""

    def settled(self, number: int) -> None:
        """It is gone again, or has lost its name."""


class Host:
    """The kernel. Whatever it refuses is an `OSError`.

    Attributes:
        roots: what the files have to be below that clients name; None for anywhere.
        creations: takes note of files that are made, or None.
    """

    plans = False
    """Whether it only predicts what the kernel would do."""

    ready = False
    """Whether the memory comes from a pool."""

    kvm_device = kvm.DEVICE
    """The device that makes guest_memfds."""

    def __init__(self, roots: Roots | None = None) -> None:
        self.roots = roots
        self.creations: CreationLog | None = None
        # The mounts that have been seen to be in memory.
        self._tmpfs: set[int] = set()
        # And the numbers of such file systems.
        self._in_memory: set[int] = set()

    def warn(self, line: str) -> None:
        """Put a warning into the log.

        Args:
            line: the warning; what stands for bytes that are not text is written as an
                escape, as handlers of log records encode them.
        """
        # Not imported with the module: nearly every daemon gets by without.
        import logging

        text = line.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        logging.getLogger("memd").warning("%s", text)

    # Files

    def open(self, path: bytes, flags: int) -> int:
        """Open an existing file, by the rules of `memd.hostmem.paths`."""
        return open_path(path, flags, self.roots)

    def near(self, path: str) -> Entry | None:
        """The directory entry of a path that can be opened without blocking; None if unknown.

        That is one on a tmpfs on which a file has been opened before.
        """
        if not self._tmpfs or self.roots is not None:
            return None
        raw = encode_path(path)
        directory, slash, name = raw.rpartition(b"/")
        try:
            fd = libc.openat2(libc.AT_FDCWD, directory or slash or b".", _DIRECTORY, _KNOWN)
        except OSError:
            return None
        if name and libc.mount_of(fd) in self._tmpfs:
            return Entry(raw, fd, name)
        os.close(fd)
        return None

    def waits_on(self, path: str) -> frozenset[int]:
        """`Job.on` for opening a path, as far as is known without waiting."""
        return file_systems.of_path(encode_path(path), self._in_memory)

    def open_near(self, entry: Entry, flags: int) -> int:
        """Open a file that the kernel knows in its directory; else BlockingIOError.

        To look for another one, or to make it, has the directory locked.
        """
        try:
            return entry.open_at_once(flags)
        except OSError as failed:
            if failed.errno in _ELSEWHERE:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
            raise

    def open_at(self, directory: int, name: bytes, flags: int, mode: int = 0) -> int:
        """Open or make a file in a directory, by its descriptor."""
        return os.open(name, flags, mode, dir_fd=directory)

    def create(self, entry: Entry, mode: int) -> tuple[int, int | None]:
        """Make a file, which must not be there yet, and open it for reading and writing.

        Args:
            mode: its permissions, before the umask.

        Returns:
            its descriptor, and by which number its making was noted, if it was.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        if self.creations is None:
            return entry.open(flags, mode), None
        number = self.creations.making(entry.path)
        try:
            fd = entry.open(flags, mode)
        except OSError:
            self.settle(number)
            raise
        try:
            self.creations.made(number, fd)
        except BaseException:
            entry.unlink()
            os.close(fd)
            raise
        return fd, number

    def settle(self, number: int | None) -> None:
        """Have it noted that a file is gone again, or has lost its name.

        Args:
            number: by which its making was noted; None if it was not.
        """
        if self.creations is not None and number is not None:
            try:
                self.creations.settled(number)
            except OSError:
                # Crash recovery will find that it does not exist.
                pass

    def unlink(self, entry: Entry) -> None:
        """Remove a file's name."""
        entry.unlink()

    def rename(self, directory: int, old: bytes, new: bytes) -> None:
        """Give a file of a directory another name, in place of a file that has it."""
        os.rename(old, new, src_dir_fd=directory, dst_dir_fd=directory)

    def remove_unused(self, fd: int, entry: Entry) -> bool:
        """Remove a file that nobody else has open, nor mapped.

        A write lease says so: the kernel gives one only on a file that is open once,
        and who opens it after that waits until the lease is given back.

        Args:
            fd: of the file, open for writing, and the only descriptor but for copies of it.
            entry: where it is, if nothing else has come there.

        Returns:
            Whether it is removed: not where it is in use, or it can't be told.
        """
        try:
            # Who is waited for is told by a signal; this one is ignored.
            fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except OSError as failed:
            if failed.errno != errno.EAGAIN:
                path = os.fsdecode(entry.path)
                text = f"'{path}' stays: whether others use it can't be told: {failed.strerror}"
                self.warn(text)
            return False
        try:
            # Somebody may have put another file there, or be about to open this one.
            ours = os.path.samestat(os.fstat(fd), entry.stat())
            if not ours or fcntl.fcntl(fd, fcntl.F_GETLEASE) != fcntl.F_WRLCK:
                return False
            entry.unlink()
            return True
        finally:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    def look(self, fd: int) -> Opened:
        """The facts of an open file; see `Opened`."""
        opened = look(fd)
        # A device may be waited for, though its name is on a tmpfs.
        if opened.in_memory and stat.S_ISREG(opened.mode):
            self._in_memory.add(opened.number)
            if opened.magic == libc.TMPFS_MAGIC and (mount := libc.mount_of(fd)):
                self._tmpfs.add(mount)
        return opened

    def truncate(self, fd: int, size: int) -> None:
        """Set a file's size in bytes; one that C's off_t can't hold is EINVAL."""
        if size > OFF_T_MAX:
            raise libc.os_error(errno.EINVAL)
        os.ftruncate(fd, size)

    def punch_hole(self, fd: int, offset: int, length: int) -> None:
        """Take a range out of a file, which keeps its size."""
        libc.punch_hole(fd, offset, length)

    def read(self, fd: int, into: bytearray | memoryview, offset: int) -> int:
        """Read a part of a file; gives how many bytes."""
        return os.preadv(fd, [into], offset)

    def write(self, fd: int, data: bytes | memoryview, offset: int) -> None:
        """Write all of it at an offset of a file."""
        libc.write_at(fd, data, offset)

    def copy(self, source: int, offset: int, to: int, at: int, length: int) -> int:
        """Copy a part of a file to another; gives how many bytes.

        They are fewer where an error is in the way, or the kernel does not copy between such
        files: reading and writing the rest tells.
        """
        done = 0
        try:
            while done < length:
                count = os.copy_file_range(source, to, length - done, offset + done, at + done)
                if not count:
                    break
                done += count
        except OSError:
            pass
        return done

    def cachestat(self, fd: int, offset: int, length: int) -> tuple[int, int]:
        """Pages of a file in memory, and evicted; see `libc.cachestat`."""
        return libc.cachestat(fd, offset, length)

    def swap_used(self) -> bool:
        """Whether anything of this host is swapped out."""
        return libc.swap_used()

    def sync(self, fd: int) -> None:
        """Have a file's content, or a directory's, on the disk."""
        os.fsync(fd)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    # Files without a name

    def memfd(self, label: str, flags: int) -> int:
        """Make a memfd (memfd_create(2))."""
        return os.memfd_create(label, flags)

    def seal(self, fd: int) -> None:
        """Forbid growing, shrinking and further sealing of a memfd."""
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)

    def guest_memfd(self, size: int) -> int:
        """Make a guest_memfd; see `kvm.guest_memfd`, which raises `QMPError`."""
        return kvm.guest_memfd(size, self.kvm_device)

    # Memory

    def map(self, spec: MapSpec, fd: int) -> Mapping:
        """Map memory.

        Args:
            fd: the file, or -1 for anonymous memory.

        Raises:
            Unsupported: the kernel would not leave swap space unreserved.
        """
        if self._reserves_anyway(spec):
            raise Unsupported(NO_RESERVE_UNSUPPORTED)
        area_length = spec.area(libc.PAGE_SIZE)
        if area_length <= spec.length:
            address, synced = _map(spec, 0, 0, fd)
            return Mapping(address, address, spec.length, synced)
        # More is set aside than is needed, mapped where the alignment is right, and trimmed.
        flags = libc.MAP_PRIVATE | libc.MAP_ANONYMOUS
        area = libc.mmap(0, area_length, libc.PROT_NONE, flags, -1, 0)
        address = area + -area % spec.align
        try:
            _, synced = _map(spec, address, libc.MAP_FIXED, fd)
        except BaseException:
            libc.munmap(area, area_length)
            raise
        # One page that can't be touched stays behind it: the kernel would
        # join this mapping and the next one of the same kind otherwise.
        end = address + spec.length + libc.PAGE_SIZE
        if address > area:
            libc.munmap(area, address - area)
        if end < area + area_length:
            libc.munmap(end, area + area_length - end)
        return Mapping(address, address, end - address, synced)

    def _reserves_anyway(self, spec: MapSpec) -> bool:
        """Whether the kernel sets swap space aside although it is asked not to."""
        private_ram = not spec.shared and spec.protection & libc.PROT_WRITE
        if spec.reserve or not private_ram or spec.page_size != libc.PAGE_SIZE:
            return False
        return self.never_overcommits()

    def never_overcommits(self) -> bool:
        """Whether the kernel promises no more memory than there is."""
        try:
            with open("/proc/sys/vm/overcommit_memory", "rb") as file:
                return file.read().strip() == b"2"
        except FileNotFoundError:
            # /proc is not mounted.
            return False

    def unmap(self, address: int, length: int) -> None:
        """Unmap bytes."""
        libc.munmap(address, length)

    def advise(self, address: int, length: int, advice: int) -> int:
        """Advise the kernel (madvise(2)); gives 0 or the errno value."""
        return libc.madvise(address, length, advice)

    def bind(self, address: int, length: int, policy: str, nodes: list[int]) -> None:
        """Take memory from these nodes; see `numa.bind`."""
        numa.bind(address, length, policy, nodes)

    def cpus(self) -> int:
        """How many CPUs there are."""
        return os.cpu_count() or 1

    def places(self, nodes: Sequence[int]) -> list[set[int]]:
        """The CPUs near memory of these nodes; see `numa.places`."""
        return numa.places(nodes)

    def populate(self, population: Populating) -> None:
        """Make the pages of a region; see `populate.Population.run`."""
        population.run()


def _map(spec: MapSpec, address: int, extra_flags: int, fd: int) -> tuple[int, bool]:
    """Map it there; the address, and whether it is synced."""
    flags = extra_flags | map_flags(spec, fd < 0)
    if spec.sync and spec.shared:
        sync = flags | libc.MAP_SHARED_VALIDATE | libc.MAP_SYNC
        try:
            found = libc.mmap(address, spec.length, spec.protection, sync, fd, spec.offset)
            return found, True
        except OSError:
            pass
    return libc.mmap(address, spec.length, spec.protection, flags, fd, spec.offset), False


def map_flags(spec: MapSpec, anonymous: bool) -> int:
    """The flags for mmap(2), but for where to map and MAP_SYNC.

    Args:
        anonymous: whether there is no file.
    """
    flags = libc.MAP_SHARED if spec.shared else libc.MAP_PRIVATE
    if anonymous:
        flags |= libc.MAP_ANONYMOUS
    if not spec.reserve:
        flags |= libc.MAP_NORESERVE
    return flags
