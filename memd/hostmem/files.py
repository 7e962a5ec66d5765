"""Descriptors that memory comes from: a named file, a memfd, shared memory.

What is opened how, and in which order things are checked, was observed on
QEMU 10.0.2 and 11.1.3, texts included.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
from collections.abc import Callable

from memd.errors import QMPError
from memd.hostmem import libc, noting
from memd.hostmem.paths import Entry, Roots, new_entry, open_path
from memd.hostmem.spec import round_up

Log = Callable[[str], None]
"""Takes a line for the log."""

UINT64 = (1 << 64) - 1
_OFF_T_MAX = (1 << 63) - 1
_MFD_HUGETLB = 4
_MFD_HUGE_SHIFT = 26
_F_ADD_SEALS = 1033
_F_SETSIG = 10
_SEAL_SHRINK_GROW_SEAL = 0x2 | 0x4 | 0x1
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

# A dangling symbolic link is missing when opened and there when created; a
# file that others make and remove may look so for a moment too.
_TRIES = 3

# Where the kernel can't say at once whether it has to wait, or does not know
# the question.
_ASK_A_THREAD = frozenset((errno.EAGAIN, errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.E2BIG))


_unfinished: set[Backing] = set()
"""Files made for memory that is not whole yet."""


class WouldBlock(Exception):
    """Opening may have to wait for a disk or a server: not in the event loop."""


class Backing:
    """An open file that memory is to come from.

    Attributes:
        fd: its descriptor; -1 once it has been given away or closed.
        size: in bytes; -1 for what has none, such as a FIFO.
        page_size: of its memory, in bytes.
    """

    __slots__ = ("_made", "_noted", "fd", "page_size", "size")

    def __init__(
        self,
        fd: int,
        size: int,
        page_size: int,
        made: Entry | None = None,
        noted: int | None = None,
    ) -> None:
        """Take over a descriptor.

        Args:
            made: where the file is if it was made for this; taken over, too.
            noted: the number by which its making was noted.
        """
        self._noted = noted
        self.fd = fd
        self.size = size
        self.page_size = page_size
        self._made = made
        if made is not None:
            _unfinished.add(self)

    @property
    def huge(self) -> bool:
        """Whether its memory is made of huge pages."""
        return self.page_size > libc.PAGE_SIZE

    def take(self) -> int:
        """Give the descriptor away; from then on `undo` does nothing."""
        fd, self.fd = self.fd, -1
        if self._made is not None:
            _unfinished.discard(self)
            self._made.close()
        return fd

    def truncate(self, size: int) -> None:
        """Set its size in bytes; raises `OSError`."""
        truncate(self.fd, size)

    def undo(self) -> None:
        """Close the file, and remove it if it was made for this."""
        if self.fd >= 0:
            self.remove()
            if self._made is not None:
                self._made.close()
            os.close(self.fd)
            self.fd = -1

    def remove(self) -> None:
        """Remove the file if it was made for this."""
        made = self._made
        if made is None or self not in _unfinished:
            return
        _unfinished.discard(self)
        try:
            remove_unused(self.fd, made)
        except OSError:
            pass
        noting.settle(self._noted)


def remove_unused(fd: int, entry: Entry) -> bool:
    """Remove a file that nobody else has open, nor mapped.

    A write lease says so: the kernel gives one only on a file that is open once,
    and who opens it after that waits until the lease is given back.

    Args:
        fd: of the file, open for writing, and the only descriptor but for copies of it.
        entry: where it is, if nothing else has come there.

    Returns:
        Whether it is removed: not where it is in use, or it can't be told.

    Raises:
        OSError: it can't be removed.
    """
    try:
        # Who is waited for is told by a signal; this one is ignored.
        fcntl.fcntl(fd, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as failed:
        if failed.errno != errno.EAGAIN:
            import logging

            path = os.fsdecode(entry.path)
            text = "'%s' stays: whether others use it can't be told: %s"
            logging.getLogger("memd").warning(text, path, failed.strerror)
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


def remove_unfinished() -> None:
    """Remove the files of what will not become whole, as when the daemon ends."""
    for backing in tuple(_unfinished):
        backing.remove()


def open_file(
    path: str, readonly: bool, name: str, wait: bool, roots: Roots | None = None
) -> Backing:
    """Open the file for `memory-backend-file`.

    A missing file is made, and a directory gets an unnamed file in it, unless
    `readonly`. A FIFO or a device never keeps the caller waiting.

    Args:
        name: goes into the name that the unnamed file has for a moment.
        wait: whether the caller can wait for a disk or a server.
        roots: what it has to be below; None for anywhere.

    Raises:
        OSError: why it can't be opened.
        WouldBlock: only without `wait`; nothing has been done.
    """
    raw = encode_path(path)
    access = os.O_RDONLY if readonly else os.O_RDWR
    before = None
    for _ in range(_TRIES):
        try:
            fd = _open(raw, access, wait, roots)
            now = os.fstat(fd)
            if stat.S_ISREG(now.st_mode) and not now.st_nlink:
                if before is None or not os.path.samestat(now, before):
                    # It was removed this moment, unless the path, one of /proc,
                    # leads to a file without a name.
                    os.close(fd)
                    before = now
                    continue
            return _look_at(fd)
        except FileNotFoundError:
            if readonly:
                raise
        except IsADirectoryError:
            if readonly:
                raise
            return _open_unnamed(raw, name, roots)
        entry = new_entry(raw, roots)
        try:
            fd, noted = noting.make(entry, 0o644)
        except BaseException as failed:
            entry.close()
            if isinstance(failed, FileExistsError):
                continue
            raise
        return _look_at(fd, entry, noted)
    raise libc.os_error(errno.EEXIST)


def encode_path(path: str) -> bytes:
    """A path in bytes (PEP 383); U+0000 is held as QEMU's JSON parser holds it."""
    return path.encode("utf-8", "surrogateescape").replace(b"\0", b"\xc0\x80")


