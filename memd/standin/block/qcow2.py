"""The header of qcow2 images: what it tells, how it is changed, and new images.

The format is that of QEMU's specification, versions 2 and 3. Clusters of a
guest's data are neither read nor written. What lies behind the header is changed
by `qcow2_clusters.py`.
"""

from __future__ import annotations

import errno
import os
import struct

from memd.errors import QMPError
from memd.hostmem.libc import write_at
from memd.hostmem.spec import round_up
from memd.json_types import JSONObject
from memd.named_tuple import NamedTuple

MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_EXTENSION = struct.Struct(">II")
_BACKING_FORMAT = 0xE2792ACA
_BITMAPS = 0x23852875
_DIRECTORY = struct.Struct(">IIQQ")
"""Of the extension for bitmaps: how many there are, 0, the bytes of their directory and where
that is."""

DIRTY, CORRUPT, EXTERNAL_DATA, EXTENDED_L2 = 1, 2, 4, 16
"""Incompatible features: references were not counted, something is wrong, guests' data is in
another file; an entry of a second-level table has 16 bytes."""

KNOWN = 0x1F
"""All that QEMU has."""

_VALID_BITMAPS, _KEPT = 1, 3
"""Features that a program clears which does not know them: the bitmaps are those of the content;
those that stay."""

_FIELDS = {
    "backing_at": (8, ">Q"),
    "backing_length": (16, ">I"),
    "size": (24, ">Q"),
    "entries": (36, ">I"),
    "table": (40, ">Q"),
    "references": (48, ">Q"),
    "references_clusters": (56, ">I"),
    "snapshot_count": (60, ">I"),
    "snapshots_at": (64, ">Q"),
    "incompatible": (72, ">Q"),
    "autoclear": (88, ">Q"),
}
"""Where the header has what may change, and how."""

_COMPRESSION_BYTE = 104
_LENGTH = 112
_LONGEST_NAME = 1023
_ENTRY = struct.Struct(">QIHHIIQII")
"""Of an internal snapshot: its table and the entries of that, the lengths of its id and name, when
it was made, how long the machine had run, and the lengths of its state and of what comes before
the id."""
_MORE = struct.Struct(">QQQ")
"""What comes there: the length of the state and the bytes of the disk, each in full, and how many
instructions had run."""
_NO_COUNT = (1 << 64) - 1
_MOST_SHORT = (1 << 32) - 1
LONGEST_SNAPSHOTS = 64 << 10
"""Bytes of the table of internal snapshots, which are kept: QEMU takes 65,536 snapshots."""
_STEP = 1 << 20
"""Bytes of a table that are looked at together."""
MOST_ENTRIES = 32 << 20 >> 3
"""Entries of a first-level table, which QEMU holds to 32 MiB."""
_MOST_BITMAPS = 65535
_LONGEST_DIRECTORY = _MOST_BITMAPS * 1024

LONGEST_REFERENCES = 8 << 20
"""Bytes of a table of reference counts."""
_MOST_SNAPSHOTS = 65536


def padded(data: bytes, unit: int) -> bytes:
    """Data with zeroes behind it, up to whole units, which are a power of two."""
    return data.ljust(round_up(len(data), unit), b"\0")


class Directory(NamedTuple):
    """Where an image has the directory of its bitmaps.

    Attributes:
        bitmaps: how many there are.
        size: bytes of it.
        at: its offset.
    """

    bitmaps: int = 0
    size: int = 0
    at: int = 0


