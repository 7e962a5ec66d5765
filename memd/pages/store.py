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
import re
import shutil
import stat
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from memd.errors import QMPError
from memd.pages import blobs as files
from memd.pages import unpacked
from memd.pages.blobs import Blobs, Damaged
from memd.pages.cache import Cache
from memd.pages.chunks import PAGE, SET_PAGES, unpack
from memd.pages.counts import Counts
from memd.pages.directory import FORMAT
from memd.pages.layout import Layout, Piece, Places, encode_numbers
from memd.pages.manifest import MOST_MANIFEST, Manifest
from memd.pages.names import Entry, Origin, Version
from memd.pages.remote import Place, RemoteChunks, fetch_blob, places_in, several
from memd.pages.source_urls import open_source
from memd.pages.sources import Source, Target
from memd.pages.template import Template

if TYPE_CHECKING:
    from memd.pages.writer import Known, Writer

T = TypeVar("T")

log = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""A template's name: what a registry takes as a tag."""

MOST_CHANGES = 16
"""Templates that are stored or changed at once at most. One that awaits a machine's stream
takes descriptors, and up to 256 MiB."""

_AT_ONCE = 1 << 14
"""Pages of a working set that are held in memory at a time: 64 MiB."""

_GARBAGE = 4
"""A pack of which one part in so many is garbage is written anew."""


