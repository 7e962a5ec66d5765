"""The template store: a directory that one memd writes, and any of its processes read.

    format          which format this is
    lock            held by the memd that writes
    names/NAME      which manifest has that name, and where its chunks are
    blobs/DIGEST    manifests, layouts, device streams, packs of chunks
    unpacked/       templates that are in use, unpacked

A template is there once its file in names/ is. Whatever no name leads to is
garbage: what a crash left, and what was deleted.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
import stat
import sys
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from memd.errors import QMPError
from memd.pages import blobs as files
from memd.pages import unpacked
from memd.pages.blobs import DIGEST, Blobs, Damaged
from memd.pages.chunks import PAGE, unpack
from memd.pages.layout import Layout, Piece, Places, PlacesBuilder
from memd.pages.manifest import Blob, Manifest
from memd.pages.template import Template
from memd.pages.writer import Chunks, Known, Writer

log = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""A template's name: what a registry takes as a tag."""

_FORMAT = b"memd templates 1\n"

_SET_PAGES = 64
"""Pages of a chunk of the working set, which is fetched in its order."""

_GARBAGE = 4
"""A pack of which one part in so many is garbage is written anew."""


@dataclass(frozen=True, slots=True)
class Version:
    """What a name leads to, or led to while that is in use.

    Attributes:
        manifest: its digest.
        places: the digest of its chunks' places.
    """

    manifest: str
    places: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What `Store.verify` found.

    Attributes:
        chunks: how many were read.
        damaged: digests of those that are, in hexadecimal digits.
    """

    chunks: int
    damaged: list[str]


@dataclass(frozen=True, slots=True)
class Usage:
    """What a template takes.

    Attributes:
        manifest: what it is.
        chunks: how many it has.
        stored: bytes of their records in the store.
        shared: bytes of these that other templates have as well.
    """

    manifest: Manifest
    chunks: int
    stored: int
    shared: int


class Store:
    """A template store. Its methods may be called in any thread.

    Args:
        directory: made, for its user alone, where it is missing.
        readonly: whether it is only read: by a further process of the memd that
            writes it.

    Raises:
        QMPError: it is no store, of another user, or in use by another memd.
    """

    def __init__(self, directory: str, *, readonly: bool = False) -> None:
        self.directory = os.path.abspath(directory)
        self.readonly = readonly
        self.blobs = Blobs(os.path.join(self.directory, "blobs"))
        self._names = os.path.join(self.directory, "names")
        self.unpacked = os.path.join(self.directory, "unpacked")
        self._changing = threading.RLock()
        self._writing: set[str] = set()
        self._lock = -1
        try:
            self._open()
        except OSError as failed:
            self.close()
            raise self._unusable(failed.strerror or "") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Leave it to others."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

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
                if file.read(100) != _FORMAT:
                    raise self._unusable("it is of another format than this memd's")
        except FileNotFoundError:
            if self.readonly or set(os.listdir(self.directory)) - {"lock", "lost+found"}:
                raise self._unusable("it is not empty, and not a template store") from None
            self._take_lock()
            files.replace(marker, _FORMAT)
        if self.readonly:
            return
        self._take_lock()
        self.blobs.make()
        os.makedirs(self._names, mode=0o700, exist_ok=True)
        os.makedirs(self.unpacked, mode=0o700, exist_ok=True)
        self.blobs.remove_unfinished()
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
        return self._manifest(self._versions(name)[0])

    def open(self, name: str) -> Template:
        """A template, to be read.

        Raises:
            QMPError: there is none, or it is damaged.
        """
        manifest = self.manifest(name)
        return Template(
            name,
            manifest,
            self.blobs,
            lambda: self._places_of(name, manifest.layout.digest),
            self.unpacked,
        )

    def _versions(self, name: str) -> list[Version]:
        """What a name leads to: the present template, then those that are in use still."""
        if not NAME.fullmatch(name):
            raise QMPError(f"'{name}' is no name of a template")
        try:
            with open(os.path.join(self._names, name), "rb") as file:
                told = json.load(file)
            versions = [Version(**each) for each in told["versions"]]
        except FileNotFoundError:
            raise QMPError(f"template '{name}' not found") from None
        except OSError as failed:
            raise QMPError(f"cannot read template '{name}': {failed.strerror}") from None
        except (ValueError, TypeError, KeyError):
            raise Damaged(f"template '{name}' is damaged") from None
        if not versions or not all(
            DIGEST.fullmatch(digest)
            for version in versions
            for digest in (version.manifest, version.places)
        ):
            raise Damaged(f"template '{name}' is damaged")
        return versions

    def _name(self, name: str, versions: list[Version]) -> None:
        told = [{"manifest": each.manifest, "places": each.places} for each in versions]
        data = json.dumps({"versions": told}).encode() + b"\n"
        files.replace(os.path.join(self._names, name), data)

    def _manifest(self, version: Version) -> Manifest:
        return Manifest.decode(self.blobs.get(version.manifest))

    def _layout(self, manifest: Manifest) -> Layout:
        return Layout.decode(self.blobs.get(manifest.layout.digest))

    def _places(self, version: Version) -> Places:
        return Places.decode(self.blobs.get(version.places))

    def _places_of(self, name: str, layout: str) -> Places:
        """Where the chunks of a template are now; nowhere, if it is gone."""
        for version in self._versions(name):
            if self._manifest(version).layout.digest == layout:
                return self._places(version)
        return Places()

    def usage(self, name: str) -> Usage:
        """What a template takes.

        Raises:
            QMPError: there is none, or it or another one is damaged.
            OSError: the store can't be read.
        """
        version = self._versions(name)[0]
        manifest = self._manifest(version)
        places = self._places(version)
        mine = {places.place(number) for number in range(len(places))}
        others = {
            place
            for other in self.names()
            if other != name
            for place in _all_places(self._places(self._versions(other)[0]))
        }
        stored = sum(length for _pack, _offset, length in mine)
        shared = sum(length for _pack, _offset, length in mine & others)
        return Usage(manifest, len(places), stored, shared)

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
        self._writable()
        if not NAME.fullmatch(name):
            raise QMPError(
                f"'{name}' is no name of a template: up to 128 letters, digits, '.', '_' and '-',"
                " beginning with a letter, a digit or '_'"
            )
        with self._changing:
            if name in self._writing or self.has(name):
                raise QMPError(f"template '{name}' exists already")
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
            self._commit(name, manifest, places)

        return Writer(name, self.blobs, known, like, commit, lambda: self._end_writing(name))

    def _writable(self) -> None:
        if self.readonly:
            raise QMPError("the template store is only read by this process")

    def _end_writing(self, name: str) -> None:
        with self._changing:
            self._writing.discard(name)
            self._try_collecting()

    def _commit(
        self, name: str, manifest: Manifest, places: Places, before: list[Version] | None = None
    ) -> None:
        version = Version(self.blobs.put(manifest.encode()), self.blobs.put(places.encode()))
        with self._changing:
            self._name(name, [version, *(before or [])])

    def _known(self) -> Known:
        """The chunks that the store has."""
        known: Known = {}
        for name in self.names():
            for version in self._versions(name):
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
                self._versions(name)
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
        try:
            layouts = {self._manifest(each).layout.digest for each in self._versions(name)}
        except Damaged:
            return False
        elsewhere = set()
        for other in self.names():
            if other != name:
                try:
                    versions = self._versions(other)
                    elsewhere |= {self._manifest(each).layout.digest for each in versions}
                except Damaged:
                    continue
        mine = layouts - elsewhere
        return not all(unpacked.drop(self.unpacked, key) for key in mine)

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
        self._writable()
        with self._changing:
            if name in self._writing:
                raise QMPError(f"template '{name}' is being changed")
            self._writing.add(name)
        chunks = None
        try:
            versions = self._versions(name)
            template = self.open(name)
            chunks = Chunks(self.blobs, self._known())
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
            for at in range(0, len(wanted), _SET_PAGES):
                part = wanted[at : at + _SET_PAGES]
                record = chunks.record(b"".join(template.read(page * PAGE, PAGE) for page in part))
                stored = chunks.add(record, len(part))
                for slot, page in enumerate(part):
                    chunks.run(page, 1, stored + slot)
            chunks.close_pack()
            for piece in _without(layout, hot):
                chunks.add_of(template, piece)
            changed, places = chunks.finish(layout.pages)
            manifest = replace(
                template.manifest,
                layout=self._put(changed.encode()),
                working_set=self._put(_little_endian(wanted)),
            )
            key = template.manifest.layout.digest
            unpacked.share(self.unpacked, key, manifest.layout.digest)
            self._commit(name, manifest, places, versions)
        except OSError as failed:
            raise QMPError(f"cannot change template '{name}': {failed.strerror}") from None
        finally:
            if chunks is not None:
                chunks.discard()
            self._end_writing(name)
        return manifest

    def _put(self, data: bytes) -> Blob:
        return Blob(self.blobs.put(data), len(data))

    def verify(self, name: str, progress: Callable[[int], None] | None = None) -> Verified:
        """Read all of a template as it is stored.

        Args:
            name: the template.
            progress: told how many chunks were read.

        Raises:
            QMPError: there is none, or what is damaged is more than chunks.
        """
        version = self._versions(name)[0]
        manifest = self._manifest(version)
        for blob in manifest.blobs:
            self.blobs.get(blob.digest)
        layout, places = self._layout(manifest), self._places(version)
        layout.check()
        damaged = []
        for number in range(len(layout)):
            try:
                pack, offset, size = places.place(number)
                record = self.blobs.read_at(pack, offset, size)
                unpack(record, layout.counts[number] * PAGE, layout.digest(number))
            except (Damaged, OSError, IndexError):
                damaged.append(layout.digest(number).hex())
            if progress is not None:
                progress(number + 1)
        return Verified(len(layout), damaged)

    # Garbage

    def _try_collecting(self) -> None:
        try:
            self.collect_garbage()
        except OSError as failed:
            log.warning("cannot collect the template store's garbage: %s", failed.strerror)

    def collect_garbage(self) -> None:
        """Remove what no name leads to; later, if a template is being stored. Raises `OSError`."""
        with self._changing:
            if self._writing:
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

    def _live(self) -> set[str]:
        """The blobs that names lead to, after packs with much garbage were written anew."""
        live: set[str] = set()
        records: dict[str, set[tuple[int, int]]] = {}
        named: dict[str, list[tuple[Version, Manifest, Places]]] = {}
        for name in self.names():
            versions = self._versions(name)
            if len(versions) > 1 and not self._used(versions[0]):
                for version in versions[1:]:
                    unpacked.drop(self.unpacked, self._manifest(version).layout.digest)
                versions = versions[:1]
                self._name(name, versions)
            for version in versions:
                manifest, places = self._manifest(version), self._places(version)
                named.setdefault(name, []).append((version, manifest, places))
                for pack, offset, length in _all_places(places):
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
        for name, entries in named.items():
            versions = []
            for version, manifest, places in entries:
                if moved and any(place in moved for place in _all_places(places)):
                    builder = PlacesBuilder()
                    for place in _all_places(places):
                        builder.add(*moved.get(place, place))
                    places = builder.places
                    version = replace(version, places=self.blobs.put(places.encode()))
                versions.append(version)
                live |= {version.manifest, version.places, *places.packs}
                live |= {blob.digest for blob in manifest.blobs}
            if versions != [version for version, _manifest, _places in entries]:
                self._name(name, versions)
        return live

    def _used(self, version: Version) -> bool:
        """Whether a process uses this version, or a former one, whose copy is the same file."""
        return unpacked.in_use(self.unpacked, self._manifest(version).layout.digest)

    def _rewrite(
        self, packs: dict[str, list[tuple[int, int]]]
    ) -> dict[tuple[str, int, int], tuple[str, int, int]]:
        """Write what is used of packs into a new one each; where every record went."""
        moved: dict[tuple[str, int, int], tuple[str, int, int]] = {}
        for pack, records in packs.items():
            new = self.blobs.create()
            try:
                at = [
                    (new.write(self.blobs.read_at(pack, offset, length)), offset, length)
                    for offset, length in records
                ]
                digest = new.finish()
            finally:
                new.discard()
            moved |= {(pack, offset, size): (digest, to, size) for to, offset, size in at}
        return moved


def _all_places(places: Places) -> Iterator[tuple[str, int, int]]:
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


def _little_endian(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers = array(numbers.typecode, numbers)
        numbers.byteswap()
    return numbers.tobytes()
