"""Dirty bitmaps in qcow2 images: the directory, and the bits.

All of it runs in threads. Texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Sequence

from memd.errors import QMPError, refusing
from memd.hostmem.libc import write_at
from memd.hostmem.spec import round_up
from memd.json_types import JSON, JSONObject
from memd.named_tuple import NamedTuple
from memd.standin.block.dirty_bitmap import cut
from memd.standin.block.qcow2 import Directory, Header, padded
from memd.standin.block.qcow2_clusters import OFFSET, Update, table, words

_ENTRY = struct.Struct(">QIIBBHI")
"""Of the directory: the offset of the bitmap's table, its entries, flags, type, granularity,
lengths of the name and of what else there is."""

_FLAGS_AT = 12
IN_USE, AUTO = 1, 2
"""A program has the image open, or had it when it was killed; the bitmap is recording."""

_FLAGS = {IN_USE: "in-use", AUTO: "auto"}
_LONGEST_NAME = 1023
_GRANULARITIES = range(9, 32)
MOST = 65535
"""Bitmaps of an image at most."""

MOST_ENTRIES = 1 << 27
"""Entries of a bitmap's table at most."""

LONGEST = 512 << 20
"""Bytes of a bitmap's clusters at most."""

_ONES = 1
_MOST_BITS = 32 << 20
"""Bytes of the bitmaps of an image that are read: those of 16 TiB with the usual granularity."""


class Entry(NamedTuple):
    """A bitmap of the directory.

    Attributes:
        name: as it is there.
        granularity: the bytes of which each bit tells.
        flags: `IN_USE` and `AUTO`.
        at: the offset of its table.
        entries: of that.
    """

    name: bytes
    granularity: int
    flags: int
    at: int
    entries: int

    @property
    def text(self) -> str:
        """The name as it is told."""
        return self.name.split(b"\0")[0].decode(errors="replace")

    def pack(self) -> bytes:
        """The entry as it is in the directory."""
        bits = self.granularity.bit_length() - 1
        data = _ENTRY.pack(self.at, self.entries, self.flags, 1, bits, len(self.name), 0)
        return padded(data + self.name, 8)

    def told(self) -> JSONObject:
        """QAPI's `Qcow2BitmapInfo`."""
        flags: list[JSON] = [text for flag, text in _FLAGS.items() if self.flags & flag]
        return {"name": self.text, "granularity": self.granularity, "flags": flags}


class Kept(NamedTuple):
    """A bitmap that is to be in an image.

    Attributes:
        name: as it is there.
        granularity: the bytes of which each bit tells.
        recording: whether it is.
        bits: the first one is the lowest; None where they are those of the image.
    """

    name: bytes
    granularity: int
    recording: bool
    bits: int | None


def read_directory(fd: int, header: Header) -> list[Entry]:
    """The bitmaps of an image.

    Raises:
        QMPError: they can't be told.
        OSError: the image can't be read.
    """
    at, size, found = 0, header.directory.size, list[Entry]()
    if not header.directory.bitmaps:
        return found
    if not size:
        raise QMPError("Requested bitmap directory size is zero")
    data = os.pread(fd, size, header.directory.at).ljust(size, b"\0")
    broken = QMPError("Broken bitmap directory")
    while at < size:
        if at + _ENTRY.size > size:
            raise broken
        place, entries, flags, kind, bits, length, more = _ENTRY.unpack_from(data, at)
        end = at + round_up(_ENTRY.size + length + more, 8)
        if end > size:
            raise broken
        if more:
            raise QMPError("Bitmap extra data is not supported")
        name = data[at + _ENTRY.size : at + _ENTRY.size + length]
        at = end
        fits = (
            0 < entries <= MOST_ENTRIES
            and place
            and not place % header.cluster
            and kind == 1
            and length <= _LONGEST_NAME
            and bits in _GRANULARITIES
            and not flags & ~(IN_USE | AUTO)
            and entries * header.cluster <= LONGEST
        )
        if fits and not flags & IN_USE:
            fits = header.size <= entries * header.cluster * 8 << bits
        if not fits:
            text = Entry(name, 0, 0, 0, 0).text
            raise QMPError(f"Bitmap '{text}' doesn't satisfy the constraints")
        if not length:
            raise broken
        found.append(Entry(name, 1 << bits, flags, place, entries))
        if len(found) > header.directory.bitmaps:
            raise QMPError("More bitmaps found than specified in header extension")
    if len(found) < header.directory.bitmaps:
        raise QMPError("Less bitmaps found than specified in header extension")
    return found


