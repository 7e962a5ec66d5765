"""The template store: a directory that one memd writes, and any of its processes read.

    format          which format this is
    lock            held by the memd that writes
    names/NAME      which manifest has that name, and where its chunks are
    blobs/DIGEST    manifests, layouts, device streams, packs of chunks
    cache/DIGEST    records of chunks that were fetched
    counts          where chunks were read from since the start
    unpacked/       templates that are in use, unpacked

A template is there once its file in names/ is. Whatever no name leads to is
garbage: what a crash left, and what was deleted.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import stat
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from memd.errors import QMPError, refusing
from memd.pages import unpacked
from memd.pages.blobs import Damaged
from memd.pages.blobs import replace as replace_file
from memd.pages.cache import Cache
from memd.pages.chunks import SET_PAGES
from memd.pages.contents import Contents, NotFound, check
from memd.pages.counts import Counts
from memd.pages.directory import FORMAT
from memd.pages.garbage import collect
from memd.pages.layout import ChunkPlaces, Layout, Piece, Place, encode_numbers
from memd.pages.manifest import MOST_MANIFEST, Manifest
from memd.pages.names import Entry, Origin, Version
from memd.pages.recording import PAGE
from memd.pages.remote import RemoteChunks, fetch_blob, places_in, several
from memd.pages.source_urls import open_source
from memd.pages.sources import Source, Target
from memd.pages.template import Progress, Template
from memd.places import SHARE, Places, current_user, whom

if TYPE_CHECKING:
    from memd.pages.writer import Known, Writer

log = logging.getLogger(__name__)

MOST_CHANGES = 16
"""Templates that are stored or changed at once at most. One that awaits a machine's stream
takes descriptors, and up to 256 MiB."""

_AT_ONCE = 1 << 14
"""Pages of a working set that are held in memory at a time: 64 MiB."""


@dataclass(frozen=True, slots=True)
class Verified:
    """The result of `Store.verify`.

    Attributes:
        chunks: how many were read.
        damaged: digests of those that are, in hexadecimal digits.
        repaired: how many were, and were fetched anew.
    """

    chunks: int
    damaged: list[str]
    repaired: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """The space that a template takes.

    Attributes:
        name: the template's.
        manifest: what it is.
        chunks: how many it has.
        stored: bytes of their records.
        shared: bytes of these that other templates have as well.
        present: bytes of these that are in the store, what it keeps of fetched
            ones apart.
        source: where it is as well, "" for nowhere.
    """

    name: str
    manifest: Manifest
    chunks: int
    stored: int
    shared: int
    present: int
    source: str


@dataclass(frozen=True, slots=True)
class Holdings:
    """The sums of a store.

    Attributes:
        templates: how many.
        stored: bytes that it takes for them.
        cached: bytes of fetched chunks that it keeps in addition.
        counts: where chunks were read from, as in `Counts`.
    """

    templates: int
    stored: int
    cached: int
    counts: dict[str, int]


class Store(Contents):
    """A template store. Its methods may be called in any thread.

    Args:
        directory: made, for its user alone, where it is missing.
        readonly: whether it is only read: by a further process of the memd that
            writes it.
        sources: URLs of where templates are that the store has not.
        cache_limit: bytes of fetched chunks that are kept, None for any number;
            of one that is only read, that of the process that writes it.

    Attributes:
        cache: fetched chunks.
        counts: where chunks were read from, until the store is closed.
        sources: the URLs.

    Raises:
        QMPError: it is not a store, of another user, or in use by another memd; or
            a source is none.
    """

    def __init__(
        self,
        directory: str,
        *,
        readonly: bool = False,
        sources: Sequence[str] = (),
        cache_limit: int | None = None,
    ) -> None:
        super().__init__(directory)
        self.readonly = readonly
        self.unpacked = os.path.join(self.directory, "unpacked")
        self.cache = Cache(os.path.join(self.directory, "cache"), cache_limit)
        self.sources = tuple(sources)
        self._sources = {url: open_source(url) for url in sources}
        self._changing = threading.RLock()
        self._writing: set[str] = set()
        self._changes = Places(MOST_CHANGES, SHARE)
        self._holds = 0
        self._postponed = False
        self._locating: dict[str, threading.Lock] = {}
        with ExitStack() as undo:
            with self._failures():
                self._open(undo)
            self._closing = undo.pop_all()

    @property
    def on(self) -> frozenset[int]:
        """File systems that a look at it may wait for (`Job.on`); others wait for sources."""
        from memd.hostmem.file_systems import of_paths

        return of_paths([self.directory])

    def close(self) -> None:
        """Leave it to others."""
        self._closing.close()

    def _failures(self) -> AbstractContextManager[None]:
        """Have an `OSError` raised as a `QMPError`."""
        return refusing(f"cannot use '{self.directory}' as a template store")

    def _unusable(self, why: str) -> QMPError:
        return QMPError(f"cannot use '{self.directory}' as a template store: {why}")

    def _open(self, undo: ExitStack) -> None:
        if not self.readonly:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
        there = os.stat(self.directory)
        if not stat.S_ISDIR(there.st_mode):
            raise self._unusable("it is not a directory")
        if there.st_uid != os.geteuid():
            raise self._unusable(f"it belongs to another user (uid {there.st_uid})")
        if there.st_mode & 0o022:
            raise self._unusable("other users may write to it")
        marker = os.path.join(self.directory, "format")
        is_new = not os.path.exists(marker)
        if is_new:
            if self.readonly or set(os.listdir(self.directory)) - {"lock", "lost+found"}:
                raise self._unusable("it is not empty, and not a template store")
        else:
            with open(marker, "rb") as file:
                if file.read(100) != FORMAT:
                    raise self._unusable("it is of another format than this memd's")
        if not self.readonly:
            self._take_lock(undo)
        if is_new:
            replace_file(marker, FORMAT)
        counts = os.path.join(self.directory, "counts")
        self.counts = Counts(counts, reset=not self.readonly)
        undo.callback(self.counts.close)
        if self.readonly:
            self.cache.limit = self.cache.noted_limit()
            return
        self.make()
        os.makedirs(self.unpacked, mode=0o700, exist_ok=True)
        self.cache.make()
        boot = unpacked.boot_id()
        for other in os.listdir(self.unpacked):
            if other != boot:
                shutil.rmtree(os.path.join(self.unpacked, other))
        self.collect_garbage()

    def _take_lock(self, undo: ExitStack) -> None:
        path = os.path.join(self.directory, "lock")
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        undo.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode("ascii", "replace").strip()
            raise self._unusable(f"another memd uses it (process {holder})") from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)

    # What is there

    def manifest(self, name: str) -> Manifest:
        """The manifest of a template.

        Raises:
            QMPError: there is none, or its manifest is damaged.
        """
        return self.of(name, lambda entry: self.manifest_of(entry.version))

    def open(self, name: str) -> Template:
        """A template, to be read.

        Raises:
            QMPError: there is none, or it is damaged.
        """
        return self.of(name, lambda entry: self._open_template(name, entry))

    @contextmanager
    def reading(self, name: str) -> Iterator[Template]:
        """A template, of which nothing is moved or removed meanwhile.

        Raises:
            QMPError: there is none, or it is damaged.
        """
        with self._without_collecting(), closing(self.open(name)) as template:
            yield template

    def _open_template(self, name: str, entry: Entry) -> Template:
        manifest = self.manifest_of(entry.version)
        layout = self.layout_of(manifest)
        remote = None
        if entry.origin is not None:
            remote = self._remote(name, layout, manifest.layout.digest, entry.origin)

        def places(known: str) -> tuple[str, ChunkPlaces] | None:
            return self._places_of(name, manifest.layout.digest, known)

        return Template(
            name, manifest, layout, self.blobs, places, self.unpacked, self.counts, remote
        )

    def _remote(self, name: str, layout: Layout, key: str, origin: Origin) -> RemoteChunks | None:
        try:
            source = self._source(origin.url)
        except QMPError as error:
            log.warning("template %s: %s", name, error.desc)
            return None
        found: list[Callable[[int], Place | None]] = []

        def places(number: int) -> Place | None:
            if not found:
                manifest = self.manifest_of(origin.version)
                same = manifest.layout.digest == key
                theirs = layout if same else self.layout_of(manifest)
                found.append(places_in(layout, theirs, self.places_of(origin.version)))
            return found[0](number)

        return RemoteChunks(name, layout, places, source, self.cache, self.counts)

    def _source(self, url: str) -> Source:
        source = self._sources.get(url)
        if source is None:
            source = self._sources[url] = open_source(url)
        return source

    def _places_of(self, name: str, layout: str, known: str) -> tuple[str, ChunkPlaces] | None:
        """Where the chunks of a template are now, None if as known; nowhere, if it is gone."""

        def look(entry: Entry) -> tuple[str, ChunkPlaces] | None:
            for version in entry.versions:
                if self.manifest_of(version).layout.digest == layout:
                    if version.places == known:
                        return None
                    return version.places, self.places_of(version)
            return "", ChunkPlaces()

        return self.of(name, look)

    def usage(self, name: str) -> Usage:
        """The space that a template takes.

        Raises:
            QMPError: there is none, or it or another one is damaged.
        """
        usage, mine = self._usage_and_places(name)
        others: set[Place] = set()
        for other in self.names():
            # One that is deleted meanwhile shares nothing.
            with suppress(NotFound):
                others |= set() if other == name else self._usage_and_places(other)[1]
        shared = sum(length for _pack, _offset, length in mine & others)
        return replace(usage, shared=shared)

    def all_usage(self) -> list[Usage]:
        """The space of every template, sharing not counted; damaged ones are left out."""
        found = []
        for name in self.names():
            try:
                found.append(self._usage_and_places(name)[0])
            except NotFound:
                # It is deleted meanwhile.
                continue
            except QMPError as error:
                log.error("template %s: %s", name, error.desc)
        return found

    def holdings(self) -> Holdings:
        """The sums of the store.

        Raises:
            QMPError: that can't be read.
        """
        with self._failures():
            return Holdings(
                len(self.names()), self.blobs.taken(), self.cache.taken(), self.counts.read()
            )

    def _usage_and_places(self, name: str) -> tuple[Usage, set[Place]]:
        def read(entry: Entry) -> tuple[Usage, set[Place]]:
            places = self.places_of(entry.version)
            here = [self.blobs.has(pack) for pack in places.packs]
            each = zip(places.pack, places.length, strict=True)
            usage = Usage(
                name=name,
                manifest=self.manifest_of(entry.version),
                chunks=len(places),
                stored=sum(places.length),
                shared=0,
                present=sum(length for pack, length in each if here[pack]),
                source=entry.origin.url if entry.origin else "",
            )
            return usage, set(places)

        return self.of(name, read)

    # What changes it

    def begin(self, name: str, base: str | None = None) -> Writer:
        """Begin to store a template.

        Args:
            name: that no other has.
            base: a template that it is much like: of chunks with a few changed
                pages only these pages are stored.

        Raises:
            QMPError: the name is taken or is none, or there is no such base.
        """
        # Processes that only read need not wait for it.
        from memd.pages.writer import Writer

        check(name)
        with ExitStack() as undo:
            # No garbage is collected until its end, so that what is known stays.
            undo.enter_context(self._change(name, "store", new=True))
            like = None if base is None else self.open(base)
            known = self._known()

            def commit(manifest: Manifest, places: ChunkPlaces) -> None:
                self._commit(name, manifest, places, Entry([]))

            return Writer(name, self.blobs, known, like, commit, undo.pop_all().close)

    @contextmanager
    def _change(self, name: str, what: str, *, new: bool = False) -> Iterator[None]:
        """Nobody else changes a template, and no garbage is collected, meanwhile.

        Args:
            name: the template's.
            what: what is done, for the error where the file system fails.
            new: whether it is one that is not there yet.

        Raises:
            QMPError: it is being changed, or that fails.
        """
        if self.readonly:
            raise QMPError("the template store is only read by this process")
        with self._changing:
            if new and (name in self._writing or self.has(name)):
                raise QMPError(f"template '{name}' exists already")
            if name in self._writing:
                raise QMPError(f"template '{name}' is being changed")
            user, places = current_user(), self._changes
            if not places.has_free_place(user):
                raise QMPError(
                    f"{places.of(user)} templates are being changed for {whom(user)}; no more are"
                )
            self._writing.add(name)
            places.take(user)
        try:
            with refusing(f"cannot {what} template '{name}'"):
                yield
        finally:
            with self._changing:
                self._writing.discard(name)
                places.give_back(user)
                self._try_collecting()

    @contextmanager
    def _without_collecting(self) -> Iterator[None]:
        """Nothing is moved or removed meanwhile."""
        with self._changing:
            self._holds += 1
        try:
            yield
        finally:
            with self._changing:
                self._holds -= 1
                if self._postponed:
                    self._try_collecting()

    def _commit(self, name: str, manifest: Manifest, places: ChunkPlaces, before: Entry) -> None:
        blobs = [self.blobs.put(each.encode()) for each in (manifest, places)]
        version = Version(*(blob.digest for blob in blobs))
        with self._changing:
            self.write(name, replace(before, versions=[version, *before.versions]))

    def _known(self) -> Known:
        """The chunks that the store has."""
        known: Known = {}
        for _name, entry in self.entries():
            for version in entry.versions:
                layout, places = self.layout_of(self.manifest_of(version)), self.places_of(version)
                there = [self.blobs.has(pack) for pack in places.packs]
                for number in range(len(layout)):
                    if there[places.pack[number]]:
                        known.setdefault(layout.digest(number), places[number])
        return known

    def delete(self, name: str) -> None:
        """Remove a template, and what no other one needs of it.

        Raises:
            QMPError: there is none, it is in use, or it can't be removed.
        """
        with self._change(name, "delete"):
            if not self.has(name):
                self.entry(name)
            if self._in_use(name):
                raise QMPError(f"template '{name}' is in use")
            self.unname(name)

    def _in_use(self, name: str) -> bool:
        """Whether a process has it unpacked and in use; its unpacked copy goes if not."""
        mine = self._copies_of(name)
        for other in self.names():
            if other != name:
                mine -= self._copies_of(other)
        return not all(unpacked.drop(self.unpacked, key) for key in mine)

    def _copies_of(self, name: str) -> set[str]:
        """The unpacked copies of a template's versions; none where it is damaged."""
        try:
            return {self.manifest_of(each).unpacked for each in self.entry(name).versions}
        except Damaged:
            return set()

    def set_working_set(self, name: str, pages: Iterable[int]) -> Manifest:
        """Record which pages a guest needs first, and store them so that they are fetched as one.

        Args:
            name: the template.
            pages: numbers of 4096-byte pages, in order; those of zeroes are left out.

        Returns:
            what the template is from now on.

        Raises:
            QMPError: it can't be done, and the template is as it was.
        """
        from memd.pages.writer import Chunks

        with self._change(name, "change"):
            entry = self.entry(name)
            template = self.open(name)
            layout, content = template.layout, template.layout.content()
            there = (page for page in pages if 0 <= page < layout.pages and content[page])
            wanted = array("I", dict.fromkeys(there))
            with closing(Chunks(self.blobs, self._known())) as chunks:
                for part, data in _parts(template, wanted):
                    stored = chunks.add(chunks.record(data), len(part))
                    for slot, page in enumerate(part):
                        chunks.run(page, 1, stored + slot)
                chunks.close_pack()
                for piece in _without(layout, set(wanted)):
                    chunks.add_of(template, piece)
                changed, places = chunks.finish(layout.pages)
            manifest = replace(
                template.manifest,
                layout=self.blobs.put(changed.encode()),
                working_set=self.blobs.put(encode_numbers(wanted)),
            )
            unpacked.share(self.unpacked, template.manifest.unpacked, manifest.unpacked)
            self._commit(name, manifest, places, entry)
        return manifest

    def verify(self, name: str, progress: Progress | None = None) -> Verified:
        """Read all of a template as it is stored.

        Args:
            name: the template.
            progress: told how many bytes were read, of how many.

        Raises:
            QMPError: there is none, or what is damaged is more than chunks.
        """
        with self._without_collecting():
            return self._verify(name, self.entry(name), progress)

    def _verify(self, name: str, entry: Entry, progress: Progress | None) -> Verified:
        manifest = self.manifest_of(entry.version)
        for blob in manifest.blobs.values():
            self.blobs.get(blob.digest)
        layout, places = self.layout_of(manifest), self.places_of(entry.version)
        layout.check()
        damaged = []
        for number in range(len(layout)):
            # What was not fetched yet is not damaged.
            here = entry.origin is None or self.blobs.has(places[number].pack)
            if here and not self._good(layout, places, number):
                damaged.append(number)
            if progress is not None:
                progress(layout.ends[number] * PAGE, layout.ends[-1] * PAGE)
        left = damaged
        if damaged and entry.origin is not None and not self.readonly:
            self._repair(name, entry.origin, {places[number].pack for number in damaged})
            left = [number for number in damaged if not self._good(layout, places, number)]
        digests = [layout.digest(number).hex() for number in left]
        return Verified(len(layout), digests, len(damaged) - len(left))

    def _good(self, layout: Layout, places: ChunkPlaces, number: int) -> bool:
        try:
            layout.unpack(number, self.blobs.read_at(*places[number]))
        except (Damaged, OSError):
            return False
        return True

    def _repair(self, name: str, origin: Origin, packs: set[str]) -> None:
        for pack in packs:
            try:
                fetch_blob(self._source(origin.url), self.blobs, pack, anew=True)
            except QMPError as error:
                log.error("template %s: it can't be repaired: %s", name, error.desc)

    # Other places

    def locate(self, name: str) -> None:
        """See that a template can be opened that may be at a source only; its chunks come later.

        Raises:
            QMPError: neither the store nor a source has it.
        """
        if self.has(name) or not self.sources:
            self.entry(name)
            return
        with self._changing:
            locating = self._locating.setdefault(name, threading.Lock())
        # Several that want it at once wait for the first.
        with locating:
            if not self.has(name):
                self._locate(name)

    def _locate(self, name: str) -> None:
        check(name)
        failure: QMPError | None = None
        for url in self.sources:
            try:
                source = self._source(url)
                version = source.find(name)
            except QMPError as error:
                failure = error
                continue
            if version is not None:
                self._fetch(name, source, version, lambda _places: None)
                return
        raise failure or QMPError(f"template '{name}' not found")

    def reach_sources(self) -> list[tuple[str, str]]:
        """Each source's URL, and why it can't be reached: "" if it can."""
        found = dict.fromkeys(self.sources, "")

        def reach(url: str) -> None:
            try:
                self._source(url).check()
            except QMPError as error:
                found[url] = error.desc

        several(reach, list(found))
        return list(found.items())

    def pull(self, name: str, url: str | None = None, progress: Progress | None = None) -> str:
        """Have a template here in full.

        Args:
            name: the template.
            url: which of the sources has it; the first if None.
            progress: told how many bytes came, of how many; what it raises ends it.

        Returns:
            the source's URL.

        Raises:
            QMPError: the source has it not, another one has its name, or it
                can't be stored; a template that was there is as it was.
        """
        source = self._source(self._chosen(url))
        check(name)
        version = source.find(name)
        if version is None:
            raise QMPError(f"template '{name}' is not at '{source.url}'")
        if self.has(name):
            entry = self.entry(name)
            if entry.origin is None and entry.version.manifest != version.manifest:
                raise QMPError(f"template '{name}' exists already, and is another one")

        def packs(places: ChunkPlaces) -> None:
            ends: dict[str, int] = {}
            for pack, offset, length in places:
                if not self.blobs.has(pack):
                    ends[pack] = max(ends.get(pack, 0), offset + length)
            more = _counter(sum(ends.values()), progress)
            several(lambda pack: fetch_blob(source, self.blobs, pack, progress=more), list(ends))

        self._fetch(name, source, version, packs)
        return source.url

    def _chosen(self, url: str | None) -> str:
        if not self.sources:
            raise QMPError("there is no template source", hint="--template-source names one.")
        if url is not None and url not in self.sources:
            raise QMPError(f"'{url}' is not one of the template sources")
        return url or self.sources[0]

    def _fetch(
        self,
        name: str,
        source: Source,
        version: Version,
        fetch_packs: Callable[[ChunkPlaces], None],
    ) -> None:
        """Take what is said of a template over from a source, and give it the name."""
        with self._change(name, "store"):
            fetch_blob(source, self.blobs, version.manifest, MOST_MANIFEST)
            manifest = self.manifest_of(version)
            for blob in manifest.blobs.values():
                fetch_blob(source, self.blobs, blob.digest, blob.size)
            layout = self.layout_of(manifest)
            layout.check()
            fetch_blob(source, self.blobs, version.places, ChunkPlaces.most_bytes(len(layout)))
            places = self.places_of(version)
            if layout.pages * PAGE != manifest.size or not places.fit(layout):
                raise Damaged(f"template '{name}' of '{source.url}' is damaged")
            fetch_packs(places)
            former = [
                each
                for each in (self.entry(name).versions if self.has(name) else [])
                if each.manifest != version.manifest
            ]
            with self._changing:
                self.write(name, Entry([version, *former], Origin(source.url, version)))

    def push(self, name: str, url: str | None = None, progress: Progress | None = None) -> str:
        """Give a template to a source, from where other stores can have it.

        Args:
            name: the template.
            url: which of the sources; the first if None.
            progress: told how many bytes were sent, of how many; what it raises ends it.

        Returns:
            the source's URL.

        Raises:
            QMPError: the source would not take it, or it is not here in full.
        """
        source = self._source(self._chosen(url))
        if not isinstance(source, Target):
            raise QMPError(f"'{source.url}' can only be read from")
        with self._change(name, "push"):
            entry = self.entry(name)
            manifest, places = self.manifest_of(entry.version), self.places_of(entry.version)
            kinds = {entry.version.manifest: "config", entry.version.places: "places"}
            kinds |= {blob.digest: kind for kind, blob in manifest.blobs.items()}
            kinds |= dict.fromkeys(places.packs, "chunks")
            blobs = []
            for digest, kind in kinds.items():
                if not self.blobs.has(digest):
                    raise QMPError(f"template '{name}' is not here in full", hint="Pull it before.")
                blobs.append((kind, digest, self.blobs.size(digest)))
            missing = [each for each in blobs if not source.has(each[1])]
            more = _counter(sum(size for _kind, _digest, size in missing), progress)

            def upload(blob: tuple[str, str, int]) -> None:
                source.upload(blob[1], self.blobs.path(blob[1]), more)

            several(upload, missing)
            source.name(name, entry.version, blobs)
            with self._changing:
                self.write(name, replace(entry, origin=Origin(source.url, entry.version)))
        return source.url

    # Garbage

    def _try_collecting(self) -> None:
        try:
            self.collect_garbage()
        except OSError as failed:
            log.warning("cannot collect the template store's garbage: %s", failed.strerror)

    def collect_garbage(self) -> None:
        """Remove what no name leads to; later, if a template is being stored. Raises `OSError`."""
        with self._changing:
            self._postponed = bool(self._writing or self._holds)
            if self._postponed:
                return
            try:
                collect(self, self.unpacked, self.cache)
            except QMPError as damaged:
                log.error("the template store's garbage is not collected: %s", damaged.desc)