class _NotFound(QMPError):
    """There is no template of a name."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What `Store.verify` found.

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
    """What a template takes.

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
    """What a store holds.

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


class Store:
    """A template store. Its methods may be called in any thread.

    Args:
        directory: made, for its user alone, where it is missing.
        readonly: whether it is only read: by a further process of the memd that
            writes it.
        sources: URLs of where templates are that the store has not.
        cache_limit: bytes of fetched chunks that are kept, None for any number;
            of one that is only read, that of the process that writes it.

    Attributes:
        blobs: what it holds.
        cache: fetched chunks.
        sources: the URLs.

    Raises:
        QMPError: it is no store, of another user, or in use by another memd; or
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
        self.directory = os.path.abspath(directory)
        self.readonly = readonly
        self.blobs = Blobs(os.path.join(self.directory, "blobs"))
        self._names = os.path.join(self.directory, "names")
        self.unpacked = os.path.join(self.directory, "unpacked")
        self.cache = Cache(os.path.join(self.directory, "cache"), cache_limit)
        self.sources = tuple(sources)
        self._sources = {url: open_source(url) for url in sources}
        self._changing = threading.RLock()
        self._writing: set[str] = set()
        self._holds = 0
        self._postponed = False
        self._locating: dict[str, threading.Lock] = {}
        self._lock = -1
        self._counts: Counts | None = None
        try:
            self._open()
        except OSError as failed:
            self.close()
            raise self._unusable(failed.strerror or "") from None
        except BaseException:
            self.close()
            raise

    @property
    def on(self) -> frozenset[int]:
        """What a look at it may wait for; see `Job.on`. Other methods wait for sources, too."""
        from memd.hostmem.file_systems import of_paths

        return of_paths([self.directory])

    def close(self) -> None:
        """Leave it to others."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if self._counts is not None:
            self._counts.close()
            self._counts = None

    @property
    def counts(self) -> Counts:
        """Where chunks were read from, until the store is closed."""
        assert self._counts is not None
        return self._counts

    def _unusable(self, why: str) -> QMPError:
        return QMPError(f"cannot use '{self.directory}' as a template store: {why}")

    def _open(self) -> None:
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
        try:
            with open(marker, "rb") as file:
                if file.read(100) != FORMAT:
                    raise self._unusable("it is of another format than this memd's")
        except FileNotFoundError:
            if self.readonly or set(os.listdir(self.directory)) - {"lock", "lost+found"}:
                raise self._unusable("it is not empty, and not a template store") from None
            self._take_lock()
            files.replace(marker, FORMAT)
        counts = os.path.join(self.directory, "counts")
        if self.readonly:
            self._counts = Counts(counts, reset=False)
            self.cache.limit = self.cache.noted_limit()
            return
        self._take_lock()
        self._counts = Counts(counts, reset=True)
        self.blobs.make()
        os.makedirs(self._names, mode=0o700, exist_ok=True)
        os.makedirs(self.unpacked, mode=0o700, exist_ok=True)
        self.blobs.remove_unfinished()
        self.cache.make()
        boot = unpacked.boot_id()
        for other in os.listdir(self.unpacked):
            if other != boot:
                shutil.rmtree(os.path.join(self.unpacked, other))
        for name in os.listdir(self._names):
            if not NAME.fullmatch(name):
                files.remove(os.path.join(self._names, name))
        self.collect_garbage()

    def _take_lock(self) -> None:
        if self._lock >= 0:
            return
        path = os.path.join(self.directory, "lock")
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 20, 0).decode("ascii", "replace").strip()
            raise self._unusable(f"another memd uses it (process {holder})") from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)

    # What is there

    def names(self) -> list[str]:
        """The templates' names, sorted. Raises `OSError`."""
        return sorted(name for name in os.listdir(self._names) if NAME.fullmatch(name))

    def has(self, name: str) -> bool:
        """Whether there is a template of that name."""
        return bool(NAME.fullmatch(name)) and os.path.exists(os.path.join(self._names, name))

    def manifest(self, name: str) -> Manifest:
        """What a template is.

        Raises:
            QMPError: there is none, or its manifest is damaged.
        """
        return self._of(name, lambda entry: self._manifest(entry.version))

    def open(self, name: str) -> Template:
        """A template, to be read.

        Raises:
            QMPError: there is none, or it is damaged.
        """
        return self._of(name, lambda entry: self._open_template(name, entry))

    def _of(self, name: str, read: Callable[[Entry], T]) -> T:
        """What is read of a template, which may be changed meanwhile, and its garbage removed."""
        while True:
            entry = self._entry(name)
            try:
                return read(entry)
            except Damaged:
                if self._entry(name) == entry:
                    raise

    def _open_template(self, name: str, entry: Entry) -> Template:
        manifest = self._manifest(entry.version)
        layout = self._layout(manifest)
        remote = None
        if entry.origin is not None:
            remote = self._remote(name, layout, manifest.layout.digest, entry.origin)

        def places(known: str) -> tuple[str, Places] | None:
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
                manifest = self._manifest(origin.version)
                same = manifest.layout.digest == key
                theirs = layout if same else self._layout(manifest)
                found.append(places_in(layout, theirs, self._places(origin.version)))
            return found[0](number)

        return RemoteChunks(name, layout, places, source, self.cache, self.counts)

    def _source(self, url: str) -> Source:
        source = self._sources.get(url)
        if source is None:
            source = self._sources[url] = open_source(url)
        return source

    def _entry(self, name: str) -> Entry:
        """What a name leads to."""
        if not NAME.fullmatch(name):
            raise QMPError(f"'{name}' is no name of a template")
        try:
            with open(os.path.join(self._names, name), "rb") as file:
                return Entry.decode(file.read())
        except FileNotFoundError:
            raise _NotFound(f"template '{name}' not found") from None
        except OSError as failed:
            raise QMPError(f"cannot read template '{name}': {failed.strerror}") from None
        except ValueError:
            raise Damaged(f"template '{name}' is damaged") from None

    def _entries(self) -> Iterator[tuple[str, Entry]]:
        """What each name leads to; without those that are deleted meanwhile."""
        for name in self.names():
            try:
                entry = self._entry(name)
            except _NotFound:
                continue
            yield name, entry

    def _name(self, name: str, entry: Entry) -> None:
        files.replace(os.path.join(self._names, name), entry.encode())

    def _manifest(self, version: Version) -> Manifest:
        return Manifest.decode(self.blobs.get(version.manifest))

    def _layout(self, manifest: Manifest) -> Layout:
        return Layout.decode(self.blobs.get(manifest.layout.digest))

    def _places(self, version: Version) -> Places:
        return Places.decode(self.blobs.get(version.places))

    def _places_of(self, name: str, layout: str, known: str) -> tuple[str, Places] | None:
        """Where the chunks of a template are now, None if as known; nowhere, if it is gone."""
        for version in self._entry(name).versions:
            if self._manifest(version).layout.digest == layout:
                if version.places == known:
                    return None
                return version.places, self._places(version)
        return "", Places()

    def usage(self, name: str) -> Usage:
        """What a template takes.

        Raises:
            QMPError: there is none, or it or another one is damaged.
        """
        usage, mine = self._usage_and_places(name)
        others: set[Place] = set()
        for other in self.names():
            # One that is deleted meanwhile shares nothing.
            with suppress(_NotFound):
                others |= set() if other == name else self._usage_and_places(other)[1]
        shared = sum(length for _pack, _offset, length in mine & others)
        return replace(usage, shared=shared)

    def all_usage(self) -> list[Usage]:
        """What every template takes, without what they share; damaged ones are left out."""
        found = []
        for name in self.names():
            try:
                found.append(self._usage_and_places(name)[0])
            except _NotFound:
                # It is deleted meanwhile.
                continue
            except QMPError as error:
                log.error("template %s: %s", name, error.desc)
        return found

    def holdings(self) -> Holdings:
        """What it holds.

        Raises:
            QMPError: that can't be read.
        """
        try:
            return Holdings(
                len(self.names()), self.blobs.taken(), self.cache.taken(), self.counts.read()
            )
        except OSError as failed:
            raise self._unusable(failed.strerror or "") from None

    def _usage_and_places(self, name: str) -> tuple[Usage, set[Place]]:
        def read(entry: Entry) -> tuple[Usage, set[Place]]:
            places = self._places(entry.version)
            here = [self.blobs.has(pack) for pack in places.packs]
            each = zip(places.pack, places.length, strict=True)
            usage = Usage(
                name=name,
                manifest=self._manifest(entry.version),
                chunks=len(places),
                stored=sum(places.length),
                shared=0,
                present=sum(length for pack, length in each if here[pack]),
                source=entry.origin.url if entry.origin else "",
            )
            return usage, set(_all_places(places))

        return self._of(name, read)

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

        self._writable()
        if not NAME.fullmatch(name):
            raise QMPError(
                f"'{name}' is no name of a template: up to 128 letters, digits, '.', '_' and '-',"
                " beginning with a letter, a digit or '_'"
            )
        with self._changing:
            if name in self._writing or self.has(name):
                raise QMPError(f"template '{name}' exists already")
            if len(self._writing) >= MOST_CHANGES:
                raise QMPError(f"{MOST_CHANGES} templates are being changed; no more are")
            # No garbage is collected from here on, so that what is known stays.
            self._writing.add(name)
        like = None
        try:
            like = None if base is None else self.open(base)
            known = self._known()
        except BaseException as failed:
            self._end_writing(name)
            if isinstance(failed, OSError):
                raise QMPError(f"cannot store template '{name}': {failed.strerror}") from None
            raise

        def commit(manifest: Manifest, places: Places) -> None:
            self._commit(name, manifest, places, Entry([]))

        return Writer(name, self.blobs, known, like, commit, lambda: self._end_writing(name))

    @contextmanager
    def _change(self, name: str, what: str) -> Iterator[None]:
        """Nobody else changes a template, and no garbage is collected, meanwhile.

        Args:
            name: the template's.
            what: what is done, for the error where the file system fails.

        Raises:
            QMPError: it is being changed, or that fails.
        """
        with self._changing:
            if name in self._writing:
                raise QMPError(f"template '{name}' is being changed")
            self._writing.add(name)
        try:
            yield
        except OSError as failed:
            raise QMPError(f"cannot {what} template '{name}': {failed.strerror}") from None
        finally:
            self._end_writing(name)

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

    def _writable(self) -> None:
        if self.readonly:
            raise QMPError("the template store is only read by this process")

    def _end_writing(self, name: str) -> None:
        with self._changing:
            self._writing.discard(name)
            self._try_collecting()

    def _commit(self, name: str, manifest: Manifest, places: Places, before: Entry) -> None:
        blobs = [self.blobs.put(each.encode()) for each in (manifest, places)]
        version = Version(*(blob.digest for blob in blobs))
        with self._changing:
            self._name(name, replace(before, versions=[version, *before.versions]))

    def _known(self) -> Known:
        """The chunks that the store has."""
        known: Known = {}
        for _name, entry in self._entries():
            for version in entry.versions:
                layout, places = self._layout(self._manifest(version)), self._places(version)
                there = [self.blobs.has(pack) for pack in places.packs]
                for number in range(len(layout)):
                    if there[places.pack[number]]:
                        known.setdefault(layout.digest(number), places.place(number))
        return known

    def delete(self, name: str) -> None:
        """Remove a template, and what no other one needs of it.

        Raises:
            QMPError: there is none, it is in use, or it can't be removed.
        """
        self._writable()
        with self._changing:
            if not self.has(name):
                self._entry(name)
            if name in self._writing:
                raise QMPError(f"template '{name}' is being changed")
            try:
                if self._in_use(name):
                    raise QMPError(f"template '{name}' is in use")
                os.unlink(os.path.join(self._names, name))
                files.sync_directory(self._names)
            except OSError as failed:
                raise QMPError(f"cannot delete template '{name}': {failed.strerror}") from None
            self._try_collecting()

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
            return {self._manifest(each).unpacked for each in self._entry(name).versions}
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

        self._writable()
        with self._change(name, "change"):
            entry = self._entry(name)
            template = self.open(name)
            layout, wanted = template.layout, array("I")
            hot: set[int] = set()
            for page in pages:
                if (
                    0 <= page < layout.pages
                    and page not in hot
                    and not template.is_zero(page * PAGE)
                ):
                    hot.add(page)
                    wanted.append(page)
            with Chunks(self.blobs, self._known()) as chunks:
                for part, data in _parts(template, wanted):
                    stored = chunks.add(chunks.record(data), len(part))
                    for slot, page in enumerate(part):
                        chunks.run(page, 1, stored + slot)
                chunks.close_pack()
                for piece in _without(layout, hot):
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

    def verify(self, name: str, progress: Callable[[int, int], None] | None = None) -> Verified:
        """Read all of a template as it is stored.

        Args:
            name: the template.
            progress: told how many bytes were read, of how many.

        Raises:
            QMPError: there is none, or what is damaged is more than chunks.
        """
        with self._without_collecting():
            return self._verify(name, self._entry(name), progress)

    def _verify(
        self, name: str, entry: Entry, progress: Callable[[int, int], None] | None
    ) -> Verified:
        manifest = self._manifest(entry.version)
        for blob in manifest.blobs:
            self.blobs.get(blob.digest)
        layout, places = self._layout(manifest), self._places(entry.version)
        layout.check()
        damaged: dict[int, str] = {}
        for number in range(len(layout)):
            pack = places.place(number)[0]
            # What was not fetched yet is not damaged.
            if (entry.origin is None or self.blobs.has(pack)) and not self._good(
                layout, places, number
            ):
                damaged[number] = pack
            if progress is not None:
                progress(layout.ends[number] * PAGE, layout.ends[-1] * PAGE)
        found = len(damaged)
        if damaged and entry.origin is not None and not self.readonly:
            self._repair(name, entry.origin, set(damaged.values()))
            damaged = {
                number: pack
                for number, pack in damaged.items()
                if not self._good(layout, places, number)
            }
        left = [layout.digest(number).hex() for number in damaged]
        return Verified(len(layout), left, found - len(left))

    def _good(self, layout: Layout, places: Places, number: int) -> bool:
        try:
            record = self.blobs.read_at(*places.place(number))
            unpack(record, layout.counts[number] * PAGE, layout.digest(number))
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
            self._entry(name)
            return
        with self._changing:
            locating = self._locating.setdefault(name, threading.Lock())
        # Several that want it at once wait for the first.
        with locating:
            if not self.has(name):
                self._locate(name)

    def _locate(self, name: str) -> None:
        if not NAME.fullmatch(name):
            self._entry(name)
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

    def pull(
        self, name: str, url: str | None = None, progress: Callable[[int, int], None] | None = None
    ) -> str:
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
        self._writable()
        source = self._source(self._chosen(url))
        if not NAME.fullmatch(name):
            raise QMPError(f"'{name}' is no name of a template")
        version = source.find(name)
        if version is None:
            raise QMPError(f"template '{name}' is not at '{source.url}'")
        if self.has(name):
            entry = self._entry(name)
            if entry.origin is None and entry.version.manifest != version.manifest:
                raise QMPError(f"template '{name}' exists already, and is another one")

        def packs(places: Places) -> None:
            ends: dict[str, int] = {}
            for pack, offset, length in _all_places(places):
                if not self.blobs.has(pack):
                    ends[pack] = max(ends.get(pack, 0), offset + length)
            count = _Count(sum(ends.values()), progress)
            several(
                lambda pack: fetch_blob(source, self.blobs, pack, progress=count.more), list(ends)
            )

        self._fetch(name, source, version, packs)
        return source.url

    def _chosen(self, url: str | None) -> str:
        if not self.sources:
            raise QMPError("there is no template source", hint="--template-source names one.")
        if url is not None and url not in self.sources:
            raise QMPError(f"'{url}' is none of the template sources")
        return url or self.sources[0]

    def _fetch(
        self,
        name: str,
        source: Source,
        version: Version,
        fetch_packs: Callable[[Places], None],
    ) -> None:
        """Take what is said of a template over from a source, and give it the name."""
        self._writable()
        with self._change(name, "store"):
            fetch_blob(source, self.blobs, version.manifest, MOST_MANIFEST)
            manifest = self._manifest(version)
            for blob in manifest.blobs:
                fetch_blob(source, self.blobs, blob.digest, blob.size)
            layout = self._layout(manifest)
            layout.check()
            fetch_blob(source, self.blobs, version.places, Places.most_bytes(len(layout)))
            places = self._places(version)
            if layout.pages * PAGE != manifest.size or not places.fit(layout):
                raise Damaged(f"template '{name}' of '{source.url}' is damaged")
            fetch_packs(places)
            former = [
                each
                for each in (self._entry(name).versions if self.has(name) else [])
                if each.manifest != version.manifest
            ]
            with self._changing:
                self._name(name, Entry([version, *former], Origin(source.url, version)))

    def push(
        self, name: str, url: str | None = None, progress: Callable[[int, int], None] | None = None
    ) -> str:
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
        self._writable()
        source = self._source(self._chosen(url))
        if not isinstance(source, Target):
            raise QMPError(f"'{source.url}' can only be read from")
        with self._change(name, "push"):
            entry = self._entry(name)
            manifest, places = self._manifest(entry.version), self._places(entry.version)
            kinds = {
                entry.version.manifest: "config",
                entry.version.places: "places",
                manifest.layout.digest: "layout",
            }
            if manifest.devices is not None:
                kinds[manifest.devices.digest] = "devices"
            if manifest.working_set is not None:
                kinds[manifest.working_set.digest] = "working-set"
            kinds |= dict.fromkeys(places.packs, "chunks")
            blobs = []
            for digest, kind in kinds.items():
                if not self.blobs.has(digest):
                    raise QMPError(f"template '{name}' is not here in full", hint="Pull it before.")
                blobs.append((kind, digest, self.blobs.size(digest)))
            missing = [each for each in blobs if not source.has(each[1])]
            count = _Count(sum(size for _kind, _digest, size in missing), progress)

            def upload(blob: tuple[str, str, int]) -> None:
                source.upload(blob[1], self.blobs.path(blob[1]), count.more)

            several(upload, missing)
            source.name(name, entry.version, blobs)
            with self._changing:
                self._name(name, replace(entry, origin=Origin(source.url, entry.version)))
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
                live = self._live()
            except (Damaged, QMPError) as damaged:
                # What belongs to it can't be told from garbage.
                log.error("the template store's garbage is not collected: %s", damaged.desc)
                return
            for digest in self.blobs.digests():
                if digest not in live:
                    self.blobs.remove(digest)
            if self.cache.taken():
                self.cache.keep_only(self._chunks_of_all())

    def _chunks_of_all(self) -> set[bytes]:
        layouts = (
            self._layout(self._manifest(version))
            for _name, entry in self._entries()
            for version in entry.versions
        )
        return {layout.digest(number) for layout in layouts for number in range(len(layout))}

    def _live(self) -> set[str]:
        """The blobs that names lead to, after packs with much garbage were written anew."""
        live: set[str] = set()
        records: dict[str, set[tuple[int, int]]] = {}
        entries: dict[str, Entry] = {}
        for name, found in self._entries():
            entry = entries[name] = self._without_unused(name, found)
            for version in entry.versions:
                for pack, offset, length in _all_places(self._places(version)):
                    records.setdefault(pack, set()).add((offset, length))
        moved = self._rewrite(
            {
                pack: sorted(there)
                for pack, there in records.items()
                if self.blobs.has(pack)
                and sum(length for _offset, length in there)
                <= self.blobs.size(pack) * (_GARBAGE - 1) // _GARBAGE
            }
        )
        for name, entry in entries.items():
            versions = [self._moved(version, moved) for version in entry.versions]
            if versions != entry.versions:
                self._name(name, replace(entry, versions=versions))
            for version in (*versions, *([entry.origin.version] if entry.origin else [])):
                live |= {version.manifest, version.places, *self._places(version).packs}
                live |= {blob.digest for blob in self._manifest(version).blobs}
        return live

    def _moved(self, version: Version, moved: dict[Place, Place]) -> Version:
        places = self._places(version)
        if not any(place in moved for place in _all_places(places)):
            return version
        changed = Places()
        for place in _all_places(places):
            changed.add(*moved.get(place, place))
        return replace(version, places=self.blobs.put(changed.encode()).digest)

    def _without_unused(self, name: str, entry: Entry) -> Entry:
        """What a name leads to, without former versions that nobody uses any more."""
        used = [entry.version]
        for version in entry.versions[1:]:
            if not unpacked.drop(self.unpacked, self._manifest(version).unpacked):
                used.append(version)
        if len(used) < len(entry.versions):
            entry = replace(entry, versions=used)
            self._name(name, entry)
        return entry

    def _rewrite(self, packs: dict[str, list[tuple[int, int]]]) -> dict[Place, Place]:
        """Write what is used of packs into a new one each; where every record went."""
        moved: dict[Place, Place] = {}
        for pack, records in packs.items():
            with self.blobs.create() as new:
                at = [
                    (new.write(self.blobs.read_at(pack, offset, length)), offset, length)
                    for offset, length in records
                ]
                digest = new.finish()
            moved |= {(pack, offset, size): (digest, to, size) for to, offset, size in at}
        return moved


class _Count:
    """Bytes that threads have moved, of how many."""

    def __init__(self, all: int, progress: Callable[[int, int], None] | None) -> None:
        self._all = all
        self._done = 0
        self._lock = threading.Lock()
        self._progress = progress

    def more(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._progress is not None:
                self._progress(self._done, self._all)


def _all_places(places: Places) -> Iterator[Place]:
    return (places.place(number) for number in range(len(places)))


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
