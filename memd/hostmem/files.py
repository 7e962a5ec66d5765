"""Descriptors that memory comes from: a named file, a memfd, shared memory.

What is opened how, and in which order things are checked, was observed on
QEMU 10.0.2 and 11.1.3, texts included.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import closing

from memd.errors import QMPError, refusing
from memd.hostmem import libc
from memd.hostmem.host import Host
from memd.hostmem.opened import MEMFD, Opened, look
from memd.hostmem.paths import Entry, Roots, encode_path, new_entry, open_path
from memd.hostmem.spec import UINT64, round_up

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

# A dangling symbolic link is missing when opened and there when created; a
# file that others make and remove may look so for a moment too.
_TRIES = 10


_unfinished: set[Backing] = set()
"""Files made for memory that is not whole yet."""


class Backing:
    """An open file that memory is to come from.

    Attributes:
        fd: its descriptor; -1 once it has been given away or closed.
        opened: what is known of it.
        size: in bytes; -1 for what has none, such as a FIFO.
        page_size: of its memory, in bytes.
    """

    def __init__(
        self,
        host: Host,
        fd: int,
        opened: Opened | None = None,
        made: Entry | None = None,
        noted: int | None = None,
        size: int | None = None,
    ) -> None:
        """Take over a descriptor.

        Args:
            host: does all that is done with it.
            opened: what is known of it; None has it looked at.
            made: where the file is if it was made for this; taken over, too.
            noted: the number by which its making was noted.
            size: its size, where that has been changed since.
        """
        self._host = host
        self._noted = noted
        self.fd = fd
        self.opened = opened or host.look(fd)
        self.size = self.opened.size if size is None else size
        self.page_size = self.opened.page_size
        self._made = made
        if made is not None:
            _unfinished.add(self)

    def take(self) -> int:
        """Give the descriptor away; from then on `undo` does nothing."""
        fd, self.fd = self.fd, -1
        if self._made is not None:
            _unfinished.discard(self)
            self._made.close()
        return fd

    def try_truncate(self, size: int) -> None:
        """Set its size in bytes; that it can't be is only logged."""
        try:
            self._host.truncate(self.fd, size)
        except OSError as failed:
            self._host.warn(f"ftruncate: {failed.strerror}")

    def fit(self, name: str, size: int, offset: int, align: int) -> int:
        """See that it takes a mapping, and give it its size if it is empty.

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
        there = self.size
        if there > 0 and there < end:
            raise QMPError(
                f"{name} backing store size 0x{there:x} is too small for 'size' option"
                f" 0x{length:x} plus 'offset' option 0x{offset:x}"
            )
        page_size = self.page_size
        if align % page_size:
            raise QMPError(f"alignment 0x{align:x} must be multiples of page size 0x{page_size:x}")
        if align & (align - 1):
            raise QMPError(f"alignment 0x{align:x} must be a power of two")
        if offset % page_size:
            raise QMPError(f"offset 0x{offset:x} must be multiples of page size 0x{page_size:x}")
        if length < page_size:
            raise QMPError(
                f"memory size 0x{length:x} must be equal to or larger than page size"
                f" 0x{page_size:x}"
            )
        length = round_up(length, page_size) & UINT64
        if there == 0:
            self.try_truncate(offset + length & UINT64)
        return length

    def undo(self) -> None:
        """Close the file, and remove it if it was made for this."""
        if self.fd >= 0:
            self.remove()
            if self._made is not None:
                self._made.close()
            self._host.close(self.fd)
            self.fd = -1

    def remove(self) -> None:
        """Remove the file if it was made for this and nobody else uses it."""
        made = self._made
        if made is None or self not in _unfinished:
            return
        _unfinished.discard(self)
        try:
            self._host.remove_unused(self.fd, made)
        except FileNotFoundError:
            pass
        except OSError as failed:
            self._host.warn(f"cannot remove '{os.fsdecode(made.path)}': {failed.strerror}")
        self._host.settle(self._noted)


def remove_unfinished() -> None:
    """Remove the files of what will not become whole, as when the daemon ends."""
    for backing in tuple(_unfinished):
        backing.remove()


def open_file(
    host: Host, path: str, readonly: bool, name: str, near: Entry | None = None
) -> Backing:
    """Open the file for `memory-backend-file`.

    A missing file is made, and a directory gets an unnamed file in it, unless
    `readonly`. A FIFO or a device never keeps the caller waiting.

    Args:
        name: goes into the name that the unnamed file has for a moment.
        near: where it is, as `Host.near` gives it: nothing is waited for then, and nothing made.

    Raises:
        OSError: why it can't be opened; BlockingIOError where it has to be waited for.
    """
    access = (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC
    if near is not None:
        return _open_near(host, near, access)
    raw, before = encode_path(path), None
    for _ in range(_TRIES):
        try:
            fd = _open(host, raw, access)
        except FileNotFoundError:
            if readonly:
                raise
        except IsADirectoryError:
            if readonly:
                raise
            return _open_unnamed(host, raw, name)
        else:
            found = host.look(fd)
            if stat.S_ISDIR(found.mode):
                host.close(fd)
                raise libc.os_error(errno.EISDIR)
            if found.links or not stat.S_ISREG(found.mode) or found.is_same(before):
                return Backing(host, fd, found)
            # It was removed this moment, unless the path, one of /proc, leads to
            # a file without a name.
            host.close(fd)
            before = found
            continue
        entry = new_entry(raw, host.roots)
        try:
            fd, noted = host.create(entry, 0o644)
        except BaseException as failed:
            entry.close()
            if isinstance(failed, FileExistsError):
                continue
            raise
        return Backing(host, fd, None, entry, noted)
    raise libc.os_error(errno.EEXIST)


def _open_near(host: Host, near: Entry, access: int) -> Backing:
    """Open what is on a tmpfs, without a lock that other processes may have."""
    fd = host.open_near(near, access | os.O_NONBLOCK)
    found = look(fd, libc.TMPFS_MAGIC, access & os.O_ACCMODE == os.O_RDONLY)
    # An empty one is given a size, and to map one that others may write takes a lock of theirs.
    if stat.S_ISREG(found.mode) and found.links and found.size and not found.others_write:
        return Backing(host, fd, found)
    host.close(fd)
    raise libc.os_error(errno.EAGAIN)


def _open(host: Host, path: bytes, flags: int) -> int:
    # Without O_NONBLOCK, opening a FIFO to read waits for a writer. On the
    # file that results the flag changes nothing.
    try:
        return host.open(path, flags | os.O_NONBLOCK)
    except BlockingIOError:
        # Somebody has a lease on the file and is asked to give it up.
        if not _is_regular(path, host.roots):
            raise
        return host.open(path, flags)


def _is_regular(path: bytes, roots: Roots | None) -> bool:
    fd = open_path(path, os.O_PATH | os.O_CLOEXEC, roots)
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def _open_unnamed(host: Host, directory: bytes, name: str) -> Backing:
    fd = open_path(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, host.roots)
    with closing(Entry(directory, fd, b"")) as entry:
        if libc.is_append_only(fd):
            # The name would stay.
            raise libc.os_error(errno.EPERM)
        for _ in range(100):
            entry.name = unnamed_prefix(name) + random_letters().encode()
            entry.path = directory + b"/" + entry.name
            try:
                made, noted = host.create(entry, 0o600)
            except FileExistsError:
                continue
            backing = Backing(host, made)
            try:
                host.unlink(entry)
            except BaseException:
                backing.undo()
                raise
            host.settle(noted)
            return backing
    raise libc.os_error(errno.EEXIST)


def unnamed_prefix(name: str) -> bytes:
    """How the name begins that a file in a directory has for a moment."""
    return b"qemu_back_mem." + name.replace("/", "_").encode() + b"."


def random_letters() -> str:
    """Six letters and digits that nobody guesses."""
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(6))


def memfd(
    host: Host, label: str, size: int, *, hugetlb: bool, hugetlbsize: int, seal: bool
) -> Backing:
    """Make a memfd of a size.

    Args:
        label: the name that shows in /proc/PID/maps.
        size: in bytes.
        hugetlbsize: of a huge page, in bytes; 0 for the system's default.
        seal: whether growing, shrinking and further sealing are forbidden.

    Raises:
        QMPError: it can't be made.
    """
    fd = _memfd_create(host, label, memfd_flags(hugetlb, hugetlbsize, seal))
    _resize(host, fd, "memfd", size)
    if seal:
        host.seal(fd)
    return Backing(host, fd) if hugetlb else Backing(host, fd, MEMFD, size=size)


def _resize(host: Host, fd: int, what: str, size: int) -> None:
    """Give new memory its size, or close it."""
    try:
        host.truncate(fd, size)
    except OSError as failed:
        host.close(fd)
        raise QMPError(f"failed to resize {what} to {size}: {failed.strerror}") from None


def memfd_flags(hugetlb: bool, hugetlbsize: int, seal: bool) -> int:
    """The flags for memfd_create(2); see `memfd`.

    Raises:
        QMPError: there are no huge pages of such a size.
    """
    flags = os.MFD_CLOEXEC
    if seal:
        flags |= os.MFD_ALLOW_SEALING
    # An odd size is not a refusal but the system's default (observed on QEMU
    # 10.0.2, which counts the zero bits at the end first).
    if hugetlbsize and not hugetlbsize & 1:
        if hugetlbsize & (hugetlbsize - 1):
            raise QMPError("Hugepage size must be a power of 2")
        shift = hugetlbsize.bit_length() - 1
    else:
        shift = 0
    if hugetlb:
        flags |= os.MFD_HUGETLB | shift << os.MFD_HUGE_SHIFT
    return flags


def plain_memfd(host: Host, label: str) -> Backing:
    """Make an empty memfd, not sealed.

    Raises:
        QMPError: it can't be made.
    """
    return Backing(host, _memfd_create(host, label, os.MFD_CLOEXEC), MEMFD)


def _memfd_create(host: Host, label: str, flags: int) -> int:
    with refusing(f"failed to create memfd with flags 0x{flags:x}"):
        return host.memfd(label, flags)


def posix_shm(host: Host, number: int, size: int) -> Backing:
    """Make POSIX shared memory of a size, its name gone before this returns.

    Args:
        number: makes the name one of its own within this process.
        size: in bytes.

    Raises:
        QMPError: it can't be made.
    """
    path = b"/dev/shm/qemu-%d-shm-%d" % (os.getpid(), number)
    entry = Entry(path, libc.AT_FDCWD, path)
    with refusing("failed to create POSIX shared memory"):
        fd, noted = host.create(entry, 0)
    host.unlink(entry)
    host.settle(noted)
    _resize(host, fd, "POSIX shared memory", size)
    return Backing(host, fd, MEMFD, size=size)