def _counter(total: int, progress: Progress | None) -> Callable[[int], None]:
    """A function that threads tell how many more bytes of a total they have moved."""
    done, lock = 0, threading.Lock()

    def more(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            if progress is not None:
                progress(done, total)

    return more


def _without(layout: Layout, pages: set[int]) -> Iterator[Piece]:
    """The pieces of a layout that are not zeroes, less these pages."""
    for start, length in layout.ranges():
        for piece in layout.pieces(start, length):
            first = piece.page
            end = piece.page + piece.count
            for page in (*(each for each in range(first, end) if each in pages), end):
                if page > first:
                    slot = piece.slot + first - piece.page
                    yield Piece(first, page - first, piece.chunk, slot)
                first = page + 1


def _parts(template: Template, pages: array[int]) -> Iterator[tuple[array[int], bytes]]:
    """Pages in parts of a chunk each, with their content."""
    for first in range(0, len(pages), _AT_ONCE):
        some = pages[first : first + _AT_ONCE]
        # In the order of addresses, so that no chunk is unpacked for each of its pages.
        content = {page: template.read(page * PAGE, PAGE) for page in sorted(some)}
        for at in range(0, len(some), SET_PAGES):
            part = some[at : at + SET_PAGES]
            yield part, b"".join(content[page] for page in part)
