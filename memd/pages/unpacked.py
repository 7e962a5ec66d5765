"""A template's pages verified and unpacked, as they are sent: a file that all who serve it map.

It is made anew after each start of the machine: a crash may have kept the note
that a page is there, and not the page.
"""

from __future__ import annotations

import fcntl
import os
import struct
from bisect import bisect
from collections.abc import Sequence

from memd.hostmem.libc import write_at
from memd.hostmem.window import Window
from memd.pages.blobs import DIGEST, remove, write_all
from memd.pages.chunks import PAGE
from memd.pages.layout import Layout
from memd.pages.recording import DATA, RECORD, SAME_BLOCK

_HEAD = struct.Struct(">Q")

_THERE = b"\0"
_MISSING = b"\1"
"""So that the notes of a memory that is mostly zeroes are mostly holes."""

_NOTES = ".there"
"""Ends the name of the notes."""


def boot_id() -> str:
    """What tells this start of the machine from others."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def paths(directory: str, key: str) -> tuple[str, str]:
    """The files of an unpacked copy: the pages, and one byte a page that tells whether it is there.

    Args:
        directory: of the unpacked copies.
        key: which one.
    """
    place = os.path.join(directory, boot_id(), key)
    return place, f"{place}{_NOTES}"


class Unpacked:
    """An unpacked copy, as one process uses it.

    Args:
        directory: of the unpacked copies.
        key: which one; see `Manifest.unpacked`.
        layout: says which pages are zeroes.
        blocks: the first page of each block of memory, ascending.

    Attributes:
        fd: the file: a record of `RECORD` bytes for each page.

    Raises:
        OSError: the files can't be made or mapped.
    """

    def __init__(self, directory: str, key: str, layout: Layout, blocks: Sequence[int]) -> None:
        data, there = paths(directory, key)
        self._path = there
        os.makedirs(os.path.dirname(data), mode=0o700, exist_ok=True)
        self._blocks = blocks
        size = layout.pages * RECORD
        while True:
            self._lock = _open_there(data, there, layout)
            try:
                self.fd = os.open(data, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                self.fd = -1
            if self.fd >= 0 and os.fstat(self.fd).st_size >= size:
                break
            # Not what the notes speak of.
            remove(there)
            self._close_files()
        try:
            self._there = Window(self._lock, layout.pages, writable=True)
            self._pages = Window(self.fd, size)
        except BaseException:
            self._close_files()
            raise

    @property
    def view(self) -> memoryview:
        """All of the file; only pages that are unpacked may be read."""
        return self._pages.view

    def has(self, page: int, count: int) -> bool:
        """Whether all pages of a range are there."""
        return self._there.memory.find(_MISSING, page, page + count) < 0

    def put(self, page: int, data: memoryview | bytes) -> None:
        """Pages are there, with this content, from now on. Raises `OSError`."""
        count = len(data) // PAGE
        records: list[bytes | memoryview] = []
        for number in range(count):
            block = self._blocks[bisect(self._blocks, page + number) - 1]
            address = (page + number - block) * PAGE
            content = data[number * PAGE : (number + 1) * PAGE]
            records += (_HEAD.pack(address | DATA | SAME_BLOCK), content)
        write_at(self.fd, b"".join(records), page * RECORD)
        self._there.memory[page : page + count] = _THERE * count

    def rest(self) -> None:
        """Let others remove it, until `use`. Raises `OSError`."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    def use(self) -> bool:
        """Use it again; False where it was removed meanwhile. Raises `OSError`."""
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        return _is_at(self._lock, self._path)

    def close(self) -> None:
        """Use it no longer; slices of the view that are left stay valid."""
        self._there.close()
        self._pages.close()
        self._close_files()

    def _close_files(self) -> None:
        os.close(self._lock)
        if self.fd >= 0:
            os.close(self.fd)


def _open_there(data: str, there: str, layout: Layout) -> int:
    """The notes of an unpacked copy, with a shared lock that says it is in use."""
    while True:
        try:
            fd = os.open(there, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            _free_space(os.path.dirname(data), sum(layout.lengths) * RECORD)
            _make(data, there, layout)
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            # It may have been removed before there was a lock on it.
            if _is_at(fd, there):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _free_space(place: str, needed: int) -> None:
    """Remove unused copies, the oldest first, until so many bytes are free or none is left."""
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize
    with os.scandir(place) as entries:
        others = sorted(
            (entry.stat().st_mtime_ns, entry.name, entry.stat().st_blocks * 512)
            for entry in entries
            if DIGEST.fullmatch(entry.name)
        )
    for _made, key, taken in others:
        if free >= needed:
            return
        if _drop(os.path.join(place, key)):
            free += taken


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _make(data: str, there: str, layout: Layout) -> None:
    """Make both files; a second process that does so at the same time makes the same."""
    fd = os.open(data, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        size = layout.pages * RECORD
        if os.fstat(fd).st_size < size:
            os.ftruncate(fd, size)
    finally:
        os.close(fd)
    # Whole before it has its name.
    temporary = f"{there}.{os.urandom(8).hex()}"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, layout.pages)
        for first, count in layout.ranges():
            os.lseek(fd, first, os.SEEK_SET)
            write_all(fd, _MISSING * count)
        os.link(temporary, there)
    except FileExistsError:
        pass
    finally:
        os.close(fd)
        remove(temporary)


def drop(directory: str, key: str) -> bool:
    """Remove an unpacked copy; False where a process uses it. Raises `OSError`."""
    return _drop(paths(directory, key)[0])


def _drop(data: str) -> bool:
    there = f"{data}{_NOTES}"
    try:
        fd = os.open(there, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        # The notes first: without them, what is left of the pages is not looked at.
        remove(there)
        remove(data)
        return True
    finally:
        os.close(fd)


def share(directory: str, key: str, other: str) -> None:
    """Let an unpacked copy be that of another layout with the same content as well.

    Pages that come later into one of them are noted in both.

    Raises:
        OSError: it can't be done.
    """
    data, there = paths(directory, key)
    other_data, other_there = paths(directory, other)
    for old, new in ((data, other_data), (there, other_there)):
        try:
            os.link(old, new)
        except (FileNotFoundError, FileExistsError):
            return
