"""A region's present content as a sparse file, whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import (
    AbstractContextManager,
    ExitStack,
    closing,
    contextmanager,
    suppress,
)
from hashlib import sha256
from typing import TypeVar

from memd.errors import refusing
from memd.hostmem import cgroup, libc
from memd.hostmem.content import pieces, runs
from memd.hostmem.host import Host
from memd.hostmem.paths import Entry, Roots, encode_path, is_at, is_trusted, target
from memd.hostmem.region import Region
from memd.hostmem.spec import MapSpec, round_up
from memd.named_tuple import NamedTuple

_MODE = 0o600
"""The permissions of a new file: memory holds secrets."""

NO_UNNAMED_FILES = frozenset((errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT))
"""The errors of open(2) with O_TMPFILE where the file system has no such files."""

_NO_ACL = frozenset((errno.EOPNOTSUPP, errno.ENODATA))

_TEMPORARY_NAMES = 100
"""How many may save to the same name at once, where files need a temporary name."""

_T = TypeVar("_T")


class Saving:
    """How far a saving is.

    Attributes:
        done: bytes of the region that have been gone through.
    """

    done = 0


def save(
    region: Region,
    name: str,
    filename: str,
    saving: Saving,
    *,
    replace: bool = True,
) -> None:
    """Write a region's content to a file of that name, in place of one that is there.

    Holes stay holes, and pages of zeroes become some. What is written to the
    region meanwhile may be in the file or not.

    Args:
        region: pinned by the caller.
        name: of the memory, in messages.
        filename: a symbolic link is followed.
        saving: told how far it is.
        replace: whether a file that is there may be replaced.

    Raises:
        QMPError: it can't be done; a file that was there is as it was.
    """
    host, length = region.host, region.length

    def fill(output: Output) -> None:
        _copy(region, output, saving)

    with _failures(name, filename), _written(host, filename, length, fill, replace) as new:
        new.appear(replace)


Put = Callable[[int, bytes], None]
"""Writes bytes at an offset, those of zeroes as holes; raises `OSError`."""


class NewFile(NamedTuple):
    """A file to be made.

    Attributes:
        filename: a symbolic link is followed.
        length: in bytes.
        fill: writes what is not zeroes; what it raises ends it.
    """

    filename: str
    length: int
    fill: Callable[[Put], None]


def save_new(host: Host, name: str, *files: NewFile) -> None:
    """Make files where nothing is yet, all of them whole or none.

    Args:
        name: of what is saved, in messages.
        files: they appear one after the other, once all of them are on the disk.

    Raises:
        QMPError: it can't be done.
    """
    with ExitStack() as written, ExitStack() as withdrawn:
        made = []
        for file in files:
            with _failures(name, file.filename):
                made.append(written.enter_context(_written_new(host, file, len(files) > 1)))
        for file, new in zip(files, made, strict=True):
            with _failures(name, file.filename):
                new.appear(False)
            withdrawn.callback(new.withdraw)
        withdrawn.pop_all()


def _written_new(host: Host, file: NewFile, removable: bool) -> AbstractContextManager[_NewFile]:
    def fill(output: Output) -> None:
        file.fill(output.put)

    return _written(host, file.filename, file.length, fill, False, removable)


def _failures(name: str, filename: str) -> AbstractContextManager[None]:
    """Have what goes wrong with a file raised as a `QMPError`."""
    return refusing(f"cannot save '{name}' to '{filename}'")


@contextmanager
def _written(
    host: Host,
    filename: str,
    length: int,
    fill: Callable[[Output], None],
    replace: bool,
    removable: bool = False,
) -> Iterator[_NewFile]:
    """A file that is on the disk, and has yet to appear; raises `OSError`."""
    with closing(_entry(encode_path(filename), host.roots)) as entry:
        replaced = _there(entry)
        if replaced is not None and not replace:
            raise libc.os_error(errno.EEXIST)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        directory = host.open_at(entry.directory, b".", flags)
    try:
        with closing(_NewFile(host, directory, entry, removable or replaced is not None)) as new:
            with closing(Output(host, new.fd, length)) as output:
                fill(output)
            if replaced is not None:
                _take_over(new.fd, directory, replaced)
            host.sync(new.fd)
            yield new
    finally:
        os.close(directory)


def _entry(filename: bytes, roots: Roots | None) -> Entry:
    try:
        return target(filename, roots)
    except FileNotFoundError:
        if filename.endswith(b"/"):
            raise libc.os_error(errno.EISDIR) from None
        raise


def _there(entry: Entry) -> os.stat_result | None:
    """The file that is to be replaced, if there is one; raises `OSError`."""
    try:
        there = entry.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(there.st_mode):
        raise libc.os_error(errno.EISDIR)
    if not stat.S_ISREG(there.st_mode):
        # A device or a FIFO is not to be replaced by a file.
        raise libc.os_error(errno.EEXIST)
    return there


def _take_over(fd: int, directory: int, replaced: os.stat_result) -> None:
    """Give a new file the group and permissions of the one that it replaces.

    Only where these are memd's own user's choice: the file is that user's, and
    nobody else could have put it there, by renaming or by a hard link.
    """
    where = os.fstat(directory)
    exchangeable = where.st_mode & stat.S_IWOTH and not where.st_mode & stat.S_ISVTX
    if (
        replaced.st_uid != os.geteuid()
        or replaced.st_nlink > 1
        or exchangeable
        or not is_trusted(where.st_uid)
    ):
        return
    mode = replaced.st_mode & 0o777
    if os.fstat(fd).st_gid != replaced.st_gid:
        try:
            os.fchown(fd, -1, replaced.st_gid)
        except OSError:
            mode &= ~stat.S_IRWXG
    try:
        # What the directory's default ACL names would come in by the group's permissions.
        os.removexattr(fd, "system.posix_acl_access")
    except OSError as failed:
        if failed.errno not in _NO_ACL:
            mode &= ~stat.S_IRWXG
    os.fchmod(fd, mode)


class _NewFile:
    """A file of which nothing stays unless it gets its name.

    It has no name at all until then, where the file system has such files. Else,
    and for the moment in which it takes the place of another one, it has a
    temporary one; what is left of that by a process that was killed is known by
    its lock, which nobody holds, and removed by the next one that saves to the
    same name.

    Attributes:
        fd: its descriptor, for reading and writing.
    """

    def __init__(self, host: Host, directory: int, entry: Entry, removable: bool) -> None:
        """Make it; raises `OSError`.

        Args:
            directory: its descriptor, which has to stay open.
            entry: the file's own, in the end; it may be closed.
            removable: whether a name in the directory may have to be removed again.
        """
        self._host = host
        self._directory = directory
        self._name = entry.name
        self._path = entry.path
        self._temporary: bytes | None = None
        flags = os.O_RDWR | os.O_CLOEXEC
        if removable:
            _check_renaming(directory)
        try:
            if not os.path.exists("/proc/self/fd"):
                # Where it would get its name from.
                raise libc.os_error(errno.ENOENT)
            self.fd = host.open_at(directory, b".", flags | os.O_TMPFILE, _MODE)
        except OSError as failed:
            if failed.errno not in NO_UNNAMED_FILES:
                raise
            _check_renaming(directory)
            self.fd, self._temporary = self._at_temporary_name(self._open)
        else:
            # Where there are no locks, none will be removed.
            _lock(self.fd)

    def appear(self, replace: bool) -> None:
        """Give it its name, at once, so that it outlives a crash; raises `OSError`.

        Args:
            replace: whether it may take the place of another file.
        """
        self._take_name(replace)
        try:
            self._host.sync(self._directory)
        except OSError as failed:
            # The file is there, whole, and the one before it is not: to answer
            # with an error would be wrong.
            self._host.warn(
                f"'{os.fsdecode(self._path)}' is saved, but may be gone after a crash of the"
                f" system: its directory can't be synced: {failed.strerror}"
            )

    def _take_name(self, replace: bool) -> None:
        if self._temporary is None:
            try:
                self._link(self._name)
                return
            except FileExistsError:
                if not replace:
                    raise
            _check_renaming(self._directory)
            # A link does not replace anything, a renaming does.
            _, self._temporary = self._at_temporary_name(self._link)
        if replace:
            self._host.rename(self._directory, self._temporary, self._name)
            self._temporary = None
        else:
            self._link(self._name)

    def withdraw(self) -> None:
        """Take its name from it again, unless that is another file's by now."""
        if is_at(self.fd, self._name, self._directory):
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._directory)

    def close(self) -> None:
        """Close it; it is gone if it has no name."""
        if self._temporary is not None:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._directory)
        os.close(self.fd)

    def _open(self, name: bytes) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = self._host.open_at(self._directory, name, flags, _MODE)
        _lock(fd)
        if not is_at(fd, name, self._directory):
            # Somebody took it for abandoned before it was locked.
            os.close(fd)
            raise libc.os_error(errno.EEXIST)
        return fd

    def _link(self, name: bytes) -> None:
        link_descriptor(self.fd, self._directory, name)

    def _at_temporary_name(self, make: Callable[[bytes], _T]) -> tuple[_T, bytes]:
        """Have something made at a name that is free, and as long whatever the file's own is."""
        prefix = b".memd-save-%s-" % sha256(self._name).hexdigest()[:16].encode()
        for number in range(_TEMPORARY_NAMES):
            name = prefix + b"%d" % number
            while True:
                try:
                    return make(name), name
                except FileExistsError:
                    if not _remove_abandoned(self._directory, name):
                        break
        raise libc.os_error(errno.EEXIST)


