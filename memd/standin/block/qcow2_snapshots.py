"""Internal snapshots in qcow2 images: the table, the clusters, and the state of a machine.

All of it runs in threads. While references are counted anew an image of version 3 has
the dirty bit: where the process is killed, a QEMU that opens the image counts them again.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterator, Sequence

from memd.errors import QMPError
from memd.hostmem.libc import write_at
from memd.standin.block.qcow2 import (
    DIRTY,
    EXTENDED_L2,
    EXTERNAL_DATA,
    LONGEST_SNAPSHOTS,
    MOST_ENTRIES,
    Header,
    Snapshot,
)
from memd.standin.block.qcow2_clusters import OFFSET, Update, table, words

_COPIED = 1 << 63
"""The flag of an entry of a table whose cluster nothing else refers to."""
_COMPRESSED = 1 << 62
_SECTOR = 512


class _Counting(Update):
    """An update that counts references anew."""

    def __init__(self, fd: int, header: Header) -> None:
        super().__init__(fd, header)
        if header.incompatible & EXTERNAL_DATA:
            raise QMPError("Operation not supported")
        self._width = 16 if header.incompatible & EXTENDED_L2 else 8

    @property
    def per_table(self) -> int:
        """The clusters of which a second-level table tells."""
        return self.header.cluster // self._width

    def begin(self) -> None:
        """References are not those that are counted, from now on."""
        self._set_dirty(DIRTY)

    def end(self) -> None:
        """They are again."""
        self.flush()
        self._set_dirty(0)

    def _set_dirty(self, dirty: int) -> None:
        if self.header.version > 2:
            self.header.set_fields(self.fd, incompatible=self.header.incompatible | dirty)
            os.fdatasync(self.fd)

    def entries(self, place: tuple[int, int]) -> array[int]:
        """The first-level table that is there; raises `QMPError` where none can be."""
        at, count = place
        if count > MOST_ENTRIES or at % self.header.cluster:
            raise QMPError("The image is corrupt: a snapshot has no table")
        return words(self.read(at, count * 8))

    def _second(self, entry: int) -> array[int]:
        at = entry & OFFSET
        if at % self.header.cluster or at >= 1 << 56:
            raise QMPError("The image is corrupt: a table refers to no cluster")
        return words(self.read(at, self.header.cluster))

    def second_entry(self, entry: int, at: int) -> int:
        """An entry of the second-level table to which one of the first level refers."""
        return self._second(entry)[at * self._width // 8]

    def _clusters(self, entry: int) -> Iterator[int]:
        """The clusters to which an entry of a second-level table refers."""
        bits = self.header.cluster.bit_length() - 1
        if entry & _COMPRESSED:
            shift = 62 - (bits - 8)
            start = entry & (1 << shift) - 1 & ~(_SECTOR - 1)
            sectors = (entry >> shift & (1 << (bits - 8)) - 1) + 1
            yield from range(start >> bits, (start + sectors * _SECTOR - 1 >> bits) + 1)
        elif entry & OFFSET:
            yield (entry & OFFSET) >> bits

    def refer(self, first: Sequence[int], more: int, *, check: bool = False) -> None:
        """Count one reference more, or less, to all that a first-level table refers to.

        Args:
            check: whether to see only that this can be.

        Raises:
            QMPError: the image is damaged, or counts no more.
        """
        count = self._check if check else self._count
        for entry in first:
            if not entry & OFFSET:
                continue
            for each in self._second(entry)[:: self._width // 8]:
                for index in self._clusters(each):
                    count(index, more)
            count((entry & OFFSET) // self.header.cluster, more)

    def _count(self, index: int, more: int) -> None:
        self.set_count(index, self.count(index) + more)

    def _check(self, index: int, more: int) -> None:
        if not self.count(index) or self.is_fixed(index):
            raise QMPError("The image is corrupt: a table refers to what is no cluster of data")
        self.check_count(self.count(index) + more)

    def set_flags(self, first: array[int]) -> array[int]:
        """Have the flags tell which clusters have one reference; gives the first-level table."""
        found = array("Q", first)
        for number, entry in enumerate(first):
            if not entry & OFFSET:
                continue
            second = self._second(entry)
            before = second.tobytes()
            for at in range(0, len(second), self._width // 8):
                each = second[at]
                if not each & _COMPRESSED and each & OFFSET:
                    second[at] = self._flagged(each)
            if second.tobytes() != before:
                write_at(self.fd, table(second), entry & OFFSET)
            found[number] = self._flagged(entry)
        return found

    def _flagged(self, entry: int) -> int:
        index = (entry & OFFSET) // self.header.cluster
        return entry & ~_COPIED | (_COPIED if self.count(index) == 1 else 0)

    def set_table(self, snapshots: Sequence[Snapshot]) -> None:
        """Have other internal snapshots."""
        header = self.header
        data = b"".join(each.pack() for each in snapshots)
        if len(data) > LONGEST_SNAPSHOTS:
            raise QMPError("memd keeps no more than 64 KiB about the snapshots of an image")
        at = self.store(data) if data else 0
        old, length = header.snapshots_range
        if length:
            self.release(old, length, own=True)
        count = len(snapshots)
        self.commit(lambda fd: header.set_fields(fd, snapshot_count=count, snapshots_at=at))

    def write_first(self, first: array[int]) -> None:
        """Write the first-level table of the image, at its place."""
        write_at(self.fd, table(first), self.header.table[0])


class StateWriter:
    """Puts the state of a machine into an image, as much of it at a time as comes.

    Args:
        fd: the image's file.
        header: its header; nobody else may change it meanwhile.
    """

    def __init__(self, fd: int, header: Header) -> None:
        self.update = _Counting(fd, header)
        self._part = bytearray()
        self._places: list[int] = []
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Take some; gives how much that was."""
        self._part += data
        self.size += len(data)
        cluster = self.update.header.cluster
        while len(self._part) >= cluster:
            self._places.append(self.update.store(bytes(self._part[:cluster])))
            del self._part[:cluster]
        return len(data)

    def tables(self) -> list[int]:
        """The entries of a first-level table that refer to it."""
        if self._part:
            self._places.append(self.update.store(bytes(self._part)))
            self._part.clear()
        per, width = self.update.per_table, self.update._width // 8
        found = []
        for at in range(0, len(self._places), per):
            second = array("Q", bytes(self.update.header.cluster))
            for number, place in enumerate(self._places[at : at + per]):
                second[number * width] = place
                if width > 1:
                    # Each part of it is there.
                    second[number * width + 1] = (1 << 32) - 1
            found.append(self.update.store(table(second)))
        return found


