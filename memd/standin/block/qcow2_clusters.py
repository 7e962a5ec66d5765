"""Changes of what lies behind the header of a qcow2 image: clusters and their references.

An update takes clusters that nothing refers to, writes them, and counts the
references to them. Only then, by one write, does the header refer to them, and
only after that are the clusters free that it referred to before. So an image is
valid whenever the process is killed; at worst clusters are counted that nothing
refers to, which `qemu-img check -r leaks` finds.
"""

from __future__ import annotations

import os
import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from sys import byteorder

from memd.errors import QMPError
from memd.hostmem import cgroup
from memd.hostmem.libc import write_at
from memd.standin.block.qcow2 import LONGEST_REFERENCES, Header, padded

OFFSET = 0x00FFFFFFFFFFFE00
"""The bits of an entry of a table that are an offset."""

_TYPES = {3: "B", 4: "H", 5: "I", 6: "Q"}
"""The types of arrays for reference counts, by their bits as a power of two."""

_MOST_BLOCKS = 64
"""Blocks of reference counts that are kept in memory: 4 MiB with clusters of the usual size."""


def words(data: bytes) -> array[int]:
    """The entries of a table, which is read from an image."""
    found = array("Q", data[: len(data) // 8 * 8])
    if byteorder == "little":
        found.byteswap()
    return found


def table(entries: array[int] | list[int]) -> bytes:
    """A table, as it is written to an image."""
    return struct.pack(f">{len(entries)}Q", *entries)


class Update:
    """A change of an image; used in a thread, by one at a time.

    Args:
        fd: the image's file.
        header: its header, as it is now.

    Attributes:
        fd: the image's file.
        header: its header.

    Raises:
        QMPError: nobody may change that image.
        OSError: it can't be read.
    """

    def __init__(self, fd: int, header: Header) -> None:
        self.fd = fd
        self.header = header
        self._cluster = header.cluster
        if header.unwritable is not None:
            raise QMPError(header.unwritable)
        at, clusters = header.references
        self._at = at
        self._blocks_at = words(self.read(at, clusters * self._cluster))
        self._per_block: int = self._cluster * 8 >> header.width
        self._most: int = (1 << (1 << header.width)) - 1
        self._file_end = -(-os.fstat(fd).st_size // self._cluster)
        self._blocks: dict[int, bytearray] = {}
        self._changed: set[int] = set()
        # Where the search for free clusters begins.
        self._hint = 0
        self._released: dict[int, int] = {}
        self._own = self._find_own()

    def read(self, at: int, length: int) -> bytes:
        """Bytes of the image; those beyond the end of the file are zeroes."""
        data = b""
        while len(data) < length and (more := os.pread(self.fd, length - len(data), at)):
            data += more
            at += len(more)
        return data.ljust(length, b"\0")

    def _find_own(self) -> array[int]:
        """The clusters of the header and of tables, in order: nothing else is written to them."""
        header = self.header
        at, entries = header.table
        found = array("Q", [0])
        for start, length in (
            (self._at, len(self._blocks_at) * 8),
            (at, entries * 8),
            header.snapshots_range,
            (header.directory.at, header.directory.size),
        ):
            if length:
                found.extend(self._indexes(start, length))
        self._fixed = frozenset(found) | {
            (entry & OFFSET) // self._cluster for entry in self._blocks_at
        }
        for each in self._blocks_at, words(self.read(at, entries * 8)):
            found.extend((entry & OFFSET) // self._cluster for entry in each if entry & OFFSET)
        return array("Q", sorted(found))

    def _indexes(self, at: int, length: int) -> range:
        return range(at // self._cluster, -(-(at + length) // self._cluster))

    def _is_own(self, index: int) -> bool:
        at = bisect_left(self._own, index)
        return at < len(self._own) and self._own[at] == index

    def is_fixed(self, index: int) -> bool:
        """Whether a cluster has the header or a table, second-level ones excepted."""
        return index in self._fixed

    # References

    def _block(self, number: int) -> bytearray | None:
        """A block of reference counts; None where there is none, and all are 0."""
        if number >= len(self._blocks_at) or not self._blocks_at[number]:
            return None
        if number not in self._blocks:
            at = self._blocks_at[number]
            index, rest = divmod(at, self._cluster)
            fits = not rest and at < 1 << 56 and index < self._file_end
            if not (fits and self._is_alone(index)):
                raise QMPError("Invalid reference count block offset")
            if len(self._blocks) >= _MOST_BLOCKS:
                self._write_blocks()
                self._blocks.clear()
            self._blocks[number] = bytearray(self.read(at, self._cluster))
        return self._blocks[number]

    def _is_alone(self, index: int) -> bool:
        """Whether a cluster of the header or of tables has but one use."""
        at = bisect_left(self._own, index)
        return self._own[at : at + 2].count(index) == 1

    def count(self, index: int) -> int:
        """How many references a cluster has."""
        block = self._block(index // self._per_block)
        return 0 if block is None else self._get(block, index % self._per_block)

    def _get(self, block: bytearray, place: int) -> int:
        width: int = self.header.width
        if width < 3:
            per_byte = 8 >> width
            return block[place // per_byte] >> (place % per_byte << width) & self._most
        length = 1 << (width - 3)
        return int.from_bytes(block[place * length : (place + 1) * length], "big")

    def check_count(self, count: int) -> None:
        """Raise `QMPError` where the image can't count so many references."""
        if not 0 <= count <= self._most:
            raise QMPError("Invalid argument")

    def set_count(self, index: int, count: int) -> None:
        """Have another number of references to a cluster; it is written with others."""
        self.check_count(count)
        number, place = divmod(index, self._per_block)
        block = self._block(number)
        if block is None:
            raise QMPError("a cluster of the image has no reference count")
        width = self.header.width
        if width < 3:
            per_byte = 8 >> width
            shift = place % per_byte << width
            old = block[place // per_byte] & ~(self._most << shift)
            block[place // per_byte] = old | count << shift
        else:
            length = 1 << (width - 3)
            block[place * length : (place + 1) * length] = count.to_bytes(length, "big")
        self._changed.add(number)

    def _write_blocks(self) -> None:
        for number in sorted(self._changed):
            write_at(self.fd, bytes(self._blocks[number]), self._blocks_at[number])
        self._changed.clear()

    def flush(self) -> None:
        """Write the references that were counted; raises `OSError`."""
        self._write_blocks()
        os.fdatasync(self.fd)

    # Clusters

    def allocate(self, count: int) -> int:
        """Take clusters, one after the other; gives their offset.

        Raises:
            QMPError: there are too many.
            OSError: the image can't be written.
        """
        start = self._find_free(count)
        if start is None:
            start = self._grow(count)
        for index in range(start, start + count):
            self.set_count(index, 1)
        self._hint = start + count
        return start * self._cluster

    def _find_free(self, count: int) -> int | None:
        """The first of so many clusters that nothing refers to, whose counts there is a place for.

        None where there are none such.
        """
        run = 0
        before = -1
        for index in self._free():
            run = run + 1 if index == before + 1 else 1
            before = index
            if run == count:
                return index - count + 1
        return None

    def _free(self) -> Iterator[int]:
        per = self._per_block
        for number in range(self._hint // per, len(self._blocks_at)):
            block = self._block(number)
            if block is None:
                continue
            first, base = max(0, self._hint - number * per), number * per
            kind = _TYPES.get(self.header.width)
            counts = array(kind, block) if kind else [self._get(block, at) for at in range(per)]
            while first < per:
                try:
                    first = counts.index(0, first)
                except ValueError:
                    break
                index = base + first
                if not self._is_own(index) and index not in self._released:
                    yield index
                first += 1

    def _grow(self, count: int) -> int:
        """Count clusters behind all others; gives the first of those that are asked for."""
        per, start = self._per_block, self._end()
        missing: list[int] = []
        entries = len(self._blocks_at)
        moved = 0
        while True:
            last = (start + moved + len(missing) + count - 1) // per
            needed = [
                number
                for number in range(start // per, last + 1)
                if number >= entries or not self._blocks_at[number]
            ]
            # A table that is too short is written anew, with room for as much again.
            length = 0 if last < entries else -(-max(last + 1, entries * 3 // 2) * 8)
            clusters = -(-length // self._cluster)
            if needed == missing and clusters == moved:
                break
            missing, moved = needed, clusters
        if moved * self._cluster > LONGEST_REFERENCES:
            raise QMPError("The image is too large for its cluster size")
        blocks_at = array("Q", self._blocks_at)
        blocks_at.extend([0] * (moved * self._cluster // 8 - entries if moved else 0))
        for place, number in enumerate(missing):
            at = (start + moved + place) * self._cluster
            blocks_at[number] = at
            self._blocks[number] = bytearray(self._cluster)
            write_at(self.fd, bytes(self._cluster), at)
        old, old_length, self._blocks_at = self._at, len(self._blocks_at) * 8, blocks_at
        own: range = range(start, start + moved + len(missing))
        self._own = array("Q", sorted([*self._own, *own]))
        self._file_end = max(self._file_end, own.stop)
        for index in own:
            self.set_count(index, 1)
        self.flush()
        if moved:
            self._at = start * self._cluster
            write_at(self.fd, table(blocks_at), self._at)
            os.fdatasync(self.fd)
            self.header.set_fields(self.fd, references=self._at, references_clusters=moved)
            os.fdatasync(self.fd)
            for index in self._indexes(old, old_length):
                self.set_count(index, 0)
        elif missing:
            for number in missing:
                write_at(self.fd, struct.pack(">Q", blocks_at[number]), self._at + 8 * number)
            os.fdatasync(self.fd)
        return own.stop

    def _end(self) -> int:
        """The first cluster behind the file and behind all that is counted."""
        end = max(self._file_end, self._own[-1] + 1)
        for number in range(len(self._blocks_at) - 1, -1, -1):
            block = self._block(number)
            if block is not None and any(block):
                for place in range(self._per_block - 1, -1, -1):
                    if self._get(block, place):
                        return max(end, number * self._per_block + place + 1)
        return end

    def write(self, at: int, data: bytes) -> None:
        """Write clusters that were taken, the rest of the last one as zeroes; raises `OSError`."""
        whole = padded(data, self._cluster)
        with cgroup.writing(self.fd, len(whole), at):
            write_at(self.fd, whole, at)
        self._file_end = max(self._file_end, self._indexes(at, len(data)).stop)

    def store(self, data: bytes) -> int:
        """Write data into clusters that are taken for it; gives its offset."""
        at = self.allocate(-(-len(data) // self._cluster))
        self.write(at, data)
        return at

    def release(self, at: int, length: int = 1, *, own: bool = False) -> None:
        """Have clusters referred to once less, once the update is committed.

        Args:
            own: whether they may have the header or a table.

        Raises:
            QMPError: they can't be, as the image is damaged.
        """
        if at % self._cluster:
            raise QMPError("The image is corrupt: what it refers to is no cluster")
        for index in self._indexes(at, length):
            count = self._released.get(index, 0) + 1
            if self._is_own(index) and not (own and self._is_alone(index)):
                raise QMPError("The image is corrupt: two things are in the same cluster")
            if self.count(index) < count:
                raise QMPError("The image is corrupt: it refers to a cluster that is not in use")
            self._released[index] = count

    def commit(self, switch: Callable[[int], None]) -> None:
        """Have what was written count; raises `OSError`.

        Args:
            switch: given the file, has the header refer to it, by one write.
        """
        self.flush()
        switch(self.fd)
        os.fdatasync(self.fd)
        for index, count in self._released.items():
            self.set_count(index, self.count(index) - count)
        self._released.clear()
        self._hint = 0
        self._write_blocks()


def resize(fd: int, header: Header, size: int) -> None:
    """Have a guest see more bytes of an image.

    Args:
        fd: the image's file.

    Raises:
        QMPError: the image can't have that size, or nobody may change it.
        OSError: it can't be written.
    """
    at, entries = header.table
    wanted = header.check_size(size)
    if wanted == entries:
        header.set_fields(fd, size=size)
        return
    update = Update(fd, header)
    new = update.store(update.read(at, entries * 8).ljust(wanted * 8, b"\0"))
    if entries:
        update.release(at, entries * 8, own=True)
    update.commit(lambda fd: header.set_fields(fd, size=size, entries=wanted, table=new))