class Snapshot(NamedTuple):
    """An internal snapshot of an image.

    Attributes:
        id: unique in the image.
        name: what people call it.
        size: bytes of a machine's state in it.
        seconds: when it was made, since the epoch.
        nanoseconds: those of a second besides.
        clock: nanoseconds that the machine had run.
        table: the offset of its first-level table, and its entries.
        disk: bytes that a guest saw; None where that is not told.
        raw: it as it is in the table, where it is there.
    """

    id: str
    name: str
    size: int
    seconds: int = 0
    nanoseconds: int = 0
    clock: int = 0
    table: tuple[int, int] = (0, 0)
    disk: int | None = None
    raw: bytes = b""

    def pack(self) -> bytes:
        """It as it is in the table."""
        if self.raw:
            return self.raw
        id, name = os.fsencode(self.id), os.fsencode(self.name)
        more = _MORE.pack(self.size, self.disk or 0, _NO_COUNT)
        data = _ENTRY.pack(
            *(*self.table, len(id), len(name), self.seconds, self.nanoseconds, self.clock),
            *(min(self.size, _MOST_SHORT), len(more)),
        )
        return padded(data + more + id + name, 8)

    def told(self) -> JSONObject:
        """QAPI's `SnapshotInfo`."""
        return {
            "id": self.id,
            "name": self.name,
            "vm-state-size": self.size,
            "date-sec": self.seconds,
            "date-nsec": self.nanoseconds,
            "vm-clock-sec": self.clock // 1_000_000_000,
            "vm-clock-nsec": self.clock % 1_000_000_000,
        }


