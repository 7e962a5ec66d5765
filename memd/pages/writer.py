"""A template that is being stored: there whole, or not at all."""

from __future__ import annotations

import os
from array import array
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from hashlib import sha256
from typing import Any

from memd.errors import refusing
from memd.hostmem.content import Gone, data_ranges
from memd.hostmem.spec import round_up
from memd.named_tuple import NamedTuple
from memd.pages.blobs import Blobs, NewBlob
from memd.pages.chunks import CHUNK_PAGES, PACK, pack
from memd.pages.layout import MOST_PAGES, ChunkPlaces, Layout, Piece, Place, ranges_of
from memd.pages.manifest import Manifest
from memd.pages.recording import PAGE
from memd.pages.template import Template

_CHUNK = CHUNK_PAGES * PAGE
_ZEROES = bytes(PAGE)

_FEW = CHUNK_PAGES // 2
"""Up to so many changed pages of a base's chunk are stored by themselves, more as a chunk."""

_PIECE = 4 << 20
"""Bytes of a file that are read between two reports."""

_THREADS = min(4, os.cpu_count() or 1)

_AHEAD = 64
"""Chunks that may be waiting to be compressed."""

Known = dict[bytes, Place]
"""Chunks that a store has: by digest, where the record is."""


class Record(NamedTuple):
    """A chunk's digest, and its record unless the store has it already."""

    digest: bytes
    packed: bytes | None


class Chunks:
    """The chunks of a layout that is being made, and the packs that new ones go into.

    Args:
        blobs: where the packs go.
        known: chunks that the store has already.
    """

    def __init__(self, blobs: Blobs, known: Known) -> None:
        self._blobs = blobs
        self._known = known
        self._numbers: dict[bytes, int] = {}
        self._firsts: list[int] = []
        self._places: list[Place] = []
        self._pack: NewBlob | None = None
        self._in_pack: list[int] = []
        self._runs: list[tuple[int, int, int]] = []
        self._digests = bytearray()
        self._counts = array("H")
        self._pages = 0

    def record(self, data: bytes) -> Record:
        """Make a chunk's record; may run in any thread."""
        digest = sha256(data).digest()
        return Record(digest, None if digest in self._known else pack(data))

    def add(self, record: Record, pages: int) -> int:
        """Add a chunk; the number of its first page among the chunks' pages.

        Raises:
            OSError: its record could not be written.
        """
        number = self._numbers.get(record.digest)
        if number is not None:
            return self._firsts[number]
        number = self._numbers[record.digest] = len(self._firsts)
        place = self._known.get(record.digest)
        if place is None:
            assert record.packed is not None
            if self._pack is None:
                self._pack = self._blobs.create()
            place = Place("", self._pack.write(record.packed), len(record.packed))
            self._in_pack.append(number)
        self._firsts.append(self._pages)
        self._places.append(place)
        self._digests += record.digest
        self._counts.append(pages)
        self._pages += pages
        if self._pack is not None and self._pack.size >= PACK:
            self.close_pack()
        return self._firsts[number]

    def add_of(self, template: Template, piece: Piece) -> None:
        """Pages are as in another template.

        Raises:
            OSError: a record could not be written.
            QMPError: the other template's can't be read.
        """
        digest = template.layout.digest(piece.chunk)
        if digest in self._known or digest in self._numbers:
            record = Record(digest, None)
        else:
            record = self.record(template.chunk(piece.chunk))
        first = self.add(record, template.layout.counts[piece.chunk])
        self.run(piece.page, piece.count, first + piece.slot)

    def run(self, page: int, count: int, stored: int) -> None:
        """Pages of the template are these of the chunks' pages."""
        self._runs.append((page, count, stored))

    def close_pack(self) -> None:
        """End the present pack, if there is one. Raises `OSError`."""
        if self._pack is None:
            return
        digest = self._pack.finish()
        self._pack = None
        for number in self._in_pack:
            self._places[number] = self._places[number]._replace(pack=digest)
        self._in_pack.clear()

    def finish(self, pages: int) -> tuple[Layout, ChunkPlaces]:
        """The layout of a template of so many pages. Raises `OSError`."""
        self.close_pack()
        starts, lengths, numbers = array("I"), array("I"), array("I")
        for page, count, stored in sorted(self._runs):
            if starts and starts[-1] + lengths[-1] == page and numbers[-1] + lengths[-1] == stored:
                lengths[-1] += count
            else:
                starts.append(page)
                lengths.append(count)
                numbers.append(stored)
        layout = Layout(pages, bytes(self._digests), self._counts, starts, lengths, numbers)
        return layout, ChunkPlaces(self._places)

    def close(self) -> None:
        """Give up; what is in packs that are closed is left to the garbage collection."""
        if self._pack is not None:
            self._pack.discard()
            self._pack = None


class _Seen(NamedTuple):
    """A stretch of the template, compared with the base and compressed.

    Attributes:
        page: the first.
        same: pages that are as in the base, counted from the first.
        new: pages that are to be stored.
        record: they as a chunk; None where each is stored by itself.
        data: the stretch, for the latter.
    """

    page: int
    same: list[int]
    new: list[int]
    record: Record | None
    data: bytes


