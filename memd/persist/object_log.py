r"""The log of objects: a memfd, which survives a kill -9.

The service manager holds the memfd's descriptor, so a new daemon finds the log as
the old one left it. An entry is one write to memory, without a message to the manager.

The file begins with two headers of `_SLOT` bytes; the one of the higher generation
says where the entries begin. Each header and each entry is a line: a CRC-32 in
hexadecimal, a space, an object in JSON. The entries end with the file or a NUL. To be
shortened, the log is written anew behind itself, then the other header is written,
then what was before is punched out: whenever the daemon is killed, one of the two is
whole.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import threading
import time
from binascii import crc32
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from memd import __version__
from memd.errors import refusing
from memd.hostmem import libc
from memd.hostmem.spec import round_up
from memd.json_types import JSONObject

LogEntry = JSONObject

FORMAT = 2
"""The version of the format. A memd refuses a higher one than its own."""

_SLOT = 256
_PAGE = 4096
_SHORTEN = 64 << 10
"""Bytes of entries that are let grow before the list is written anew."""

_PIECE = 16 << 20
"""Bytes that are read at once."""

_encode = json.JSONEncoder(separators=(",", ":")).encode


log = logging.getLogger("memd")


class Unreadable(Exception):
    """The log can't be read; its text says why."""


