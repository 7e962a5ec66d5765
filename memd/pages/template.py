"""A template that is read: page by page, each verified before it is given."""

from __future__ import annotations

import contextlib
import logging
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING

from memd.errors import refusing
from memd.pages.blobs import Blob, Blobs, Damaged
from memd.pages.chunks import CHUNK_PAGES
from memd.pages.counts import Counts
from memd.pages.layout import ChunkPlaces, Layout, Piece, decode_numbers
from memd.pages.manifest import Manifest
from memd.pages.recording import PAGE
from memd.pages.unpacked import Unpacked

if TYPE_CHECKING:
    from memd.pages.remote import RemoteChunks

log = logging.getLogger(__name__)

_RECENT = 64
"""Chunks that are kept unpacked: those with pages from all over a template are
asked for more than once."""


ReadPlaces = Callable[[str], tuple[str, ChunkPlaces] | None]

Progress = Callable[[int, int], None]
"""Told how many bytes are done, of how many; what it raises ends the work."""

_PIECE = 1 << 20
"""Bytes that are read at once where all are."""


class Template:
    """A template of a store. Its methods may be called in any thread.

    Args:
        name: in the store.
        manifest: what it is.
        layout: its pages.
        blobs: the store's.
        places: reads where the chunks are; called again after they moved. It is
            given the digest of what it told before, and tells None if that is so still.
        unpacked: the directory of unpacked copies.
        counts: told where chunks are read from.
        remote: where chunks are fetched from, None for nowhere.

    Raises:
        QMPError: it can't be told where its chunks are.
    """

    def __init__(
        self,
        name: str,
        manifest: Manifest,
        layout: Layout,
        blobs: Blobs,
        places: ReadPlaces,
        unpacked: str,
        counts: Counts,
        remote: RemoteChunks | None = None,
    ) -> None:
        self.name = name
        self.manifest = manifest
        self._blobs = blobs
        self.layout = layout
        self._read_places = places
        self._places_digest = ""
        self._places = ChunkPlaces()
        self._finding = threading.Lock()
        self._find_chunks(self._places)
        self._directory = unpacked
        self._counts = counts
        self._remote = remote
        self._lock = threading.Lock()
        self._recent: OrderedDict[int, bytes] = OrderedDict()
        self._loading: dict[int, Future[bytes]] = {}
        self._unpacked: Unpacked | None = None

    @property
    def size(self) -> int:
        """Of its memory, in bytes."""
        return self.manifest.size

    def data_ranges(self) -> list[tuple[int, int]]:
        """The ranges that are not zeroes: (offset, length), ascending, in whole pages."""
        return [(page * PAGE, count * PAGE) for page, count in self.layout.ranges()]

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the memory, zeroes where it has holes.

        Raises:
            QMPError: a chunk is damaged, and can't be fetched anew.
            ValueError: the range is not in the template.
        """
        parts: list[bytes] = []
        pieces = self._pieces(offset, length)
        if self._remote is not None:
            self._prefetch(sorted({piece.chunk for piece in pieces if piece.chunk >= 0}))
        for piece in pieces:
            if piece.chunk < 0:
                parts.append(bytes(piece.count * PAGE))
            else:
                data = self.chunk(piece.chunk)
                parts.append(data[piece.slot * PAGE : (piece.slot + piece.count) * PAGE])
        skip = offset % PAGE
        return b"".join(parts)[skip : skip + length]

    def pieces(self, progress: Progress) -> Iterator[tuple[int, bytes]]:
        """All of the memory that is not zeroes: (offset, bytes), ascending.

        Args:
            progress: told how many bytes there were, of how many.

        Raises:
            QMPError: as `read`.
        """
        done = 0
        for first, length in self.data_ranges():
            for offset in range(first, first + length, _PIECE):
                data = self.read(offset, min(_PIECE, first + length - offset))
                yield offset, data
                done += len(data)
                progress(done, self.manifest.data)

    def fetch(self, offset: int, length: int) -> None:
        """See that a range is ready; takes as long as it takes.

        Raises:
            QMPError: a chunk is damaged, and can't be fetched anew, or there is
                no room to unpack it.
            ValueError: the range is not in the template.
        """
        self._unpack(self._pieces(offset, length))

    def fetch_here(self, offset: int, length: int) -> bool:
        """The same, if no source is needed for it; False if one is.

        Raises:
            QMPError: as `fetch`.
            ValueError: as `fetch`.
        """
        pieces = self._pieces(offset, length)
        if self._remote is not None:
            numbers = {piece.chunk for piece in pieces if piece.chunk >= 0}
            if not all(map(self._remote.keeps, self._far(sorted(numbers)))):
                return False
        self._unpack(pieces)
        return True

    def fetch_pages(self, pages: Iterable[int]) -> None:
        """See that pages are ready, from wherever in the memory, as `fetch` does.

        Args:
            pages: their numbers, of 4096 bytes each.

        Raises:
            QMPError: as `fetch`.
            ValueError: one is not in the template.
        """
        self._unpack([piece for page in pages for piece in self._pieces(page * PAGE, PAGE)])

    def _unpack(self, pieces: list[Piece]) -> None:
        copy = self.copy
        missing = [
            each for each in pieces if each.chunk >= 0 and not copy.has(each.page, each.count)
        ]
        needed = {each.chunk for each in missing}
        if self._remote is not None:
            self._prefetch(sorted(needed))
        for piece in missing:
            if copy.has(piece.page, piece.count):
                continue
            with memoryview(self.chunk(piece.chunk)) as data, self._unpacking():
                # All that it has, so that it is not unpacked once more for another page.
                for each in self._around(piece):
                    pages = data[each.slot * PAGE : (each.slot + each.count) * PAGE]
                    copy.put(each.page, pages)

    def _around(self, piece: Piece) -> Iterable[Piece]:
        """Where the pages of a piece's chunk are."""
        count = self.layout.counts[piece.chunk]
        if piece.count == count:
            return (piece,)
        first = piece.page - piece.page % CHUNK_PAGES
        end = min(self.layout.pages, first + CHUNK_PAGES)
        near = [
            each for each in self.layout.pieces(first, end - first) if each.chunk == piece.chunk
        ]
        if sum(each.count for each in near) == count:
            return near
        return self.layout.pieces_of(piece.chunk)

    def devices(self) -> bytes:
        """The device stream, b"" where there is none.

        Raises:
            Damaged: it is.
        """
        return self._blob(self.manifest.devices)

    def working_set(self) -> array[int]:
        """Numbers of the pages that a guest needs first, in order; none where none were recorded.

        Raises:
            Damaged: the record is.
        """
        return decode_numbers("I", self._blob(self.manifest.working_set))

    def _blob(self, blob: Blob | None) -> bytes:
        return b"" if blob is None else self._blobs.get(blob.digest)

    def rest(self) -> None:
        """Let it be deleted, until `use`; what is mapped stays so."""
        with self._lock, contextlib.suppress(OSError):
            if self._unpacked is not None:
                self._unpacked.rest()

    def use(self) -> bool:
        """Keep it from being deleted, until `rest` or `close`; False where its unpacked copy is.

        Raises:
            QMPError: there can be no unpacked copy.
        """
        copy = self.copy
        with self._lock, contextlib.suppress(OSError):
            return copy.use()
        return False

    def close(self) -> None:
        """Use it no longer."""
        with self._lock:
            if self._unpacked is not None:
                self._unpacked.close()
                self._unpacked = None

    def _pieces(self, offset: int, length: int) -> list[Piece]:
        """The pieces of a range; raises `ValueError` where it is not in the template."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError("the range is not in the template")
        first = offset // PAGE
        return list(self.layout.pieces(first, -(-(offset + length) // PAGE) - first))

    @property
    def copy(self) -> Unpacked:
        """Its unpacked copy; valid until `close`.

        Raises:
            QMPError: there can be none.
        """
        with self._lock:
            if self._unpacked is None:
                with self._unpacking():
                    self._unpacked = Unpacked(
                        self._directory, self.manifest.unpacked, self.layout, self.manifest.starts
                    )
            return self._unpacked

    def _unpacking(self) -> contextlib.AbstractContextManager[None]:
        """Have an `OSError` raised as a `QMPError`."""
        return refusing(f"cannot unpack template '{self.name}'")

    def _prefetch(self, numbers: list[int]) -> None:
        assert self._remote is not None
        if far := self._far(numbers):
            self._remote.prefetch(far)

    def _far(self, numbers: list[int]) -> list[int]:
        """Those chunks that are not in the store."""
        with self._lock:
            places = self._places
            numbers = [each for each in numbers if each not in self._recent]
        missing: dict[str, bool] = {}
        far: list[int] = []
        for number in numbers:
            pack = places[number].pack if number < len(places) else ""
            if pack not in missing:
                missing[pack] = not pack or not self._blobs.has(pack)
            if missing[pack]:
                far.append(number)
        return far

    def chunk(self, number: int) -> bytes:
        """The pages of a chunk of the layout.

        Raises:
            QMPError: it is damaged, and can't be fetched anew.
        """
        with self._lock:
            if (data := self._recent.get(number)) is not None:
                self._recent.move_to_end(number)
                return data
            if (others := self._loading.get(number)) is None:
                mine: Future[bytes] = Future()
                self._loading[number] = mine
        if others is not None:
            return others.result()
        try:
            data = self._load(number)
        except BaseException as error:
            with self._lock:
                del self._loading[number]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._loading[number]
            self._recent[number] = data
            if len(self._recent) > _RECENT:
                self._recent.popitem(last=False)
        mine.set_result(data)
        return data

    def _load(self, number: int) -> bytes:
        chunk, remote = self.layout.digest(number).hex(), self._remote
        while number < len(places := self._places):
            missing = False
            try:
                data = self.layout.unpack(number, self._blobs.read_at(*places[number]))
                self._counts.add("stored")
                return data
            except FileNotFoundError:
                # Not fetched yet, or moved into another pack.
                missing = True
            except OSError as failed:
                log.error("template %s: chunk %s: %s", self.name, chunk, failed.strerror)
            except Damaged as damaged:
                log.error("template %s: %s", self.name, damaged.desc)
                self._counts.add("damaged")
            if remote is not None and (kept := remote.kept(number)) is not None:
                return kept
            if not missing or not self._find_chunks(places):
                break
        if remote is not None:
            return remote.chunk(number)
        raise Damaged(f"template '{self.name}': chunk {chunk} is damaged or missing")

    def _find_chunks(self, before: ChunkPlaces) -> bool:
        """See where the chunks are; whether they are elsewhere than `before`."""
        with self._finding:
            # Another thread may have found them meanwhile.
            if self._places is before:
                told = self._read_places(self._places_digest)
                if told is None:
                    return False
                self._places_digest, self._places = told
            return True