def create(
    fd: int, header: Header, snapshot: Snapshot, state: StateWriter | None = None
) -> Snapshot:
    """Put a snapshot of an image, as that is now, into it; gives the snapshot.

    Args:
        fd: the image's file.
        header: its header.
        snapshot: what is told of it; its id is given to it.
        state: has the machine's.

    Raises:
        QMPError: there can't be one; the image is as it was.
        OSError: the image can't be written.
    """
    update = _Counting(fd, header) if state is None else state.update
    first = update.entries(header.table)
    needed = -(-header.size // (header.cluster * update.per_table))
    mine = array("Q", [entry & ~_COPIED for entry in first[:needed]])
    if state is not None:
        mine.extend([0] * (needed - len(mine)))
        mine.extend(state.tables())
    at = update.store(table(mine)) if mine else 0
    numbers = [int(each.id) for each in header.snapshots if re.fullmatch("[0-9]{1,18}", each.id)]
    snapshot = snapshot._replace(
        id=str(max(numbers, default=0) + 1),
        size=0 if state is None else state.size,
        table=(at, len(mine)),
        disk=header.size,
    )
    update.refer(first[:needed], 1, check=True)
    update.begin()
    update.refer(first[:needed], 1)
    update.flush()
    update.write_first(update.set_flags(first))
    update.set_table([*header.snapshots, snapshot])
    update.end()
    return snapshot


def delete(fd: int, header: Header, snapshot: Snapshot) -> None:
    """Remove a snapshot from an image; see `create`."""
    update = _Counting(fd, header)
    gone = update.entries(snapshot.table)
    left = [*header.snapshots]
    left.remove(snapshot)
    update.refer(gone, -1, check=True)
    at, entries = snapshot.table
    if entries:
        update.release(at, entries * 8)
    update.begin()
    update.set_table(left)
    update.refer(gone, -1)
    update.flush()
    update.write_first(update.set_flags(update.entries(header.table)))
    update.end()


def revert(fd: int, header: Header, snapshot: Snapshot) -> None:
    """Have the content of an image that a snapshot has; see `create`."""
    update = _Counting(fd, header)
    size = header.size if snapshot.disk is None else snapshot.disk
    needed = -(-size // (header.cluster * update.per_table))
    # What is behind those is the state of the machine.
    wanted = update.entries(snapshot.table)[:needed]
    before, (old, entries) = update.entries(header.table), header.table
    wanted.extend([0] * (needed - len(wanted)))
    update.refer(wanted, 1, check=True)
    update.refer(before, -1, check=True)
    at = update.store(table(wanted)) if wanted else old
    if wanted and entries:
        update.release(old, entries * 8, own=True)
    update.begin()
    update.refer(wanted, 1)
    update.commit(lambda fd: header.set_fields(fd, size=size, entries=len(wanted), table=at))
    header.table = at, len(wanted)
    update.refer(before, -1)
    update.flush()
    update.write_first(update.set_flags(wanted))
    update.end()


class StateReader:
    """Reads the state of a machine from a snapshot.

    Args:
        fd: the image's file.
        header: its header.
        snapshot: the snapshot.
    """

    def __init__(self, fd: int, header: Header, snapshot: Snapshot) -> None:
        self._update = _Counting(fd, header)
        disk = header.size if snapshot.disk is None else snapshot.disk
        per = self._update.per_table
        self._first = self._update.entries(snapshot.table)[-(-disk // (header.cluster * per)) :]
        self._left, self._at = snapshot.size, 0
        self._part = b""

    def read_into(self, into: memoryview) -> int:
        """Fill some of that; gives how much that was, 0 at the end."""
        if not self._part:
            if self._left <= 0:
                return 0
            self._part = self._cluster(self._at)[: self._left]
            self._at += 1
            self._left -= len(self._part)
        count = min(len(into), len(self._part))
        into[:count] = self._part[:count]
        self._part = self._part[count:]
        return count

    def _cluster(self, number: int) -> bytes:
        update = self._update
        which, at = divmod(number, update.per_table)
        entry = 0
        if which < len(self._first) and self._first[which] & OFFSET:
            entry = update.second_entry(self._first[which], at)
        if entry & _COMPRESSED:
            raise QMPError("memd loads snapshots of its own")
        length = update.header.cluster
        return update.read(entry & OFFSET, length) if entry & OFFSET else bytes(length)