class LogFile:
    """The file of a log, which is appended to by one thread at a time.

    Attributes:
        fd: the memfd; owned.
        promised: bytes that are set aside for entries to come.
    """

    def __init__(self, fd: int) -> None:
        """Take over a memfd; use `create` or `read` next."""
        self.fd = fd
        self._generation = 0
        self._begin = self._end = _PAGE
        self._long = _PAGE + _SHORTEN
        self.promised = 0

    @classmethod
    def create(cls) -> LogFile:
        """A new log, empty; raises `OSError`."""
        file = cls(os.memfd_create("memd-list", os.MFD_CLOEXEC))
        file.shorten(())
        return file

    def read(self) -> list[LogEntry]:
        """The entries, in the order in which they were written.

        Of an entry that was being written when its daemon was killed nothing is
        told: nobody was answered.

        Raises:
            Unreadable: this is not a log, or damaged, or not of a format that is known here.
        """
        with refusing("it is not a list of memd's", Unreadable):
            # Only a memfd has seals; what else there is, is not memd's.
            fcntl.fcntl(self.fd, fcntl.F_GET_SEALS)
            head = os.pread(self.fd, 2 * _SLOT, 0)
        slots = [head[at : at + _SLOT] for at in (0, _SLOT)]
        headers = [self._header(each, slot) for slot, each in enumerate(slots)]
        found = sorted(each for each in headers if each is not None)
        if not found:
            raise Unreadable("it does not begin as a list of memd's does")
        self._generation, self._begin = found[-1]
        self._end = self._begin
        entries = self._entries()
        damaged = len(found) == 1 and slots[1 - self._generation % 2].strip(b"\0")
        # Each generation has overwritten the one before the last; only the first has
        # none before it. Of a header that a kill has cut short the log before is whole;
        # of one that is damaged it has been punched out.
        if damaged and not entries:
            raise Unreadable("a header is damaged")
        if not damaged and found[0][0] != max(1, self._generation - 1):
            raise Unreadable("its headers do not belong together")
        os.ftruncate(self.fd, self._end)
        return entries

    def _header(self, text: bytes, slot: int) -> tuple[int, int] | None:
        """Generation, and where its entries begin; None where there is no whole header."""
        header = _parse(text.partition(b"\n")[0])
        if header is None:
            return None
        numbers: list[Any] = [header.get(each) for each in ("format", "generation", "begin")]
        format, generation, begin = numbers
        if type(format) is int and format > FORMAT:
            raise Unreadable(
                f"it is of format {format}, written by a newer memd"
                f" ({header.get('by')}): this one reads format {FORMAT}"
            )
        if (
            any(type(each) is not int for each in numbers)
            or generation % 2 != slot
            or begin % _PAGE
            or not _PAGE <= begin <= max(2 * _PAGE, round_up(os.fstat(self.fd).st_size, _PAGE))
        ):
            raise Unreadable("a header is not what it should be")
        return generation, begin

    def _entries(self) -> list[LogEntry]:
        data = b""
        while piece := os.pread(self.fd, _PIECE, self._begin + len(data)):
            data += piece
        text, _end, rest = data.partition(b"\0")
        *lines, torn = text.split(b"\n")
        # Behind the end there is nothing, or a log that was being written anew.
        blank = -(len(text) + 1) % _PAGE
        if rest[:blank].strip(b"\0") or not _may_be_log(rest[blank:]) or _parse(torn[:-1]):
            raise Unreadable("its end is damaged")
        entries = []
        for number, line in enumerate(lines, 1):
            entry = _parse(line)
            if entry is None:
                raise Unreadable(f"entry {number} of {len(lines)} is damaged")
            entries.append(entry)
            self._end += len(line) + 1
        self._long = max(self._end, self._begin + _SHORTEN)
        return entries

    @property
    def long(self) -> bool:
        """Whether it has grown so much that it should be written anew."""
        return self._end > self._long and not self.promised

    def append(self, line: bytes) -> None:
        """Add an entry, made by `line_of`; raises `OSError`, and has not then."""
        if self.promised:
            os.posix_fallocate(self.fd, self._end, len(line) + self.promised)
        self._write(line, self._end)
        self._end += len(line)

    def promise(self, length: int) -> None:
        """Set so many bytes aside for what is appended later; raises `OSError`.

        Meanwhile it is not written anew. Who needs them no longer lowers `promised`.
        """
        os.posix_fallocate(self.fd, self._end, self.promised + length)
        self.promised += length

    def shorten(self, lines: Iterable[bytes]) -> None:
        """Write the log anew.

        Args:
            lines: its entries from now on, made by `line_of`.

        Raises:
            OSError: there is no memory for it; it is as it was.
        """
        data = b"".join(lines)
        # At least one NUL ends what was there.
        begin = round_up(self._end + 1, _PAGE)
        generation = self._generation + 1
        header = {"format": FORMAT, "by": __version__, "generation": generation, "begin": begin}
        try:
            self._write(data, begin)
            self._write(line_of(header).ljust(_SLOT, b"\0"), generation % 2 * _SLOT)
        except OSError:
            # Entries that follow would run into it.
            os.ftruncate(self.fd, self._end)
            raise
        self._generation = generation
        self._begin, self._end = begin, begin + len(data)
        self._long = begin + max(_SHORTEN, 3 * len(data))
        libc.punch_hole(self.fd, _PAGE, begin - _PAGE)

    def _write(self, data: bytes, offset: int) -> None:
        if os.pwrite(self.fd, data, offset) != len(data):
            raise libc.os_error(errno.ENOSPC)

    def close(self) -> None:
        """Close it; who else has its descriptor has the log."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class ObjectLogState:
    """The state that the entries amount to.

    Attributes:
        objects: the line of each object's description, by its number.
        clean: numbers of private mappings of which no page had been copied when
            the last daemon ended.
        discards: the ranges of data that are still to be discarded, offset and
            length in bytes, by the number of the deleted object.
        creations: files that were being made for an object; see `ObjectLog.making`.
        lost: what was lost with a daemon's end, by id.
        next: the number of the next object or file.
    """

    def __init__(self) -> None:
        self.objects: dict[int, bytes] = {}
        self.clean: set[int] = set()
        self.discards: dict[int, list[int]] = {}
        self.creations: dict[int, LogEntry] = {}
        self.lost: dict[str, LogEntry] = {}
        self.next = 1

    def apply(self, entry: LogEntry, line: bytes) -> None:
        """Take an entry into account.

        Args:
            line: the same as it is written.

        Raises:
            Unreadable: it is of no kind that is known, or not as it should be.
        """
        # The first member says what the entry is about.
        kind: str
        value: Any
        kind, value = next(iter(entry.items()), ("", None))
        if kind not in _ENTRIES:
            raise Unreadable(f"an entry is of the unknown kind '{kind}'")
        for name, types in _ENTRIES[kind].items():
            if not isinstance(entry.get(name), types) or isinstance(entry[name], bool):
                raise Unreadable(f"'{name}' of an entry is not what it should be")
        if kind == "is":
            self.objects[value] = line
            self.next = max(self.next, value + 1)
        elif kind == "gone":
            self.objects.pop(value, None)
            if "discard" in entry:
                self.discards[value] = _span(entry["discard"])
        elif kind == "discarded":
            self.discards.pop(value, None)
        elif kind == "clean":
            self.clean.add(value)
        elif kind == "making":
            self.creations[value] = entry.copy()
            self.next = max(self.next, value + 1)
        elif kind == "made":
            self.creations.get(value, {}).update(entry)
        elif kind == "settled":
            self.creations.pop(value, None)
        elif kind == "lost":
            self.objects.pop(entry["was"], None)
            if type(id := value.get("id")) is not str:
                raise Unreadable("'id' of an entry is not what it should be")
            self.lost[id] = value
        elif kind == "found":
            self.lost.pop(value, None)
        elif kind == "next":
            self.next = max(self.next, value)

    def described(self, number: int) -> LogEntry:
        """The description of an object."""
        described: LogEntry = json.loads(self.objects[number][9:])
        return described

    def lines(self) -> Iterator[bytes]:
        """The entries that say the same in short."""
        yield line_of({"next": self.next})
        yield from self.objects.values()
        for number in self.clean:
            yield line_of({"clean": number})
        for number, span in self.discards.items():
            yield line_of({"gone": number, "discard": span})
        for creation in self.creations.values():
            yield line_of({name: creation[name] for name in _ENTRIES["making"]})
            if "made" in creation:
                yield line_of({name: creation[name] for name in _ENTRIES["made"]})
        for lost in self.lost.values():
            yield line_of({"lost": lost, "was": 0})


_ENTRIES: dict[str, dict[str, type | tuple[type, ...]]] = {
    "is": {"is": int},
    "gone": {"gone": int},
    "discarded": {"discarded": int},
    "clean": {"clean": int},
    "making": {"making": int, "path": str, "time": (int, float)},
    "made": {"made": int, "dev": int, "ino": int},
    "settled": {"settled": int},
    "lost": {"lost": dict, "was": int},
    "found": {"found": str},
    "next": {"next": int},
}
"""The kinds of entries, with the members that each has to have."""


def _span(span: object) -> list[int]:
    if not isinstance(span, list) or [type(each) for each in span] != [int, int]:
        raise Unreadable("'discard' of an entry is not what it should be")
    return span


class ObjectLog:
    """A log, and what it comes to; a `CreationLog` of `memd.hostmem`, too.

    Args:
        fd: its descriptor, taken over; None for a new one.

    Attributes:
        state: what it comes to.

    Raises:
        Unreadable: it can't be read. Nothing was changed.
        OSError: there is no memory for a new one.
    """

    def __init__(self, fd: int | None = None) -> None:
        self._lock = threading.Lock()
        self.state = ObjectLogState()
        if fd is None:
            self._file = LogFile.create()
            return
        self._file = LogFile(fd)
        for entry in self._file.read():
            if "parked" in entry:
                # Format 1 called it so.
                entry["stored"] = entry.pop("parked")
            self.state.apply(entry, line_of(entry))

    @property
    def fd(self) -> int:
        """Its descriptor."""
        return self._file.fd

    def write(self, entry: LogEntry) -> None:
        """Write an entry; from any thread.

        Raises:
            OSError: there is no memory for it; nothing was written.
        """
        with self._lock:
            self._write(entry)

    def _write(self, entry: LogEntry) -> None:
        line = line_of(entry)
        self._file.append(line)
        self.state.apply(entry, line)
        if self._file.long:
            try:
                self._file.shorten(self.state.lines())
            except OSError as failed:
                log.warning("the list of objects can't be shortened: %s", failed.strerror)

    @contextmanager
    def reserve(self, length: int) -> Iterator[Callable[[LogEntry], None]]:
        """Reserve so many bytes for one entry.

        Yields:
            writes the entry, once; memory for it is reserved.

        Raises:
            QMPError: there is no memory.
        """
        with recording(), self._lock:
            self._file.promise(length)
        left = length

        def write(entry: LogEntry) -> None:
            nonlocal left
            with recording(), self._lock:
                self._file.promised -= left
                left = 0
                self._write(entry)

        try:
            yield write
        finally:
            with self._lock:
                self._file.promised -= left

    def shorten(self) -> None:
        """Write the log anew; raises `OSError`, and it is as it was then."""
        with self._lock:
            self._file.shorten(self.state.lines())

    def number(self) -> int:
        """A number that nothing had before."""
        with self._lock:
            number = self.state.next
            self.state.next += 1
        return number

    def close(self) -> None:
        """Close it; who else has its descriptor has the log."""
        self._file.close()

    # Files that are made; see `CreationLog`

    def making(self, path: bytes) -> int:
        """Note that a file is going to be made; gives it a number."""
        number = self.number()
        absolute = os.fsdecode(os.path.abspath(path))
        self.write({"making": number, "path": absolute, "time": time.time()})
        return number

    def made(self, number: int, fd: int) -> None:
        """Note which file was made, before there is anything in it."""
        there = os.fstat(fd)
        self.write({"made": number, "dev": there.st_dev, "ino": there.st_ino})

    def settled(self, number: int) -> None:
        """Note that the file is an object's from now on, or has gone again."""
        self.write({"settled": number})


def _may_be_log(data: bytes) -> bool:
    """Whether it may be the begin of a log, cut off anywhere."""
    line, end, _rest = data[:_PAGE].partition(b"\n")
    return not data[:1].strip(b"\0") or not end or _parse(line) is not None


def recording() -> AbstractContextManager[None]:
    """Have it raised as a `QMPError` that there is no memory for an entry."""
    return refusing("cannot note it for a restart")


def line_of(entry: LogEntry) -> bytes:
    """An entry as it is written."""
    text = _encode(entry).encode("ascii")
    return b"%08x %s\n" % (crc32(text), text)


def _parse(line: bytes) -> LogEntry | None:
    """A line's object; None where the line is damaged."""
    text = line[9:]
    try:
        if int(line[:8], 16) != crc32(text):
            return None
        entry = json.loads(text)
    except (RecursionError, ValueError):
        return None
    return entry if isinstance(entry, dict) else None
