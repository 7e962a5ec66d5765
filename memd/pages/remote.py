"""Fetching from a source: a template's chunks one by one, or whole blobs."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from memd.errors import refusing
from memd.pages.blobs import Blobs, Damaged
from memd.pages.cache import Cache
from memd.pages.chunks import MOST_PACK
from memd.pages.counts import Counts
from memd.pages.layout import ChunkPlaces, Layout, Place
from memd.pages.sources import Source, SourceError

log = logging.getLogger(__name__)

_AT_ONCE = 4
"""Requests to a source at a time."""

_RANGE = 1 << 20
"""Bytes that one request asks for, where chunks follow each other: what arrives
in 8 ms on a link of 1 Gbit/s."""

_GAP = 32 << 10
"""Bytes between two chunks that are fetched along with them."""

T = TypeVar("T")


def several(act: Callable[[T], None], items: Iterable[T]) -> None:
    """Do something with each of some items, several at once; the first failure ends it.

    The threads end with the process, so that one that waits for a source does
    not hold its end up.
    """
    left = deque(items)
    count = len(left)
    failures: list[BaseException] = []

    def work() -> None:
        while not failures:
            try:
                item = left.popleft()
            except IndexError:
                return
            try:
                act(item)
            except BaseException as error:
                failures.append(error)

    threads = [
        threading.Thread(target=work, name="memd-fetch", daemon=True)
        for _each in range(min(_AT_ONCE, count))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@dataclass(frozen=True, slots=True)
class RemoteChunks:
    """The chunks of a template that a source has.

    Attributes:
        name: the template's, for the log.
        layout: of the template, as the store has it.
        places: tells where the source has a chunk of the layout: pack, offset and
            length, None for nowhere.
        source: the source.
        cache: where what was fetched is kept.
        counts: told where chunks are read from.
    """

    name: str
    layout: Layout
    places: Callable[[int], Place | None]
    source: Source
    cache: Cache
    counts: Counts

    def keeps(self, number: int) -> bool:
        """Whether a chunk was fetched before and is kept still."""
        return self.cache.has(self.layout.digest(number))

    def kept(self, number: int) -> bytes | None:
        """A chunk, verified, if it was fetched before and is kept still."""
        record = self.cache.get(self.layout.digest(number))
        data = None if record is None else self._unpack(number, record, "what was kept of it")
        if data is not None:
            self.counts.add("kept")
        return data

    def chunk(self, number: int) -> bytes:
        """Fetch a chunk; verified.

        Raises:
            QMPError: the source has it not, or gives something else.
        """
        digest = self.layout.digest(number)
        place = self.places(number)
        if place is None:
            raise Damaged(f"template '{self.name}': no source has chunk {digest.hex()}")
        for _ in range(2):
            record = self._part(*place)
            data = self._unpack(number, record, self.source.url)
            if data is not None:
                self.counts.add("fetched")
                self._keep(digest, record)
                return data
        raise Damaged(
            f"template '{self.name}': chunk {digest.hex()} is damaged, at '{self.source.url}' too"
        )

    def _unpack(self, number: int, record: bytes, whence: str) -> bytes | None:
        """A chunk out of its record; None where that is damaged, which is logged and counted."""
        try:
            return self.layout.unpack(number, record)
        except Damaged as damaged:
            log.error("template %s: %s: %s", self.name, whence, damaged.desc)
            self.counts.add("damaged")
            return None

    def prefetch(self, numbers: list[int]) -> None:
        """Fetch chunks in as few requests as can be; what fails is left to `chunk`."""
        wanted: dict[Place, bytes] = {}
        room = self.cache.limit
        for number in numbers:
            digest = self.layout.digest(number)
            if (place := self.places(number)) is None or self.cache.has(digest):
                continue
            if room is not None:
                # What would push out what was fetched just before is of no use.
                room -= place.length * 2
                if room < 0:
                    break
            wanted[place] = digest
        spans: list[list[Place]] = []
        for place in sorted(wanted):
            end = place.offset + place.length
            if spans:
                first, last = spans[-1][0], spans[-1][-1]
                gap = place.offset - last.offset - last.length
                if place.pack == last.pack and gap <= _GAP and end - first.offset <= _RANGE:
                    spans[-1].append(place)
                    continue
            spans.append([place])

        def get(span: list[Place]) -> None:
            first = span[0].offset
            data = self._part(span[0].pack, first, span[-1].offset + span[-1].length - first)
            self.counts.add("fetched", len(span))
            for place in span:
                at = place.offset - first
                self._keep(wanted[place], data[at : at + place.length])

        # One alone is fetched by who wants it.
        if len(wanted) > 1:
            try:
                several(get, spans)
            except SourceError as error:
                log.warning("template %s: %s", self.name, error.desc)

    def _part(self, pack: str, offset: int, length: int) -> bytes:
        data = self.source.part(pack, offset, length)
        self.counts.add("fetched-bytes", length)
        return data

    def _keep(self, digest: bytes, record: bytes) -> None:
        try:
            self.cache.put(digest, record)
        except OSError as failed:
            # It will be fetched again.
            log.warning("template %s: cannot keep a chunk: %s", self.name, failed.strerror)


def fetch_blob(
    source: Source,
    blobs: Blobs,
    digest: str,
    most: int = MOST_PACK,
    progress: Callable[[int], None] = lambda _more: None,
    *,
    anew: bool = False,
) -> None:
    """Bring a blob into a store, verified.

    Args:
        source: who has it.
        blobs: the store's.
        digest: the blob's.
        most: bytes that it may have.
        progress: told how many more bytes came; what it raises ends it.
        anew: whether to replace one that is there.

    Raises:
        QMPError: it can't be fetched, or the disk is full.
    """
    if not anew and blobs.has(digest):
        return
    with refusing(f"cannot store blob {digest}"), blobs.create() as new:
        with source.blob(digest) as pieces:
            for piece in pieces:
                new.write(piece)
                if new.size > most:
                    raise SourceError(
                        f"template source '{source.url}': blob {digest} has more than {most} bytes"
                    )
                progress(len(piece))
        if new.digest() != digest:
            raise SourceError(f"template source '{source.url}': blob {digest} is damaged")
        new.finish()


def places_in(layout: Layout, theirs: Layout, places: ChunkPlaces) -> Callable[[int], Place | None]:
    """Where the chunks of a layout are at a source.

    Args:
        layout: whose chunks are asked for.
        theirs: the source's; the same object if it is the same.
        places: where the source has its chunks.
    """
    if theirs is layout:
        return places.__getitem__
    found = {theirs.digest(number): places[number] for number in range(len(theirs))}
    return lambda number: found.get(layout.digest(number))
