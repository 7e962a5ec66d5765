"""Which page of a template is where in which chunk, and where the chunks are.

The layout is part of what a template is, and its digest of the template's. The
places are not: the same chunks may lie elsewhere after others were deleted.
"""

from __future__ import annotations

import json
import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from memd.named_tuple import NamedTuple
from memd.pages.blobs import DIGEST, Damaged
from memd.pages.chunks import MAX_PAGES, unpack
from memd.pages.recording import PAGE

MOST_PAGES = (1 << 32) - 1
"""Pages of a template at most, some 16 TiB: they are counted in 32 bits."""

_MAGIC = b"memd layout 1\n"
_SIZES = struct.Struct("<III")
_DIGEST = 32


def encode_numbers(values: array[int]) -> bytes:
    """Numbers as bytes, little-endian."""
    if sys.byteorder == "big":
        values = array(values.typecode, values)
        values.byteswap()
    return values.tobytes()


def decode_numbers(kind: str, data: bytes) -> array[int]:
    """Numbers from bytes, little-endian; `kind` is that of the array."""
    values = array(kind)
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    return values


Range = tuple[int, int]
"""The first of some pages, and how many."""


class Place(NamedTuple):
    """Where a chunk's record is: a pack's digest, and the offset and length there."""

    pack: str
    offset: int
    length: int


@dataclass(slots=True)
class Piece:
    """Pages that follow each other in a template and in a chunk.

    Attributes:
        page: the first, counted in the template.
        count: how many.
        chunk: the chunk's number in the layout, -1 for pages of zeroes.
        slot: the first, counted in the chunk.
    """

    page: int
    count: int
    chunk: int
    slot: int