def link_descriptor(fd: int, directory: int, name: str | bytes) -> None:
    """Give an open file a name in a directory; raises `OSError`."""
    # Only with a directory does Python follow the link that leads to the descriptor.
    source = f"/proc/self/fd/{fd}"
    os.link(source, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=True)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_abandoned(directory: int, name: bytes) -> bool:
    """Remove what a process has left at a temporary name; whether that was so."""
    try:
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=directory)
    except OSError as failed:
        return failed.errno == errno.ENOENT
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or not _lock(fd):
            return False
        if is_at(fd, name, directory):
            os.unlink(name, dir_fd=directory)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def _check_renaming(directory: int) -> None:
    """See that what is made in a directory can be renamed, and removed; raises `OSError`.

    In one that can only be appended to (chattr(1)) it could not, and would stay.
    """
    if libc.is_append_only(directory):
        raise libc.os_error(errno.EPERM)


class Output:
    """A new file, of which only what is written takes space.

    A file on hugetlbfs can't be written to, but be mapped.

    Args:
        fd: of the file, which is empty.
        length: bytes that there will be, on hugetlbfs in whole huge pages.

    Raises:
        OSError: it can't have its size, or can't be mapped.
    """

    def __init__(self, host: Host, fd: int, length: int) -> None:
        self._host = host
        self._fd = fd
        self._mapped: Region | None = None
        opened = host.look(fd)
        page = opened.page_size
        if page > libc.PAGE_SIZE:
            length = round_up(length, page)
            spec = MapSpec(length, length, page, page, reserve=False)
            host.truncate(fd, length)
            self._mapped = Region(host, spec, fd, opened)
        else:
            host.truncate(fd, length)

    def put(self, at: int, data: bytes | bytearray, over: bool = False) -> None:
        """Write pages, those of zeroes as holes.

        Args:
            at: where, in bytes.
            over: whether there may be something else by now.

        Raises:
            OSError: they can't be written.
        """
        with cgroup.writing(self._fd, len(data), at), memoryview(data) as view:
            for start, end, zeroes in runs(data):
                if not zeroes:
                    self._write(at + start, view[start:end])
                elif over:
                    self._clear(at + start, view[start:end])

    def _clear(self, at: int, zeroes: memoryview) -> None:
        try:
            self._host.punch_hole(self._fd, at, len(zeroes))
        except OSError:
            self._write(at, zeroes)

    def _write(self, at: int, data: memoryview) -> None:
        if self._mapped is not None:
            if libc.write_memory(self._mapped.address + at, bytes(data)) < len(data):
                # There are no more huge pages.
                raise libc.os_error(errno.ENOMEM)
            return
        self._host.write(self._fd, data, at)

    def close(self) -> None:
        """Unmap it; the descriptor stays."""
        if self._mapped is not None:
            self._mapped.disown()
            self._mapped.close()


def _copy(region: Region, to: Output, saving: Saving) -> None:
    """Copy what a region holds: what its file does, then what is a private mapping's own."""
    twice = region.reads_as_file and not region.shared
    for at, data, over in pieces(region):
        to.put(at, data, over)
        done = region.length + at if over else at
        saving.done = done // 2 if twice else at