def entries_needed(size: int, granularity: int, cluster: int) -> int:
    """The entries of the table of a bitmap of so many bytes of a guest's."""
    bits = -(-size // granularity)
    return -(-bits // (cluster * 8))


def _table(fd: int, header: Header, entry: Entry) -> list[int]:
    """The table of a bitmap; raises `QMPError` where it is none."""
    found = words(os.pread(fd, entry.entries * 8, entry.at).ljust(entry.entries * 8, b"\0"))
    for each in found:
        odd = each & ~(OFFSET | _ONES) or (each & OFFSET) % header.cluster
        if odd or (each & OFFSET and each & _ONES):
            raise QMPError(
                f"Could not read bitmap_table table from image for bitmap '{entry.text}':"
                f" {os.strerror(errno.EINVAL)}"
            )
    return found.tolist()


def read(fd: int) -> list[tuple[Entry, int]]:
    """The bitmaps of an image, and their bits; none of those that are in use.

    Raises:
        QMPError: they can't be told, or are more than memd takes.
    """
    with refusing("Could not read bitmap directory"):
        header = Header(fd)
        entries = read_directory(fd, header)
    valid = [each for each in entries if not each.flags & IN_USE]
    bits = dict(zip(valid, _read_bits(fd, header, valid), strict=True))
    return [(each, bits.get(each, 0)) for each in entries]


def _read_bits(fd: int, header: Header, entries: Sequence[Entry]) -> list[int]:
    """The bits of bitmaps; raises `QMPError`."""
    found, left = [], _MOST_BITS
    for entry in entries:
        places = _table(fd, header, entry)
        needed = entries_needed(header.size, entry.granularity, header.cluster)
        if len(places) != needed:
            raise QMPError(
                f"Could not read bitmap '{entry.text}' from image: {os.strerror(errno.EINVAL)}"
            )
        while places and not places[-1]:
            places.pop()
        left -= len(places) * header.cluster
        if left < 0:
            raise QMPError(
                f"memd reads no more than {_MOST_BITS} bytes of the bitmaps of an image, see"
                " docs/limits.md"
            )
        data = bytearray()
        with refusing(f"Could not read bitmap '{entry.text}' from image"):
            for place in places:
                if place & _ONES:
                    data += b"\xff" * header.cluster
                else:
                    part = os.pread(fd, header.cluster, place) if place else b""
                    data += part.ljust(header.cluster, b"\0")
        found.append(cut(int.from_bytes(data, "little"), header.size, entry.granularity))
    return found


def mark_in_use(fd: int) -> list[Entry]:
    """Say that the bitmaps of an image may not be those of its content; gives the directory.

    Raises:
        QMPError: there is no such directory.
        OSError: the image can't be read or written.
    """
    header = Header(fd)
    entries = read_directory(fd, header)
    return _set_flags(fd, header, [each._replace(flags=each.flags | IN_USE) for each in entries])


def _set_flags(fd: int, header: Header, entries: list[Entry]) -> list[Entry]:
    """Write the flags of all bitmaps: those of some may be written if the process is killed."""
    at = header.directory.at
    for each in entries:
        write_at(fd, struct.pack(">I", each.flags), at + _FLAGS_AT)
        at += len(each.pack())
    os.fdatasync(fd)
    return entries


def store(fd: int, kept: Sequence[Kept]) -> list[Entry]:
    """Put bitmaps into an image; gives its directory.

    Those of the image that are not among them stay as they are, in use.

    Raises:
        QMPError: they can't be there; those that were there are.
        OSError: the image can't be written.
    """
    header = Header(fd)
    there = {each.name: each for each in read_directory(fd, header)}
    wanted = [
        (each, there.get(each.name), AUTO if each.recording else 0)
        for each in kept
        if each.bits is not None or each.name in there
    ]
    if all(each.bits is None for each, _old, _flags in wanted):
        for _each, old, flags in wanted:
            if old is not None:
                there[old.name] = old._replace(flags=flags)
        return _set_flags(fd, header, [*there.values()]) if wanted else [*there.values()]
    update = Update(fd, header)
    for each, old, flags in wanted:
        if each.bits is None and old is not None:
            there[each.name] = old._replace(flags=flags)
            continue
        if old is not None:
            _release(fd, update, old)
        size = entries_needed(header.size, each.granularity, header.cluster)
        at, entries = _write_bits(update, each.bits or 0, size)
        there[each.name] = Entry(each.name, each.granularity, flags, at, entries)
    return _write_directory(update, [*there.values()])


def remove(fd: int, name: bytes) -> list[Entry]:
    """Remove a bitmap from an image, if it is there; see `store`."""
    header = Header(fd)
    entries = read_directory(fd, header)
    gone = next((each for each in entries if each.name == name), None)
    if gone is None:
        return entries
    update = Update(fd, header)
    _release(fd, update, gone)
    entries.remove(gone)
    return _write_directory(update, entries)


def _release(fd: int, update: Update, entry: Entry) -> None:
    for place in _table(fd, update.header, entry):
        if place & OFFSET:
            update.release(place & OFFSET)
    update.release(entry.at, entry.entries * 8)


def _write_bits(update: Update, bits: int, entries: int) -> tuple[int, int]:
    cluster = update.header.cluster
    data = bits.to_bytes((bits.bit_length() + 7) // 8, "little")
    places = []
    for start in range(0, len(data), cluster):
        part = data[start : start + cluster]
        places.append(update.store(part) if part.strip(b"\0") else 0)
    places += [0] * (entries - len(places))
    return update.store(table(places)), entries


def _write_directory(update: Update, entries: list[Entry]) -> list[Entry]:
    header, before = update.header, update.header.directory
    data = b"".join(each.pack() for each in entries)
    at = update.store(data) if data else 0
    if before.bitmaps:
        update.release(before.at, before.size, own=True)
    update.commit(lambda fd: header.set_directory(fd, Directory(len(entries), len(data), at)))
    return entries
