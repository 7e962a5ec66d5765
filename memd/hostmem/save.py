"""A region's present content as a sparse file, whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from memd.errors import QMPError
from memd.hostmem import cgroup, libc
from memd.hostmem.files import Backing, encode_path, random_letters, truncate
from memd.hostmem.pages import FILE, ZERO, PageMap
from memd.hostmem.paths import Entry, Roots, target
from memd.hostmem.region import Region

CHUNK = 1 << 20
"""Bytes copied at once; a multiple of the page size."""

_MODE = 0o600
"""The permissions of a new file: memory holds secrets."""

_ZEROES = bytes(libc.PAGE_SIZE)
_NO_UNNAMED_FILES = frozenset((errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT))


class Saving:
    """How far a saving is.

    Attributes:
        done: bytes of the region that have been gone through.
    """

    __slots__ = ("_limited", "done")

    def __init__(self) -> None:
        self.done = 0
        self._limited: list[cgroup.Group] = []

    def begin(self, to: int) -> None:
        """It is this file that is written to."""
        if libc.file_system_type(to) == libc.TMPFS_MAGIC:
            # It is memory, of which the control groups may not allow so much.
            self._limited = cgroup.groups()

    def check(self) -> None:
        """See that there is room for a piece; raises `OSError`."""
        left = cgroup.room(self._limited)
        if left is not None and left + cgroup.swap_left() < CHUNK + cgroup.MARGIN:
            raise libc.os_error(errno.ENOMEM)


def save(
    region: Region, name: str, filename: str, saving: Saving, roots: Roots | None = None
) -> None:
    """Write a region's content to a file of that name, in place of one that is there.

    Holes stay holes, and pages of zeroes become some. What is written to the
    region meanwhile may be in the file or not.

    Args:
        region: pinned by the caller.
        name: of the memory, in messages.
        filename: a symbolic link is followed.
        saving: told how far it is.
        roots: what the file has to be below; None for anywhere.

    Raises:
        QMPError: it can't be done; a file that was there is as it was.
    """
    try:
        entry, mode = _target(encode_path(filename), roots)
        try:
            _save(region, entry, mode, saving)
        finally:
            entry.close()
    except OSError as failed:
        raise QMPError(f"cannot save '{name}' to '{filename}': {failed.strerror}") from None
    except _Gone as gone:
        raise QMPError(f"cannot save '{name}' to '{filename}': {gone}") from None


class _Gone(Exception):
    """A part of the region can't be read; says why."""


def _target(filename: bytes, roots: Roots | None) -> tuple[Entry, int]:
    """The file to make, and the permissions for it: those of the one that it replaces."""
    try:
        entry = target(filename, roots)
    except FileNotFoundError:
        if filename.endswith(b"/"):
            raise libc.os_error(errno.EISDIR) from None
        raise
    try:
        return entry, _mode_at(entry)
    except BaseException:
        entry.close()
        raise


def _mode_at(entry: Entry) -> int:
    try:
        there = entry.stat()
    except FileNotFoundError:
        return _MODE
    if stat.S_ISDIR(there.st_mode):
        raise libc.os_error(errno.EISDIR)
    if not stat.S_ISREG(there.st_mode):
        # A device or a FIFO is not to be replaced by a file.
        raise libc.os_error(errno.EEXIST)
    return stat.S_IMODE(there.st_mode)


def _save(region: Region, entry: Entry, mode: int, saving: Saving) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    directory = os.open(".", flags, dir_fd=entry.directory)
    name = b"%s.%s" % (entry.name, random_letters(6).encode())
    temporary = Entry(name, directory, name)
    try:
        new = _open_new(directory, temporary)
        try:
            truncate(new.fd, region.length)
            saving.begin(new.fd)
            _copy(region, new.fd, saving)
            os.fchmod(new.fd, mode)
            os.fsync(new.fd)
            _name(new.fd, temporary, entry.name)
            os.fsync(directory)
            os.close(new.take())
        finally:
            new.undo()
    finally:
        temporary.close()


def _open_new(directory: int, temporary: Entry) -> Backing:
    """A new file: without a name where the file system has such, else with a temporary one."""
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        # Whatever ends the process, nothing of it stays.
        fd = os.open(".", flags | os.O_TMPFILE, _MODE, dir_fd=directory)
        return Backing(fd, 0, libc.PAGE_SIZE)
    except OSError as failed:
        if failed.errno not in _NO_UNNAMED_FILES:
            raise
    fd = temporary.open(flags | os.O_CREAT | os.O_EXCL, _MODE)
    return Backing(fd, 0, libc.PAGE_SIZE, temporary)