def _look_at(fd: int, made: Entry | None = None, noted: int | None = None) -> Backing:
    """What was opened, with its size and page size.

    Raises:
        IsADirectoryError: it is a directory, and closed again.
    """
    found = os.fstat(fd)
    if stat.S_ISDIR(found.st_mode):
        os.close(fd)
        raise libc.os_error(errno.EISDIR)
    try:
        size = os.lseek(fd, 0, os.SEEK_END)
    except OSError:
        size = -1
    page_size = libc.PAGE_SIZE
    # Huge pages show as the block size; only where it is large is it worth
    # asking whether the file system has huge pages or just large blocks.
    if found.st_blksize > page_size and libc.file_system_type(fd) == libc.HUGETLBFS_MAGIC:
        page_size = found.st_blksize
    return Backing(fd, size, page_size, made, noted)


def _open(path: bytes, access: int, wait: bool, roots: Roots | None) -> int:
    # Without O_NONBLOCK, opening a FIFO to read waits for a writer. On the
    # file that results the flag changes nothing.
    flags = access | os.O_CLOEXEC | os.O_NONBLOCK
    if not wait:
        try:
            return open_path(path, flags, roots, cached=True)
        except OSError as failed:
            if failed.errno in _ASK_A_THREAD:
                raise WouldBlock from None
            raise
    try:
        return open_path(path, flags, roots)
    except BlockingIOError:
        # Somebody has a lease on the file and is asked to give it up.
        if not _is_regular(path, roots):
            raise
        return open_path(path, access | os.O_CLOEXEC, roots)


def _is_regular(path: bytes, roots: Roots | None) -> bool:
    fd = open_path(path, os.O_PATH | os.O_CLOEXEC, roots)
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def _open_unnamed(directory: bytes, name: str, roots: Roots | None) -> Backing:
    fd = open_path(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, roots)
    entry = Entry(directory, fd, b"")
    try:
        for _ in range(100):
            entry.name = unnamed_prefix(name) + random_letters(6).encode()
            entry.path = directory + b"/" + entry.name
            try:
                made, noted = noting.make(entry, 0o600)
            except FileExistsError:
                continue
            entry.unlink()
            noting.settle(noted)
            return _look_at(made)
    finally:
        entry.close()
    raise libc.os_error(errno.EEXIST)


def unnamed_prefix(name: str) -> bytes:
    """How the name begins that a file in a directory has for a moment."""
    return b"qemu_back_mem." + name.replace("/", "_").encode() + b"."


def random_letters(count: int) -> str:
    """Letters and digits that nobody guesses."""
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(count))


def memfd(label: str, size: int, *, hugetlb: bool, hugetlbsize: int, seal: bool) -> Backing:
    """Make a memfd of a size.

    Args:
        label: the name that shows in /proc/PID/maps.
        size: in bytes.
        hugetlbsize: of a huge page, in bytes; 0 for the system's default.
        seal: whether growing, shrinking and further sealing are forbidden.

    Raises:
        QMPError: it can't be made.
    """
    fd = _memfd_create(label, memfd_flags(hugetlb, hugetlbsize, seal))
    try:
        truncate(fd, size)
    except OSError as failed:
        os.close(fd)
        raise cannot_resize("memfd", size, failed) from None
    if seal:
        fcntl.fcntl(fd, _F_ADD_SEALS, _SEAL_SHRINK_GROW_SEAL)
    return _look_at(fd) if hugetlb else Backing(fd, size, libc.PAGE_SIZE)


