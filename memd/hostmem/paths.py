"""Paths that clients name: where they may lead, and which links are followed on the way.

memd may run as root, its clients need not be, and others may be able to write
to a directory on the way. So what a path leads to is opened by two rules:

- A symbolic link of another user (not of root, nor of memd's own) is not
  followed where others can put such links: in a directory that anybody can
  write, or that its group can and that is another user's. It is what the
  sysctl fs.protected_symlinks asks for (proc(5)), also where that is off, and
  of directories without a sticky bit.
- Below `Roots`, nothing outside of them is reached: by no link, no `..`, and by
  no exchange of one for the other meanwhile (openat2(2), RESOLVE_BENEATH).

A path without links, as nearly all are, takes the one system call that it takes
without the rules: openat2(2) with RESOLVE_NO_SYMLINKS. Where that finds a link,
or a filter of system calls forbids openat2(2), the path is followed a name at a
time, each from the descriptor of the directory before.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from memd.hostmem import libc

FDSETS = "/dev/fdset/"
"""What a path begins with that names a set of descriptors, where such are taken."""

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

_MAX_LINKS = 40
"""Links that are followed, as many as the kernel follows (path_resolution(7))."""

_TRIES = 8
"""Times that the kernel is asked again where something was renamed meanwhile
(openat2(2), EAGAIN)."""

_NO_OPENAT2 = frozenset((errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG))
"""Said where a filter of system calls forbids openat2(2). The calls that are
used instead have these for reasons of their own, too."""


def outside() -> OSError:
    """The error for a path that leads out of every root."""
    return OSError(errno.EXDEV, "Path is not below a directory of --mem-root")


class Roots:
    """Directories below which everything has to be that clients name.

    They are the directories that were there when they were added, wherever they
    are moved to; mounts below them belong to them.
    """

    def __init__(self) -> None:
        # Descriptor, and what paths below it begin with.
        self._roots: list[tuple[int, list[list[bytes]]]] = []

    def add(self, directory: str) -> None:
        """Add a directory.

        Raises:
            OSError: it can't be opened; ENOSYS where openat2(2) is not available.
        """
        raw = os.fsencode(directory)
        fd = os.open(raw, _DIRECTORY)
        names = {os.path.abspath(raw), os.path.realpath(raw)}
        self._roots.append((fd, [_names(each) for each in names]))
        os.close(_beneath(fd, b".", _DIRECTORY))

    def close(self) -> None:
        """Close the directories."""
        for fd, _prefixes in self._roots:
            os.close(fd)
        self._roots.clear()

    def find(self, path: bytes) -> tuple[int, bytes]:
        """The root that a path begins with, its descriptor, and how it goes on from there.

        Raises:
            OSError: there is none.
        """
        if not path:
            raise libc.os_error(errno.ENOENT)
        if len(path) >= libc.PATH_MAX:
            raise libc.os_error(errno.ENAMETOOLONG)
        if path[:1] != b"/":
            path = os.getcwdb() + b"/" + path
        names = _names(path)
        for fd, prefixes in self._roots:
            for prefix in prefixes:
                if names[: len(prefix)] == prefix:
                    rest = b"/".join(names[len(prefix) :]) or b"."
                    return fd, rest + b"/" if path.endswith((b"/", b"/.")) else rest
        raise outside()


def encode_path(path: str) -> bytes:
    """A path in bytes (PEP 383); U+0000 is held as QEMU's JSON parser holds it."""
    return path.encode("utf-8", "surrogateescape").replace(b"\0", b"\xc0\x80")


