"""The metadata of qcow2 images: what a header tells, new images, another backing file.

The format is that of QEMU's specification, versions 2 and 3. Clusters of a
guest's data are neither read nor written.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Any, NamedTuple

from memd.errors import QMPError
from memd.hostmem.libc import write_at
from memd.hostmem.spec import round_up
from memd.json_types import JSON

MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_EXTENSION = struct.Struct(">II")
_BACKING_FORMAT = 0xE2792ACA
_SIZE_AT = 24
"""Where the header has the bytes that a guest sees."""

_COMPRESSION_BYTE = 104
_LENGTH = 112
_LONGEST_NAME = 1023
_ENTRY = struct.Struct(">12xHH16xII")
"""Of an internal snapshot: the lengths of its id and name, of a machine's state and of what
comes before the id."""
_LONGEST_SNAPSHOTS = 64 << 10
"""Bytes of the table of internal snapshots, which are kept: QEMU takes 65,536 snapshots."""
_STEP = 1 << 20
"""Bytes of a table that are looked at together."""
_MOST_ENTRIES = 32 << 20 >> 3
"""Entries of a first-level table, which QEMU holds to 32 MiB."""


class Snapshot(NamedTuple):
    """An internal snapshot of an image.

    Attributes:
        id: unique in the image.
        name: what people call it.
        size: bytes of a machine's state in it.
    """

    id: str
    name: str
    size: int


class Header:
    """The header of an image.

    Attributes:
        size: bytes that a guest sees.
        facts: members of QAPI's `ImageInfo`.
        backing: the backing file's name as it is written there, or None.
        backing_format: its format, or None.
        snapshots: the internal snapshots that are in the image.
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
        version, bits, self.size = fields[1], fields[4], fields[5]
        if version not in (2, 3):
            raise QMPError(f"Unsupported qcow2 version {version}")
        if not 9 <= bits <= 21:
            raise QMPError(f"Unsupported cluster size: 2^{bits}")
        incompatible, compatible, order, length = (
            (fields[13], fields[14], fields[16], fields[17]) if version > 2 else (0, 0, 4, 72)
        )
        if version > 2 and length < _HEADER.size:
            raise QMPError("qcow2 header too short")
        if length > 1 << bits:
            raise QMPError("qcow2 header exceeds cluster size")
        zstd = incompatible & 8 and data[_COMPRESSION_BYTE : _COMPRESSION_BYTE + 1] == b"\1"
        told: dict[str, JSON] = {
            "compat": "1.1" if version > 2 else "0.10",
            "compression-type": "zstd" if zstd else "zlib",
        }
        if version > 2:
            told["lazy-refcounts"] = bool(compatible & 1)
        told["refcount-bits"] = 1 << order
        if version > 2:
            told["corrupt"] = bool(incompatible & 2)
            told["extended-l2"] = bool(incompatible & 16)
        self.facts: dict[str, Any] = {
            "cluster-size": 1 << bits,
            "format-specific": {"type": "qcow2", "data": told},
        }
        self._cluster, self._length = 1 << bits, length
        self._table = fields[8], fields[7]
        self.snapshots = _snapshots(fd, fields[12], fields[11])
        name = os.pread(fd, min(fields[3], _LONGEST_NAME), fields[2]) if fields[2] else b""
        self.backing = os.fsdecode(name) or None
        self._end = fields[2] or self._cluster
        self.backing_format = next(
            (
                os.fsdecode(data)
                for kind, data in self._read_extensions(fd)
                if kind == _BACKING_FORMAT
            ),
            None,
        )

    def _read_extensions(self, fd: int) -> list[tuple[int, bytes]]:
        # They are not kept: a client's image has up to 2 MiB of them.
        data, at, found = os.pread(fd, self._cluster, 0), self._length, []
        end = self._end
        while at < end and at + _EXTENSION.size <= len(data):
            kind, length = _EXTENSION.unpack_from(data, at)
            at += _EXTENSION.size
            if length > end - at:
                raise QMPError("Header extension too large")
            if kind == 0:
                break
            found.append((kind, data[at : at + length]))
            at += -(-length // 8) * 8
        return found

    def has_data(self, fd: int) -> bool:
        """Whether clusters may hold data of a guest's; raises `OSError`."""
        offset, entries = self._table
        end = offset + 8 * min(entries, _MOST_ENTRIES)
        for at in range(offset, end, _STEP):
            if os.pread(fd, min(_STEP, end - at), at).strip(b"\0"):
                return True
        return False

    def resize(self, fd: int, size: int) -> None:
        """Have a guest see more bytes; may wait.

        Raises:
            QMPError: it can't have that size, or not without further tables.
            OSError: it can't be written.
        """
        if size % 512:
            raise QMPError("The new size must be a multiple of 512")
        told = self.facts["format-specific"]["data"]
        reach = self._table[1] * self._cluster * (self._cluster // 8)
        if not self.size <= size <= reach or self.snapshots or told.get("extended-l2"):
            raise QMPError("memd grows a qcow2 image as far as its tables reach")
        write_at(fd, struct.pack(">Q", size), _SIZE_AT)
        self.size = size

    def set_backing(self, fd: int, name: str | None, kind: str | None) -> None:
        """Name another backing file, or none; may wait.

        Raises:
            OSError: it can't be written, or the name does not fit.
        """
        kept = [(k, data) for k, data in self._read_extensions(fd) if k != _BACKING_FORMAT]
        tail = _tail(kept, kind if name is not None else None)
        raw = b"" if name is None else os.fsencode(name)
        at = self._length + len(tail)
        if len(raw) > _LONGEST_NAME:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if at + len(raw) > self._cluster:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_at(fd, tail + raw, self._length)
        write_at(fd, struct.pack(">QI", at if raw else 0, len(raw)), 8)


def _snapshots(fd: int, at: int, count: int) -> list[Snapshot]:
    """Read the table of internal snapshots; raises `QMPError` where there is none such."""
    found = []
    end = at + _LONGEST_SNAPSHOTS
    for _ in range(count):
        entry = os.pread(fd, _ENTRY.size, at)
        if len(entry) < _ENTRY.size or at > end:
            raise QMPError("Could not read snapshots")
        id_length, name_length, size, more = _ENTRY.unpack(entry)
        rest = os.pread(
            fd, min(more, _LONGEST_SNAPSHOTS) + id_length + name_length, at + len(entry)
        )
        if len(rest) < more + id_length + name_length:
            raise QMPError("Could not read snapshots")
        if more >= 8:
            (size,) = struct.unpack_from(">Q", rest)
        names = rest[more:]
        found.append(Snapshot(os.fsdecode(names[:id_length]), os.fsdecode(names[id_length:]), size))
        at += round_up(len(entry) + len(rest), 8)
    return found


def _tail(extensions: list[tuple[int, bytes]], backing_format: str | None) -> bytes:
    if backing_format is not None:
        extensions = [(_BACKING_FORMAT, backing_format.encode()), *extensions]
    return b"".join(
        _EXTENSION.pack(kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")
        for kind, data in [*extensions, (0, b"")]
    )


def empty_image(options: dict[str, Any]) -> dict[int, bytes]:
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
    if entries > _MOST_ENTRIES or clusters > cluster // 2:
        raise QMPError("The image is too large for its cluster size")
    backing = os.fsencode(options.get("backing-file", ""))
    tail = _tail([], options.get("backing-fmt") if backing else None)
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


_USUAL: dict[str, JSON] = {
    "version": "v3",
    "preallocation": "off",
    "lazy-refcounts": False,
    "refcount-bits": 16,
    "compression-type": "zlib",
    "extended-l2": False,
}