def _name(fd: int, temporary: Entry, name: bytes) -> None:
    """Put a file in the place of one of that name, at once."""
    directory = temporary.directory
    if not os.fstat(fd).st_nlink:
        # A link does not replace anything, a renaming does. Only with a
        # directory does Python follow the link that leads to the descriptor.
        os.link(
            f"/proc/self/fd/{fd}",
            temporary.name,
            src_dir_fd=directory,
            dst_dir_fd=directory,
            follow_symlinks=True,
        )
    try:
        os.rename(temporary.name, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        temporary.unlink()
        raise


def _copy(region: Region, to: int, saving: Saving) -> None:
    """Copy what a region holds: what its file does, then what is a private mapping's own.

    The file is read as a file, which neither maps its pages nor makes those
    that are holes.
    """
    of_file = region.fd >= 0 and not stat.S_ISCHR(os.fstat(region.fd).st_mode)
    if of_file and not _seekable(region.fd):
        for start, end in held_ranges(region.fd, region.offset, 0, region.length):
            _copy_memory(region, to, start, end, saving)
        return
    if of_file:
        for start, end in data_ranges(region.fd, region.offset, region.length):
            for at in range(start, end, CHUNK):
                data = os.pread(region.fd, min(CHUNK, end - at), region.offset + at)
                if len(data) < min(CHUNK, end - at):
                    raise _Gone("its file is being truncated")
                saving.check()
                _put(to, at, data)
                # What is private follows, and is gone through a second time.
                saving.done = at if region.shared else at // 2
        if region.shared:
            return
    with PageMap() as pages:
        for start, end, kinds in pages.runs(region.address, region.length):
            if not (kinds & ZERO or (of_file and kinds & FILE)):
                _copy_memory(region, to, start, end, saving, over=of_file)


def _copy_memory(
    region: Region, to: int, start: int, end: int, saving: Saving, over: bool = False
) -> None:
    """Copy a range through the mapping."""
    for at in range(start, end, CHUNK):
        data = bytearray(min(CHUNK, end - at))
        if libc.read_memory(region.address + at, data) < len(data):
            raise _Gone(os.strerror(errno.EFAULT))
        saving.check()
        _put(to, at, data, over=over)
        saving.done = (region.length + at) // 2 if over else at


def _seekable(fd: int) -> bool:
    """Whether a file can be read as one; a guest_memfd can only be mapped."""
    try:
        os.lseek(fd, 0, os.SEEK_END)
    except OSError as failed:
        if failed.errno != errno.ESPIPE:
            raise
        return False
    return True


def held_ranges(fd: int, offset: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a range of memory that the kernel holds, relative to `offset`."""
    pages = (end - start) // libc.PAGE_SIZE
    held, _evicted = libc.cachestat(fd, offset + start, end - start)
    if held == pages:
        yield start, end
    elif held:
        middle = start + pages // 2 * libc.PAGE_SIZE
        yield from held_ranges(fd, offset, start, middle)
        yield from held_ranges(fd, offset, middle, end)


def data_ranges(fd: int, offset: int, length: int) -> Iterator[tuple[int, int]]:
    """The parts of a range of a file that are no holes, relative to `offset`.

    Raises:
        _Gone: the file ends before the range does.
    """
    end = offset + length
    size = os.lseek(fd, 0, os.SEEK_END)
    if size < end:
        raise _Gone(f"its file was truncated to {size} bytes")
    at = offset
    while at < end:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as failed:
            if failed.errno == errno.ENXIO:
                return
            raise
        if at >= end:
            return
        hole = min(end, os.lseek(fd, at, os.SEEK_HOLE))
        yield at - offset, hole - offset
        at = hole


def _put(to: int, at: int, data: bytes | bytearray, over: bool = False) -> None:
    """Write pages to a file, those of zeroes as holes.

    Args:
        at: where, in bytes.
        over: whether there may be something else by now.
    """
    step = len(_ZEROES)
    zero = [data[page : page + step] == _ZEROES for page in range(0, len(data), step)]
    with memoryview(data) as view:
        start = 0
        for index, this in enumerate(zero):
            if index + 1 == len(zero) or zero[index + 1] != this:
                end = (index + 1) * step
                if not this:
                    _write(to, at + start, view[start:end])
                elif over:
                    _clear(to, at + start, view[start:end])
                start = end


def _clear(to: int, at: int, zeroes: memoryview) -> None:
    try:
        libc.punch_hole(to, at, len(zeroes))
    except OSError:
        _write(to, at, zeroes)


def _write(to: int, at: int, data: memoryview) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(to, data[done:], at + done)