class Entry:
    """A name in a directory that is held open, wherever that may be moved to.

    Attributes:
        path: as it was named.
        directory: the directory's descriptor.
        name: in it; "." for the directory itself.
    """

    __slots__ = ("directory", "name", "path")

    def __init__(self, path: bytes, directory: int, name: bytes) -> None:
        self.path = path
        self.directory = directory
        self.name = name

    def copy(self) -> Entry:
        """Another one of the same, to be closed by itself."""
        return Entry(self.path, os.dup(self.directory), self.name)

    def open_at_once(self, flags: int) -> int:
        """Open a file that the kernel knows, on this very file system; raises `OSError`."""
        resolve = libc.RESOLVE_CACHED | libc.RESOLVE_NO_XDEV | libc.RESOLVE_NO_SYMLINKS
        return libc.openat2(self.directory, self.name, flags, resolve)

    def open(self, flags: int, mode: int = 0) -> int:
        """Open or make it, never through a link; raises `OSError`."""
        return os.open(self.name, flags | os.O_NOFOLLOW, mode, dir_fd=self.directory)

    def stat(self) -> os.stat_result:
        """Its status, without following a link; raises `OSError`."""
        return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)

    def is_there(self) -> bool:
        """Whether anything of that name is there, be it a link to nowhere; raises `OSError`."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def unlink(self) -> None:
        """Remove it; raises `OSError`."""
        os.unlink(self.name, dir_fd=self.directory)

    def close(self) -> None:
        """Close the directory."""
        if self.directory >= 0:
            os.close(self.directory)
            self.directory = -1


class Made:
    """A socket or link that was made for a client, and is removed when that is closed.

    Args:
        entry: its name, where it has just been made; taken over.

    Raises:
        OSError: it has gone.
    """

    def __init__(self, entry: Entry) -> None:
        self._made = entry.stat()
        self._entry = entry

    def remove(self) -> None:
        """Remove it, unless something else is there by now, and close the directory; may wait."""
        with suppress(OSError):
            if os.path.samestat(self._entry.stat(), self._made):
                self._entry.unlink()
        self._entry.close()


def open_path(path: bytes, flags: int, roots: Roots | None = None) -> int:
    """Open an existing file.

    Args:
        path: as the client named it.
        flags: for open(2), without O_CREAT.
        roots: what it has to be below; None for anywhere.

    Returns:
        The descriptor.

    Raises:
        OSError: why it can't be opened.
    """
    try:
        if roots is not None:
            return _beneath(*roots.find(path), flags)
        return libc.openat2(libc.AT_FDCWD, path, flags, libc.RESOLVE_NO_SYMLINKS)
    except OSError as failed:
        if failed.errno == errno.EXDEV:
            raise outside() from None
        if failed.errno != errno.ELOOP and failed.errno not in _NO_OPENAT2:
            raise
    with closing(_Walk(path, roots)) as walk:
        return walk.open(flags)


@contextmanager
def named_by(fd: int) -> Iterator[str]:
    """A name of what a descriptor is of, for the length of a `with` block, which closes it."""
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def new_entry(path: bytes, roots: Roots | None = None) -> Entry:
    """Where a file of that path is to be made, its directory open; raises `OSError`."""
    if not path:
        raise libc.os_error(errno.ENOENT)
    directory, name = os.path.split(path.rstrip(b"/"))
    fd = open_path(directory or (b"/" if path[:1] == b"/" else b"."), _DIRECTORY, roots)
    if path.endswith(b"/"):
        os.close(fd)
        raise libc.os_error(errno.EISDIR)
    return Entry(path, fd, name)


def target(path: bytes, roots: Roots | None = None) -> Entry:
    """Where a path leads, every link followed; nothing need be there; raises `OSError`."""
    if len(path) >= libc.PATH_MAX:
        raise libc.os_error(errno.ENAMETOOLONG)
    with closing(_Walk(path, roots)) as walk:
        walk.finish()
        directory, walk.directory = walk.directory, -1
        return Entry(path, directory, walk.name)


def create_path(path: bytes, flags: int, mode: int, roots: Roots | None = None) -> int:
    """Open a file, or make it where nothing is; links are followed.

    Args:
        path: as the client named it.
        flags: for open(2), with O_CREAT.
        mode: of a new one.
        roots: what it has to be below; None for anywhere.

    Raises:
        OSError: why it can't be opened.
    """
    with closing(target(path, roots)) as entry:
        try:
            return entry.open(flags, mode)
        except OSError as failed:
            if failed.errno != errno.ELOOP:
                raise
            # The kernel's own link, as /dev/stdout leads to.
            return open_path(path, flags & ~os.O_CREAT, roots)


def open_own(path: bytes, flags: int, mode: int) -> int:
    """Open a file that memd writes for its operator, or make it: a log, a PID file.

    It is made only where nothing is, and one that is there is not taken if another
    user may have put it there to read it, or to have something else overwritten: what
    the sysctls fs.protected_regular and fs.protected_symlinks ask for (proc(5)).

    Args:
        path: what the command line names.
        flags: for open(2), without O_CREAT.
        mode: of a new one.

    Raises:
        OSError: why it can't be opened.
    """
    with closing(target(path)) as entry:
        for _ in range(_TRIES):
            try:
                fd = entry.open(flags)
            except FileNotFoundError:
                try:
                    return entry.open(flags | os.O_CREAT | os.O_EXCL, mode)
                except FileExistsError:
                    continue
            except OSError as failed:
                if failed.errno != errno.ELOOP:
                    raise
                # The kernel's own link, as /dev/stderr leads to.
                return open_path(path, flags)
            found = os.fstat(fd)
            if (
                not stat.S_ISREG(found.st_mode)
                or is_trusted(found.st_uid)
                or not _is_open(os.fstat(entry.directory))
            ):
                return fd
            os.close(fd)
            raise OSError(errno.EACCES, "File of another user in a directory that others can write")
    raise libc.os_error(errno.EAGAIN)


def is_at(fd: int, path: str | bytes, directory: int | None = None) -> bool:
    """Whether an open file is the one at a path, or, no link followed, the one in a directory."""
    try:
        there = os.stat(path, dir_fd=directory, follow_symlinks=directory is None)
    except OSError:
        return False
    return os.path.samestat(os.fstat(fd), there)


class _Walk:
    """Follows a path a name at a time.

    Attributes:
        directory: the descriptor of the directory that it has come to.
        name: once it is finished, the last name, which is not a link.
    """

    def __init__(self, path: bytes, roots: Roots | None) -> None:
        if not path:
            raise libc.os_error(errno.ENOENT)
        self._links = 0
        self._magic = False
        self.name = b""
        # Where it is below a root, to find the way back by.
        self._names: list[bytes] = []
        self._root = -1
        if roots is None:
            self.directory = self._step(libc.AT_FDCWD, b"/" if path[:1] == b"/" else b".")
        else:
            self._root, path = roots.find(path)
            self.directory = os.dup(self._root)
        # What is still to come, the next one last.
        self._parts = _parts(path)

    def open(self, flags: int) -> int:
        """Follow it to its end and open the file."""
        self.finish()
        if not self._magic:
            flags |= os.O_NOFOLLOW
        return self._step(self.directory, self.name, flags)

    def finish(self) -> None:
        """Follow it to its last name; raises `OSError`."""
        while len(self._parts) > 1:
            self._enter(self._parts.pop())
        name = self._parts.pop() if self._parts else b"."
        if name == b"..":
            self._go_up()
            name = b"."
        if name == b".":
            # It has to be a directory; "." in something else is not there.
            self.name = name
            return
        try:
            link = self._look(name)
        except FileNotFoundError:
            link = None
        if link is None:
            self.name = name
        elif self._follow(name, *link):
            self.finish()

    def close(self) -> None:
        """Close the directory."""
        if self.directory >= 0:
            os.close(self.directory)
            self.directory = -1

    def _step(self, directory: int, name: bytes, flags: int = _DIRECTORY) -> int:
        if directory == libc.AT_FDCWD:
            return os.open(name, flags)
        return os.open(name, flags, dir_fd=directory)

    def _move(self, directory: int) -> None:
        os.close(self.directory)
        self.directory = directory

    def _enter(self, name: bytes) -> None:
        """Go on into a directory, or to where a link leads."""
        if name == b"..":
            self._go_up()
            return
        try:
            # Of a link, this says that it is not a directory; of what is to be
            # mounted automatically, it is.
            directory = self._step(self.directory, name, _DIRECTORY | os.O_NOFOLLOW)
        except NotADirectoryError:
            link = self._look(name)
            if link is None:
                raise
            if not self._follow(name, *link):
                self._move(self._step(self.directory, name))
                self._magic = False
            return
        self._move(directory)
        self._names.append(name)

    def _go_up(self) -> None:
        if self._root < 0:
            self._move(self._step(self.directory, b".."))
            return
        if not self._names:
            raise outside()
        # Not "..", which leads out of a directory that was moved meanwhile.
        self._names.pop()
        way = b"/".join(self._names) or b"."
        self._move(_beneath(self._root, way, _DIRECTORY))

    def _look(self, name: bytes) -> tuple[bytes, os.stat_result, bool] | None:
        """A link's target, its owner, and whether it is the kernel's own; None for what is none."""
        fd = self._step(self.directory, name, _LOOK)
        try:
            status = os.fstat(fd)
            if not stat.S_ISLNK(status.st_mode):
                return None
            magic = libc.file_system_type(fd) == libc.PROC_SUPER_MAGIC
            return os.readlink(b"", dir_fd=fd), status, magic
        finally:
            os.close(fd)

    def _follow(self, name: bytes, to: bytes, link: os.stat_result, magic: bool) -> bool:
        """Go on with what a link says, if it may be followed.

        Returns:
            False where only the kernel can follow it, in /proc.
        """
        self._links += 1
        if self._links > _MAX_LINKS:
            raise libc.os_error(errno.ELOOP)
        if self._root >= 0 and (magic or to[:1] == b"/"):
            raise outside()
        if magic:
            self._magic = True
            self.name = name
            return False
        if not is_trusted(link.st_uid) and _is_open(os.fstat(self.directory)):
            raise OSError(
                errno.EACCES, "Symbolic link of another user in a directory that others can write"
            )
        if to[:1] == b"/":
            self._move(self._step(libc.AT_FDCWD, b"/"))
        self._parts += _parts(to)
        return True


def _beneath(root: int, path: bytes, flags: int) -> int:
    """Open what is below a root, and there without any link."""
    resolve = libc.RESOLVE_BENEATH | libc.RESOLVE_NO_SYMLINKS
    for _ in range(_TRIES):
        try:
            return libc.openat2(root, path, flags, resolve)
        except BlockingIOError as failed:
            again = failed
    raise again


def is_trusted(user: int) -> bool:
    """Whether a user could do to memd whatever they like anyway."""
    return user in (0, os.geteuid())


def _is_open(directory: os.stat_result) -> bool:
    """Whether other users can put links into a directory."""
    mode = directory.st_mode
    return bool(mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not is_trusted(directory.st_uid)))


def _names(path: bytes) -> list[bytes]:
    return [name for name in path.split(b"/") if name not in (b"", b".")]


def _parts(path: bytes) -> list[bytes]:
    """The names of a path, the first one last; "." at its end where it has to be a directory."""
    parts = _names(path)
    if not parts or path.endswith((b"/", b"/.")):
        parts.append(b".")
    return parts[::-1]