@dataclass(eq=False)
class Layout:
    """The pages of a template.

    The chunks' pages are numbered through: those of the first chunk, those of
    the second and so on. A run says that some of the template's pages are some
    of these; pages in no run are zeroes.

    Attributes:
        pages: how many the template has.
        digests: of the chunks, one after the other.
        counts: pages of each chunk.
        starts: of each run, its first page in the template, ascending.
        lengths: of each run, how many pages.
        stored: of each run, the number of its first page among the chunks'.
    """

    pages: int
    digests: bytes
    counts: array[int]
    starts: array[int]
    lengths: array[int]
    stored: array[int]

    @cached_property
    def ends(self) -> array[int]:
        """For each chunk, pages up to its end."""
        return array("I", accumulate(self.counts))

    @cached_property
    def _by_stored(self) -> tuple[list[int], array[int]]:
        """The runs in the order of their first pages among the chunks', and these."""
        runs = sorted(range(len(self.stored)), key=self.stored.__getitem__)
        return runs, array("I", map(self.stored.__getitem__, runs))

    def __len__(self) -> int:
        return len(self.counts)

    def digest(self, chunk: int) -> bytes:
        """The digest of a chunk, by its number."""
        return self.digests[chunk * _DIGEST : (chunk + 1) * _DIGEST]

    def unpack(self, chunk: int, record: bytes) -> bytes:
        """The pages of a chunk, by its number, out of its record; verified.

        Raises:
            Damaged: it is the record of something else.
        """
        return unpack(record, self.counts[chunk] * PAGE, self.digest(chunk))

    @property
    def data(self) -> int:
        """How many pages are not zeroes."""
        return sum(self.lengths)

    def encode(self) -> bytes:
        """As bytes."""
        return b"".join(
            (
                _MAGIC,
                _SIZES.pack(self.pages, len(self.counts), len(self.starts)),
                self.digests,
                *map(encode_numbers, (self.counts, self.starts, self.lengths, self.stored)),
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Layout:
        """From bytes that were verified, but may come from an attacker.

        Raises:
            Damaged: they are not a layout.
        """
        at = len(_MAGIC) + _SIZES.size
        if len(data) < at or data[: len(_MAGIC)] != _MAGIC:
            raise Damaged("a template's layout is damaged")
        pages, chunks, runs = _SIZES.unpack_from(data, len(_MAGIC))
        if len(data) != at + chunks * (_DIGEST + 2) + runs * 12:
            raise Damaged("a template's layout is damaged")
        digests = data[at : (at := at + chunks * _DIGEST)]
        counts = decode_numbers("H", data[at : (at := at + chunks * 2)])
        starts, lengths, stored = (
            decode_numbers("I", data[at + 4 * part * runs : at + 4 * (part + 1) * runs])
            for part in range(3)
        )
        return cls(pages, digests, counts, starts, lengths, stored)

    def check(self) -> None:
        """See that it can be used as it is; for one that comes from elsewhere.

        Raises:
            Damaged: it can't.
        """
        whole = self.ends[-1] if self.ends else 0
        last = 0
        good = all(0 < count <= MAX_PAGES for count in self.counts)
        for start, length, stored in zip(self.starts, self.lengths, self.stored, strict=True):
            good = good and start >= last and length > 0 and stored + length <= whole
            last = start + length
        if not good or last > self.pages:
            raise Damaged("a template's layout is damaged")

    def pieces(self, page: int, count: int) -> Iterator[Piece]:
        """The pieces that a range of pages is made of, in order.

        Args:
            page: the first.
            count: how many; within the template.
        """
        end = page + count
        run = max(bisect_right(self.starts, page) - 1, 0)
        while page < end:
            if run == len(self.starts) or self.starts[run] >= end:
                yield Piece(page, end - page, -1, 0)
                return
            start, length = self.starts[run], self.lengths[run]
            if page < start:
                yield Piece(page, start - page, -1, 0)
                page = start
            last = min(end, start + length)
            stored = self.stored[run] + page - start
            chunk = bisect_right(self.ends, stored)
            while page < last:
                first = self.ends[chunk] - self.counts[chunk]
                here = min(last - page, self.ends[chunk] - stored)
                yield Piece(page, here, chunk, stored - first)
                page += here
                stored += here
                chunk += 1
            run += 1

    def pieces_of(self, chunk: int) -> Iterator[Piece]:
        """Where the pages of a chunk are; where several are equal, not all of them may be told."""
        runs, firsts = self._by_stored
        end = self.ends[chunk]
        begin = end - self.counts[chunk]
        # One that begins before it may reach into it.
        for at in range(max(bisect_left(firsts, begin) - 1, 0), len(runs)):
            run = runs[at]
            stored, length = firsts[at], self.lengths[run]
            if stored >= end:
                return
            first, last = max(stored, begin), min(stored + length, end)
            if first < last:
                page = self.starts[run] + first - stored
                yield Piece(page, last - first, chunk, first - begin)

    def content(self) -> bytearray:
        """A byte for each page: 1, or 0 for one of zeroes."""
        content = bytearray(self.pages)
        for first, count in self.ranges():
            content[first : first + count] = b"\1" * count
        return content

    def ranges(self) -> list[Range]:
        """The ranges of pages that are not zeroes, ascending."""
        return _merged(zip(self.starts, self.lengths, strict=True))


def ranges_of(pages: Iterable[int]) -> list[Range]:
    """Pages as ranges of pages that follow each other, in the same order."""
    return _merged((page, 1) for page in pages)


def _merged(runs: Iterable[Range]) -> list[Range]:
    """Ranges, of which those that follow each other are one."""
    merged: list[Range] = []
    first = end = 0
    for start, length in runs:
        if start != end:
            if end > first:
                merged.append((first, end - first))
            first = start
        end = start + length
    if end > first:
        merged.append((first, end - first))
    return merged


class ChunkPlaces:
    """Where the chunks of a layout are.

    Attributes:
        packs: digests of the blobs that hold records of chunks.
        pack: of each chunk, the number of its pack.
        offset: of each chunk, where its record begins there, in bytes.
        length: of each chunk, bytes of its record.
    """

    def __init__(self, each: Iterable[Place] = ()) -> None:
        self.packs: list[str] = []
        self.pack, self.offset, self.length = array("I"), array("Q"), array("I")
        numbers: dict[str, int] = {}
        for pack, offset, length in each:
            self.pack.append(numbers.setdefault(pack, len(numbers)))
            self.offset.append(offset)
            self.length.append(length)
        self.packs += numbers

    def __len__(self) -> int:
        return len(self.pack)

    def __getitem__(self, chunk: int) -> Place:
        return Place(self.packs[self.pack[chunk]], self.offset[chunk], self.length[chunk])

    def __iter__(self) -> Iterator[Place]:
        return map(self.__getitem__, range(len(self)))

    @staticmethod
    def most_bytes(chunks: int) -> int:
        """How many bytes they have at most as bytes: where each chunk is in a pack of its own."""
        return 1024 + chunks * (2 * _DIGEST + 4 + 16)

    def fit(self, layout: Layout) -> bool:
        """Whether they can be the places of a layout's chunks; a record is no longer than these."""
        return len(self) == len(layout) and all(
            length <= count * PAGE + 1
            for length, count in zip(self.length, layout.counts, strict=True)
        )

    def encode(self) -> bytes:
        """As bytes."""
        head = json.dumps({"packs": self.packs, "chunks": len(self.pack)}).encode()
        return b"".join((head, b"\n", *map(encode_numbers, (self.pack, self.offset, self.length))))

    @classmethod
    def decode(cls, data: bytes) -> ChunkPlaces:
        """From bytes.

        Raises:
            Damaged: they are not places.
        """
        head, _newline, rest = data.partition(b"\n")
        places = cls()
        try:
            told = json.loads(head)
            places.packs, chunks = list(told["packs"]), told["chunks"]
            places.pack = decode_numbers("I", rest[: chunks * 4])
            places.offset = decode_numbers("Q", rest[chunks * 4 : chunks * 12])
            places.length = decode_numbers("I", rest[chunks * 12 :])
            good = len(places.pack) == len(places.length) == chunks and all(
                type(each) is str and DIGEST.fullmatch(each) for each in places.packs
            )
        except (ValueError, TypeError, KeyError):
            good = False
        if not good or max(places.pack, default=-1) >= len(places.packs):
            raise Damaged("a template's places are damaged")
        return places