class Header:
    """The header of an image.

    Attributes:
        size: bytes that a guest sees.
        facts: members of QAPI's `ImageInfo`.
        backing: the backing file's name as it is written there, or None.
        backing_format: its format, or None.
        snapshots: the internal snapshots that are in the image.
        cluster: bytes of a cluster.
        version: of the format, 2 or 3.
        width: the bits of a reference count, as a power of two.
        incompatible: features without which nobody may use the image.
        encryption: how guests' data is encrypted, 0 for not.
        table: the offset of the first-level table, and its entries.
        references: the offset of the table of reference counts, and its clusters.
        snapshots_range: the offset of the table of internal snapshots, and its bytes.
        directory: where its bitmaps are told, if there are any that count.
        stale: whether there are some that do not count.
    """

    def __init__(self, fd: int) -> None:
        """Read the header of an open image; may wait.

        Raises:
            QMPError: it is none, or of a version that is not known.
            OSError: it can't be read.
        """
        data = os.pread(fd, _LENGTH, 0)
        if data[:4] != MAGIC:
            raise QMPError("Image is not in qcow2 format")
        fields = _HEADER.unpack(data[: _HEADER.size].ljust(_HEADER.size, b"\0"))
        _magic, version, name_at, name_length, bits, self.size, *more = fields
        self.encryption, entries, table, references, clusters, count, at, *features = more
        if version not in (2, 3):
            raise QMPError(f"Unsupported qcow2 version {version}")
        if not 9 <= bits <= 21:
            raise QMPError(f"Unsupported cluster size: 2^{bits}")
        incompatible, compatible, autoclear, order, length = (
            features if version > 2 else (0, 0, 0, 4, 72)
        )
        if version > 2 and length < _HEADER.size:
            raise QMPError("qcow2 header too short")
        if length > 1 << bits:
            raise QMPError("qcow2 header exceeds cluster size")
        if order > 6:
            raise QMPError("Reference count entry width too large; may not exceed 64 bits")
        self.version: int = version
        self.width: int = order
        self.incompatible: int = incompatible
        if incompatible & ~KNOWN:
            raise QMPError(
                "Unsupported qcow2 feature(s): Unknown incompatible feature:"
                f" {incompatible & ~KNOWN:x}"
            )
        self.cluster: int = 1 << bits
        self.table: tuple[int, int] = table, entries
        self.references: tuple[int, int] = references, clusters
        self._check_tables(at, count)
        is_zstd = data[_COMPRESSION_BYTE : _COMPRESSION_BYTE + 1] == b"\1"
        self.facts = self._told(compatible, is_zstd=is_zstd)
        self._length, self._autoclear = length, autoclear
        self.snapshots, end = _snapshots(fd, at, count)
        self.snapshots_range: tuple[int, int] = at, end - at
        name = os.pread(fd, min(name_length, _LONGEST_NAME), name_at) if name_at else b""
        self.backing = os.fsdecode(name) or None
        self._end = name_at or self.cluster
        extensions = dict(reversed(self._read_extensions(fd)))
        kind = extensions.get(_BACKING_FORMAT)
        self.backing_format = None if kind is None else os.fsdecode(kind)
        self.directory, self.stale = Directory(), False
        if _BITMAPS in extensions:
            self._take_directory(extensions[_BITMAPS])

    def _told(self, compatible: int, *, is_zstd: bool) -> JSONObject:
        """Members of QAPI's `ImageInfo`."""
        told: JSONObject = {
            "compat": "1.1" if self.version > 2 else "0.10",
            "compression-type": "zstd" if self.incompatible & 8 and is_zstd else "zlib",
        }
        if self.version > 2:
            told["lazy-refcounts"] = bool(compatible & 1)
        # A person is told of them in this order.
        told["refcount-bits"] = 1 << self.width
        if self.version > 2:
            told["corrupt"] = self.is_corrupt
            told["extended-l2"] = self.has_parts
        return {
            "cluster-size": self.cluster,
            "format-specific": {"type": "qcow2", "data": told},
        }

    def _check_tables(self, snapshots: int, count: int) -> None:
        """Raise `QMPError` where a table can't be where it is told to be.

        Args:
            snapshots: the offset of the table of internal snapshots.
            count: how many there are.
        """
        table, entries = self.table
        references, clusters = self.references
        if not clusters:
            raise QMPError("Image does not contain a reference count table")
        for name, at, length, most in (
            ("Reference count table", references, clusters * self.cluster, LONGEST_REFERENCES),
            ("Snapshot table", snapshots, count * _ENTRY.size, _MOST_SNAPSHOTS * _ENTRY.size),
            ("Active L1 table", table, entries * 8, MOST_ENTRIES * 8),
        ):
            if length > most:
                raise QMPError(f"{name} too large")
            if at % self.cluster or at + length >= 1 << 63:
                raise QMPError(f"{name} offset invalid")

    def _take_directory(self, data: bytes) -> None:
        """Take what the extension for bitmaps tells; raises `QMPError` where it can't be so."""
        self.stale = not self._autoclear & _VALID_BITMAPS
        if self.stale:
            return
        count, reserved, size, at = _DIRECTORY.unpack(data)
        if reserved:
            raise QMPError("bitmaps_ext: Reserved field is not zero")
        if count > _MOST_BITMAPS:
            raise QMPError(
                f"bitmaps_ext: Image has {count} bitmaps, exceeding the QEMU supported maximum of"
                f" {_MOST_BITMAPS}"
            )
        if not count:
            raise QMPError("found bitmaps extension with zero bitmaps")
        if at % self.cluster:
            raise QMPError("bitmaps_ext: invalid bitmap directory offset")
        if size > _LONGEST_DIRECTORY:
            raise QMPError(
                f"bitmaps_ext: bitmap directory size ({size}) exceeds the maximum supported size"
                f" ({_LONGEST_DIRECTORY})"
            )
        self.directory = Directory(count, size, at)

    def _read_extensions(self, fd: int) -> list[tuple[int, bytes]]:
        # They are not kept: a client's image has up to 2 MiB of them.
        data, at, found = os.pread(fd, self.cluster, 0), self._length, []
        end = self._end
        while at < end and at + _EXTENSION.size <= len(data):
            kind, length = _EXTENSION.unpack_from(data, at)
            at += _EXTENSION.size
            if length > end - at:
                raise QMPError("Header extension too large")
            if kind == 0:
                break
            if kind == _BITMAPS and length != _DIRECTORY.size:
                raise QMPError("bitmaps_ext: Invalid extension length")
            found.append((kind, data[at : at + length]))
            at += round_up(length, 8)
        return found

    @property
    def is_corrupt(self) -> bool:
        """Whether a program has found something wrong with the image."""
        return bool(self.incompatible & CORRUPT)

    @property
    def has_parts(self) -> bool:
        """Whether each 32nd of a cluster may be there or not."""
        return bool(self.incompatible & EXTENDED_L2)

    @property
    def unwritable(self) -> str | None:
        """Why memd does not change what is behind the header; None where it does."""
        if self.is_corrupt:
            return "qcow2: Image is corrupt; cannot be opened read/write"
        if self.incompatible & DIRTY:
            return "memd does not write an image whose references were not counted"
        return "memd does not write encrypted images" if self.encryption else None

    def has_data(self, fd: int) -> bool:
        """Whether clusters may hold data of a guest's; raises `OSError`."""
        offset, entries = self.table
        end = offset + 8 * min(entries, MOST_ENTRIES)
        for at in range(offset, end, _STEP):
            if os.pread(fd, min(_STEP, end - at), at).strip(b"\0"):
                return True
        return False

    def check_size(self, size: int) -> int:
        """See whether the image can have another size; gives the entries of its table then.

        Raises:
            QMPError: it can't have that size, or memd does not give it to it.
        """
        if size % 512:
            raise QMPError("The new size must be a multiple of 512")
        width = 16 if self.incompatible & EXTENDED_L2 else 8
        entries = -(-size // (self.cluster * (self.cluster // width)))
        if size < self.size or (self.snapshots and self.version < 3):
            raise QMPError("memd only grows qcow2 images, and none of version 2 with snapshots")
        if entries > MOST_ENTRIES:
            raise QMPError("Failed to grow the L1 table: File too large")
        return max(entries, self.table[1])

    def set_backing(self, fd: int, name: str | None, kind: str | None) -> None:
        """Name another backing file, or none; may wait.

        Raises:
            OSError: it can't be written, or the name does not fit.
        """
        raw = b"" if name is None else os.fsencode(name)
        if len(raw) > _LONGEST_NAME:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        told = None if kind is None or name is None else kind.encode()
        self._write(fd, raw, {_BACKING_FORMAT: told})

    def set_directory(self, fd: int, directory: Directory) -> None:
        """Have another directory of bitmaps, or with a count of 0 none; may wait.

        Raises:
            OSError: it can't be written, or does not fit.
        """
        told = _DIRECTORY.pack(directory.bitmaps, 0, directory.size, directory.at)
        self._autoclear &= ~_VALID_BITMAPS
        if directory.bitmaps:
            self._autoclear |= _VALID_BITMAPS
        raw = b"" if self.backing is None else os.fsencode(self.backing)
        self._write(fd, raw, {_BITMAPS: told if directory.bitmaps else None})
        self.directory, self.stale = directory, False

    def set_fields(self, fd: int, **fields: int) -> None:
        """Change fields of the header, by one write; may wait. Raises `OSError`.

        Args:
            fields: see `_FIELDS`; those of a table have to be one after the other.
        """
        start = min(_FIELDS[name][0] for name in fields)
        end = max(_FIELDS[name][0] + struct.calcsize(_FIELDS[name][1]) for name in fields)
        data = bytearray(os.pread(fd, end - start, start))
        for name, value in fields.items():
            at, form = _FIELDS[name]
            struct.pack_into(form, data, at - start, value)
        write_at(fd, bytes(data), start)

    def _write(self, fd: int, backing: bytes, changed: dict[int, bytes | None]) -> None:
        """Write the header with other extensions, by one write, so that it is never half of each.

        Args:
            backing: the backing file's name, b"" for none.
            changed: extensions by their types, None for those that it has no more.
        """
        data = bytearray(os.pread(fd, self._length, 0))
        kept = [
            (kind, told)
            for kind, told in self._read_extensions(fd)
            if kind not in changed and not (kind == _BITMAPS and self.stale)
        ]
        added = [(kind, told) for kind, told in changed.items() if told is not None]
        tail = _tail([*added, *kept])
        at = self._length + len(tail)
        if at + len(backing) > self.cluster:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fields = {"backing_at": at if backing else 0, "backing_length": len(backing)}
        if self.version > 2:
            fields["autoclear"] = self._autoclear & _KEPT
        for name, value in fields.items():
            place, form = _FIELDS[name]
            struct.pack_into(form, data, place, value)
        write_at(fd, bytes(data + tail + backing), 0)
        self._end = at if backing else self.cluster


def _snapshots(fd: int, at: int, count: int) -> tuple[list[Snapshot], int]:
    """Read the table of internal snapshots, and where it ends.

    Raises:
        QMPError: there is none such.
    """
    found = []
    end = at + LONGEST_SNAPSHOTS
    for _ in range(count):
        entry = os.pread(fd, _ENTRY.size, at)
        if len(entry) < _ENTRY.size or at > end:
            raise QMPError("Could not read snapshots")
        table, entries, id_length, name_length, seconds, nanoseconds, clock, short_size, more = (
            _ENTRY.unpack(entry)
        )
        rest = os.pread(fd, min(more, LONGEST_SNAPSHOTS) + id_length + name_length, at + len(entry))
        if len(rest) < more + id_length + name_length:
            raise QMPError("Could not read snapshots")
        size = struct.unpack_from(">Q", rest)[0] if more >= 8 else short_size
        disk = struct.unpack_from(">Q", rest, 8)[0] if more >= 16 else None
        id, name = rest[more : more + id_length], rest[more + id_length :]
        raw = padded(entry + rest, 8)
        made = seconds, nanoseconds, clock, (table, entries)
        found.append(Snapshot(os.fsdecode(id), os.fsdecode(name), size, *made, disk, raw))
        at += len(raw)
    return found, at


def _tail(extensions: list[tuple[int, bytes]]) -> bytes:
    return b"".join(
        _EXTENSION.pack(kind, len(data)) + padded(data, 8) for kind, data in [*extensions, (0, b"")]
    )


def empty_image(options: JSONObject) -> dict[int, bytes]:
    """A new image of version 3 without a cluster of data, as bytes by their offsets.

    Args:
        options: QAPI's `BlockdevCreateOptionsQcow2`.

    Raises:
        QMPError: there can't be such an image, or memd makes none.
    """
    size, cluster = options["size"], options.get("cluster-size", 65536)
    if cluster & (cluster - 1) or not 512 <= cluster <= 2 << 20:
        raise QMPError("Cluster size must be a power of two between 512 and 2048k")
    if size % 512:
        raise QMPError("Image size must be a multiple of 512 bytes")
    if size >= 1 << 63:
        raise QMPError("Could not resize image: Image size cannot be negative")
    for name, usual in _USUAL.items():
        if options.get(name, usual) != usual:
            raise QMPError(f"memd makes no qcow2 images with another '{name}' than {usual}")
    entries = -(-size // (cluster * (cluster // 8)))
    clusters = 3 + -(-entries * 8 // cluster)
    if entries > MOST_ENTRIES or clusters > cluster // 2:
        raise QMPError("The image is too large for its cluster size")
    backing = os.fsencode(options.get("backing-file", ""))
    kind = options.get("backing-fmt") if backing else None
    tail = _tail([] if kind is None else [(_BACKING_FORMAT, kind.encode())])
    at = _LENGTH + len(tail)
    if at + len(backing) > cluster or len(backing) > _LONGEST_NAME:
        raise QMPError("Backing file name too long")
    header = _HEADER.pack(
        *(MAGIC, 3, at if backing else 0, len(backing), cluster.bit_length() - 1, size),
        *(0, entries, 3 * cluster, cluster, 1, 0, 0, 0, 0, 0, 4, _LENGTH),
    )
    return {
        0: (header.ljust(_LENGTH, b"\0") + tail + backing).ljust(cluster, b"\0"),
        cluster: struct.pack(">Q", 2 * cluster).ljust(cluster, b"\0"),
        2 * cluster: (struct.pack(">H", 1) * clusters).ljust(cluster, b"\0"),
        3 * cluster: bytes(8 * entries),
    }


_USUAL: JSONObject = {
    "version": "v3",
    "preallocation": "off",
    "lazy-refcounts": False,
    "refcount-bits": 16,
    "compression-type": "zlib",
    "extended-l2": False,
}