class Writer:
    """A template that is being stored. Made by a store; used by one thread at a time.

    It is given up by `close` unless it was stored.

    Args:
        name: the template's.
        blobs: the store's.
        known: chunks that the store has.
        base: a template that it is much like, or None.
        commit: gives it its name.
        end: told once, when it is stored or given up.
    """

    def __init__(
        self,
        name: str,
        blobs: Blobs,
        known: Known,
        base: Template | None,
        commit: Callable[[Manifest, ChunkPlaces], None],
        end: Callable[[], None],
    ) -> None:
        self.name = name
        self._blobs = blobs
        self._base = base
        self._commit = commit
        self._end: Callable[[], None] | None = end
        self._chunks = Chunks(blobs, known)
        self._threads = ThreadPoolExecutor(_THREADS, "memd-store")
        self._seen: deque[Future[_Seen]] = deque()
        self._changed: list[tuple[int, bytes]] = []

    def store(
        self,
        fd: int,
        size: int,
        progress: Callable[[int], None] = lambda _done: None,
        devices: bytes = b"",
        **described: Any,
    ) -> Manifest:
        """Store a file's content as the memory, and give the template its name for good.

        Args:
            fd: the file; its holes are not read.
            size: bytes of it; less than whole pages are made up with zeroes.
            progress: told how many bytes were gone through.
            devices: the machine's device stream; none for memory alone.
            described: members of the manifest about the machine.

        Raises:
            QMPError: it can't be read or stored; nothing of it is there.
        """
        pages = -(-size // PAGE)
        with refusing(f"cannot store template '{self.name}'"), closing(self):
            if not 0 < pages <= MOST_PAGES:
                raise Gone(f"{size} bytes are not 1 to {MOST_PAGES} pages of memory")
            self._read(fd, size, progress)
            while self._seen:
                self._take(self._seen.popleft().result())
            self._store_changed()
            layout, places = self._chunks.finish(pages)
            manifest = Manifest(
                size=pages * PAGE,
                data=layout.data * PAGE,
                layout=self._blobs.put(layout.encode()),
                devices=self._blobs.put(devices) if devices else None,
                **described,
            )
            self._commit(manifest, places)
        return manifest

    def _read(self, fd: int, size: int, progress: Callable[[int], None]) -> None:
        done = 0
        for start, end in data_ranges(fd, 0, size):
            # A hole may begin anywhere where the file system's blocks are small.
            at = max(start - start % _CHUNK, done)
            while at < end:
                piece = min(_PIECE, size - at, round_up(end - at, _CHUNK))
                data = os.pread(fd, piece, at)
                if len(data) < piece:
                    raise Gone("its file is cut short")
                for part in range(0, piece, _CHUNK):
                    chunk = data[part : part + _CHUNK]
                    self._submit((at + part) // PAGE, chunk + bytes(-len(chunk) % PAGE))
                at += piece
                done = at
                progress(done)

    def close(self) -> None:
        """Give up, unless it is stored."""
        if self._end is None:
            return
        end, self._end = self._end, None
        self._threads.shutdown(cancel_futures=True)
        self._chunks.close()
        if self._base is not None:
            self._base.close()
        end()

    def _submit(self, page: int, data: bytes) -> None:
        self._seen.append(self._threads.submit(self._see, page, data))
        if len(self._seen) > _AHEAD:
            self._take(self._seen.popleft().result())

    def _see(self, page: int, data: bytes) -> _Seen:
        count = len(data) // PAGE
        slices = [data[at : at + PAGE] for at in range(0, len(data), PAGE)]
        new = [each for each in range(count) if slices[each] != _ZEROES]
        if not new:
            return _Seen(page, [], [], None, b"")
        same: list[int] = []
        base = self._base
        if base is not None and page * PAGE < base.size:
            old = base.read(page * PAGE, min(len(data), base.size - page * PAGE))
            same = [each for each in new if slices[each] == old[each * PAGE : each * PAGE + PAGE]]
            if len(new) - len(same) <= _FEW:
                kept = set(same)
                return _Seen(page, same, [each for each in new if each not in kept], None, data)
        whole = data if len(new) == count else b"".join(slices[each] for each in new)
        return _Seen(page, [], new, self._chunks.record(whole), b"")

    def _take(self, seen: _Seen) -> None:
        if seen.same and self._base is not None:
            for first, count in ranges_of(seen.same):
                for piece in self._base.layout.pieces(seen.page + first, count):
                    self._chunks.add_of(self._base, piece)
        if seen.record is not None:
            stored = self._chunks.add(seen.record, len(seen.new))
            for first, count in ranges_of(seen.new):
                self._chunks.run(seen.page + first, count, stored)
                stored += count
            return
        for each in seen.new:
            self._changed.append((seen.page + each, seen.data[each * PAGE : (each + 1) * PAGE]))
            if len(self._changed) == CHUNK_PAGES:
                self._store_changed()

    def _store_changed(self) -> None:
        """Pages from all over the template as one chunk."""
        if self._changed:
            record = self._chunks.record(b"".join(data for _page, data in self._changed))
            stored = self._chunks.add(record, len(self._changed))
            for slot, (page, _data) in enumerate(self._changed):
                self._chunks.run(page, 1, stored + slot)
            self._changed.clear()
