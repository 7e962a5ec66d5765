"""A template's pages verified and unpacked, as they are sent: a file that all who serve it map.

It begins with a note for each page, which tells whether that is there; the records of the
pages follow. It is made anew after each start of the machine: a crash may have kept the note
that a page is there, and not the page.
"""

from __future__ import annotations

import fcntl
import os
import struct
from bisect import bisect
from collections.abc import Callable, Sequence

from memd.hostmem.libc import HUGE_PAGE, collapse, write_at
from memd.hostmem.paths import is_at
from memd.hostmem.spec import round_up
from memd.hostmem.window import Window
from memd.pages.blobs import DIGEST, create, remove
from memd.pages.layout import Layout
from memd.pages.postcopy import Span
from memd.pages.recording import DATA, PAGE, RECORD, SAME_BLOCK

_HEAD = struct.Struct(">Q")

_THERE = b"\0"
_MISSING = b"\1"
"""So that the notes of a memory that is mostly zeroes are mostly holes."""


_FULL = HUGE_PAGE // RECORD
"""Records that a huge page holds."""

_MOST_ZEROES = _FULL // 8
"""Those of them at most that are of pages of zeroes: they take memory for nothing."""


def boot_id() -> str:
    """The kernel's identifier of this start of the machine."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _path(directory: str, key: str) -> str:
    return os.path.join(directory, boot_id(), key)


class Unpacked:
    """An unpacked copy, as one process uses it.

    Args:
        directory: of the unpacked copies.
        key: which one; see `Manifest.unpacked`.
        layout: says which pages are zeroes.
        blocks: the first page of each block of memory, ascending.

    Raises:
        OSError: the file can't be made or mapped.
    """

    def __init__(self, directory: str, key: str, layout: Layout, blocks: Sequence[int]) -> None:
        self._path = _path(directory, key)
        self._layout = layout
        self._blocks = blocks
        # Where in the file `gather` has been.
        self._gathered: set[int] = set()
        self._begin = _begin(layout)
        self._fd = _open(self._path, layout)
        try:
            self._window = Window(self._fd, _size(layout), writable=True)
        except BaseException:
            os.close(self._fd)
            raise

    def records(self, page: int, count: int) -> Span:
        """Pages as they are sent, of which only those that are there may be read."""
        begin = self._begin + page * RECORD
        return Span(self._fd, self._window.view, begin, begin + count * RECORD)

    def has(self, page: int, count: int) -> bool:
        """Whether all pages of a range are there."""
        return self._window.memory.find(_MISSING, page, page + count) < 0

    def put(self, page: int, data: memoryview | bytes) -> None:
        """Pages are there, with this content, from now on. Raises `OSError`."""
        count = len(data) // PAGE
        records: list[bytes | memoryview] = []
        for number in range(count):
            block = self._blocks[bisect(self._blocks, page + number) - 1]
            address = (page + number - block) * PAGE
            content = data[number * PAGE : (number + 1) * PAGE]
            records += (_HEAD.pack(address | DATA | SAME_BLOCK), content)
        write_at(self._fd, b"".join(records), self._begin + page * RECORD)
        self._window.memory[page : page + count] = _THERE * count

    def gather(self, go_on: Callable[[], bool]) -> None:
        """Have huge pages for what is there, where the file is in memory that can have them.

        Sender and receiver count each page that they send: that is a third of their time
        (measured), and a huge page is one. To make them takes longer than to send all once.

        Args:
            go_on: asked before each, in this thread.
        """
        end = self._begin + (self._layout.pages - _FULL) * RECORD
        for at in range(round_up(self._begin, HUGE_PAGE), end, HUGE_PAGE):
            first = (at - self._begin) // RECORD
            if at in self._gathered or not self.has(first, _FULL):
                continue
            if not go_on():
                return
            self._gathered.add(at)
            pieces = self._layout.pieces(first, _FULL)
            if sum(piece.count for piece in pieces if piece.chunk < 0) <= _MOST_ZEROES:
                try:
                    collapse(self._fd, at)
                except BlockingIOError:
                    # A page of it is in use.
                    self._gathered.discard(at)
                except OSError:
                    return

    def rest(self) -> None:
        """Let others remove it, until `use`. Raises `OSError`."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def use(self) -> bool:
        """Use it again; False where it was removed meanwhile. Raises `OSError`."""
        fcntl.flock(self._fd, fcntl.LOCK_SH)
        return is_at(self._fd, self._path)

    def close(self) -> None:
        """Use it no longer; what is left of its records stays valid."""
        self._window.close()
        os.close(self._fd)


def _begin(layout: Layout) -> int:
    """Where the records begin, behind the notes."""
    return round_up(layout.pages, PAGE)


def _size(layout: Layout) -> int:
    return _begin(layout) + layout.pages * RECORD


def _open(path: str, layout: Layout) -> int:
    """The file, with a shared lock that says it is in use."""
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            _free_space(directory, sum(layout.lengths) * RECORD)
            _make(path, layout)
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            # It may have been removed before there was a lock on it.
            if is_at(fd, path):
                if os.fstat(fd).st_size >= _size(layout):
                    return fd
                remove(path)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _make(path: str, layout: Layout) -> None:
    """Make the file, whole before it has its name; another process may be faster."""
    temporary = f"{path}.{os.urandom(8).hex()}"
    fd = create(temporary)
    try:
        os.ftruncate(fd, _size(layout))
        for first, count in layout.ranges():
            write_at(fd, _MISSING * count, first)
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        os.close(fd)
        remove(temporary)


def _free_space(place: str, needed: int) -> None:
    """Remove unused copies, the oldest first, until so many bytes are free or none is left."""
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize
    with os.scandir(place) as entries:
        others = sorted(
            (entry.stat().st_mtime_ns, entry.path, entry.stat().st_blocks * 512)
            for entry in entries
            if DIGEST.fullmatch(entry.name)
        )
    for _made, path, taken in others:
        if free >= needed:
            return
        if _drop(path):
            free += taken


def drop(directory: str, key: str) -> bool:
    """Remove an unpacked copy; False where a process uses it. Raises `OSError`."""
    return _drop(_path(directory, key))


def _drop(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        remove(path)
        return True
    finally:
        os.close(fd)


def share(directory: str, key: str, other: str) -> None:
    """Let an unpacked copy be that of another layout with the same content as well.

    Pages that come later into one of them are noted in both.

    Raises:
        OSError: it can't be done.
    """
    try:
        os.link(_path(directory, key), _path(directory, other))
    except (FileNotFoundError, FileExistsError):
        return