def memfd_flags(hugetlb: bool, hugetlbsize: int, seal: bool) -> int:
    """The flags for memfd_create(2); see `memfd`.

    Raises:
        QMPError: there are no huge pages of such a size.
    """
    flags = os.MFD_CLOEXEC
    if seal:
        flags |= os.MFD_ALLOW_SEALING
    # An odd size is no refusal but the system's default (observed on QEMU
    # 10.0.2, which counts the zero bits at the end first).
    if hugetlbsize and not hugetlbsize & 1:
        if hugetlbsize & (hugetlbsize - 1):
            raise QMPError("Hugepage size must be a power of 2")
        shift = hugetlbsize.bit_length() - 1
    else:
        shift = 0
    if hugetlb:
        flags |= _MFD_HUGETLB | shift << _MFD_HUGE_SHIFT
    return flags


def plain_memfd(label: str) -> Backing:
    """Make an empty memfd, not sealed.

    Raises:
        QMPError: it can't be made.
    """
    return Backing(_memfd_create(label, os.MFD_CLOEXEC), 0, libc.PAGE_SIZE)


def _memfd_create(label: str, flags: int) -> int:
    try:
        return os.memfd_create(label, flags)
    except OSError as failed:
        raise cannot_create_memfd(flags, failed) from None


def cannot_create_memfd(flags: int, failed: OSError) -> QMPError:
    """What is said where memfd_create(2) fails."""
    return QMPError(f"failed to create memfd with flags 0x{flags:x}: {failed.strerror}")


def cannot_resize(what: str, size: int, failed: OSError) -> QMPError:
    """What is said where new memory can't be given its size in bytes."""
    return QMPError(f"failed to resize {what} to {size}: {failed.strerror}")


def posix_shm(number: int, size: int) -> Backing:
    """Make POSIX shared memory of a size, its name gone before this returns.

    Args:
        number: makes the name one of its own within this process.
        size: in bytes.

    Raises:
        QMPError: it can't be made.
    """
    path = b"/dev/shm/qemu-%d-shm-%d" % (os.getpid(), number)
    entry = Entry(path, libc.AT_FDCWD, path)
    try:
        fd, noted = noting.make(entry, 0)
    except OSError as failed:
        raise cannot_create_shm(failed) from None
    entry.unlink()
    noting.settle(noted)
    try:
        truncate(fd, size)
    except OSError as failed:
        os.close(fd)
        raise cannot_resize("POSIX shared memory", size, failed) from None
    return Backing(fd, size, libc.PAGE_SIZE)


def cannot_create_shm(failed: OSError) -> QMPError:
    """What is said where POSIX shared memory can't be made."""
    return QMPError(f"failed to create POSIX shared memory: {failed.strerror}")


def truncate(fd: int, size: int) -> None:
    """Set a file's size in bytes; one that C's off_t can't hold is EINVAL."""
    if size > _OFF_T_MAX:
        raise libc.os_error(errno.EINVAL)
    os.ftruncate(fd, size)


def fit(backing: Backing, name: str, size: int, offset: int, align: int, log: Log) -> int:
    """See that a file takes a mapping, and give it its size if it is empty.

    Arithmetic wraps at 64 bits as QEMU's does. A file with content is never
    resized; where an empty one can't be, that is only logged.

    Args:
        name: of the memory, in messages.
        size: to be mapped, in bytes; so are `offset` and `align`.

    Returns:
        The bytes to map: `size` in whole pages of the file.

    Raises:
        QMPError: it does not fit.
    """
    length = round_up(size, libc.PAGE_SIZE) & UINT64
    end = length + offset & UINT64
    there = backing.size
    if there > 0 and there < end:
        raise QMPError(
            f"{name} backing store size 0x{there:x} is too small for 'size' option"
            f" 0x{length:x} plus 'offset' option 0x{offset:x}"
        )
    page_size = backing.page_size
    if align % page_size:
        raise QMPError(f"alignment 0x{align:x} must be multiples of page size 0x{page_size:x}")
    if align & (align - 1):
        raise QMPError(f"alignment 0x{align:x} must be a power of two")
    if offset % page_size:
        raise QMPError(f"offset 0x{offset:x} must be multiples of page size 0x{page_size:x}")
    if length < page_size:
        raise QMPError(
            f"memory size 0x{length:x} must be equal to or larger than page size 0x{page_size:x}"
        )
    length = round_up(length, page_size) & UINT64
    if there == 0:
        try:
            backing.truncate(offset + length & UINT64)
        except OSError as failed:
            log(f"ftruncate: {failed.strerror}")
    return length
