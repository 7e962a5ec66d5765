r"""The list of what the daemon has, kept where a kill -9 leaves it: in a memfd.

The service manager holds the memfd's descriptor, so a new daemon finds the list
as the old one left it, without a word between them. What comes and goes is one
write to memory; the manager is not bothered.

The file begins with two headers of `_SLOT` bytes; the valid one of the higher
generation says where the entries begin. Each header and each entry is a line: a
CRC-32 in hexadecimal, a space, an object in JSON. The entries end with the file
or a NUL. To be shortened, the list is written anew behind itself, then the
other header is written, then what was before is punched out: whenever the
daemon is killed, one of the two is whole.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from binascii import crc32
from collections.abc import Callable, Iterable

from memd import __version__
from memd.hostmem import libc
from memd.hostmem.spec import round_up
from memd.json_types import JSON

FORMAT = 1
"""The version of what is written here. One that reads less refuses what has more."""

_SLOT = 256
_PAGE = 4096
_SHORTEN = 64 << 10
"""Bytes of entries that are let grow before the list is written anew."""

_PIECE = 16 << 20
"""Bytes that are read at once."""

_F_GET_SEALS = 1034

_encode = json.JSONEncoder(separators=(",", ":")).encode


class Unreadable(Exception):
    """The list can't be read; its text says why."""


class Journal:
    """A list that is appended to, by one thread at a time.

    Attributes:
        fd: the memfd; owned.
    """

    __slots__ = ("_begin", "_end", "_generation", "_long", "fd")

    def __init__(self, fd: int) -> None:
        """Take over a memfd; use `create` or `read` next."""
        self.fd = fd
        self._generation = 0
        self._begin = self._end = _PAGE
        self._long = _PAGE + _SHORTEN

    @classmethod
    def create(cls) -> Journal:
        """A new list, empty; raises `OSError`."""
        journal = cls(os.memfd_create("memd-list", os.MFD_CLOEXEC))
        journal.shorten(())
        return journal

    def read(self) -> list[dict[str, JSON]]:
        """The entries, in the order in which they were written.

        Of an entry that was being written when its daemon was killed nothing is
        told: nobody was answered.

        Raises:
            Unreadable: this is no list, or not one of a format that is known here.
        """
        try:
            # Only a memfd has seals; what else there is, is not memd's.
            fcntl.fcntl(self.fd, _F_GET_SEALS)
            head = os.pread(self.fd, 2 * _SLOT, 0)
        except OSError as failed:
            raise Unreadable(f"it is no list of memd's: {failed.strerror}") from None
        headers = [_parse(head[at : at + _SLOT].partition(b"\n")[0]) for at in (0, _SLOT)]
        found = [each for each in headers if each is not None]
        if not found:
            raise Unreadable("it does not begin as a list of memd's does")
        header = max(found, key=lambda each: int(each.get("generation", 0)))
        if header["format"] > FORMAT:
            raise Unreadable(
                f"it is of format {header['format']}, written by a newer memd"
                f" ({header['by']}): this one reads format {FORMAT}"
            )
        self._generation = header["generation"]
        self._begin = self._end = header["begin"]
        return self._entries()

    def _entries(self) -> list[dict[str, JSON]]:
        data = b""
        while piece := os.pread(self.fd, _PIECE, self._begin + len(data)):
            data += piece
        *lines, _torn = data.partition(b"\0")[0].split(b"\n")
        entries = []
        for number, line in enumerate(lines, 1):
            entry = _parse(line)
            if entry is None:
                raise Unreadable(f"entry {number} of {len(lines)} is damaged")
            entries.append(entry)
            self._end += len(line) + 1
        os.ftruncate(self.fd, self._end)
        self._long = max(self._end, self._begin + _SHORTEN)
        return entries

    @property
    def long(self) -> bool:
        """Whether it has grown so much that it should be written anew."""
        return self._end > self._long

    def append(self, line: bytes) -> None:
        """Add an entry, made by `line_of`; raises `OSError`, and has not then."""
        self._write(line, self._end)
        self._end += len(line)

    def shorten(self, lines: Iterable[bytes], between: Callable[[], None] = lambda: None) -> None:
        """Write the list anew.

        Args:
            lines: its entries from now on, made by `line_of`.
            between: called between one step and the next; for tests.

        Raises:
            OSError: there is no memory for it; the list is as it was.
        """
        data = b"".join(lines)
        # At least one NUL ends what was there.
        begin = round_up(self._end + 1, _PAGE)
        generation = self._generation + 1
        header = {"format": FORMAT, "by": __version__, "generation": generation, "begin": begin}
        try:
            self._write(data, begin)
            between()
            self._write(line_of(header).ljust(_SLOT, b"\0"), generation % 2 * _SLOT)
        except OSError:
            # Entries that follow would run into it.
            os.ftruncate(self.fd, self._end)
            raise
        self._generation = generation
        self._begin, self._end = begin, begin + len(data)
        self._long = begin + max(_SHORTEN, 3 * len(data))
        between()
        libc.punch_hole(self.fd, _PAGE, begin - _PAGE)

    def _write(self, data: bytes, offset: int) -> None:
        if os.pwrite(self.fd, data, offset) != len(data):
            raise libc.os_error(errno.ENOSPC)

    def close(self) -> None:
        """Close it; who else has its descriptor has the list."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def line_of(entry: dict[str, JSON]) -> bytes:
    """An entry as it is written."""
    text = _encode(entry).encode("ascii")
    return b"%08x %s\n" % (crc32(text), text)


def _parse(line: bytes) -> dict[str, JSON] | None:
    """A line's object; None where the line is damaged."""
    text = line[9:]
    try:
        if int(line[:8], 16) != crc32(text):
            return None
        entry = json.loads(text)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
