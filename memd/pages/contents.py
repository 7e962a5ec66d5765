"""The contents of a store: names, the versions that they lead to, and the blobs of these."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from memd.errors import QMPError
from memd.pages import blobs as files
from memd.pages.blobs import Blobs, Damaged
from memd.pages.layout import ChunkPlaces, Layout
from memd.pages.manifest import Manifest
from memd.pages.names import Entry, Version

T = TypeVar("T")

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
"""A template's name: what a registry takes as a tag."""


class NotFound(QMPError):
    """There is no template of a name."""


def check(name: str) -> None:
    """Raise `QMPError` where that is not a template's name."""
    if not NAME.fullmatch(name):
        raise QMPError(
            f"'{name}' is not a name of a template: up to 128 letters, digits, '.', '_' and '-',"
            " beginning with a letter, a digit or '_'"
        )


class Contents:
    """A directory with names/ and blobs/. Its methods may be called in any thread.

    Args:
        directory: its path.

    Attributes:
        blobs: all that it holds.
    """

    def __init__(self, directory: str) -> None:
        self.directory = os.path.abspath(directory)
        self.blobs = Blobs(os.path.join(self.directory, "blobs"))
        self._names = os.path.join(self.directory, "names")

    def _path(self, name: str) -> str:
        return os.path.join(self._names, name)

    def make(self) -> None:
        """Make what is missing of it, and remove what a crash left. Raises `OSError`."""
        self.blobs.make()
        os.makedirs(self._names, mode=0o700, exist_ok=True)
        self.blobs.remove_unfinished()
        for name in os.listdir(self._names):
            if not NAME.fullmatch(name):
                files.remove(self._path(name))

    def names(self) -> list[str]:
        """The templates' names, sorted. Raises `OSError`."""
        return sorted(name for name in os.listdir(self._names) if NAME.fullmatch(name))

    def has(self, name: str) -> bool:
        """Whether there is a template of that name."""
        return bool(NAME.fullmatch(name)) and os.path.exists(self._path(name))

    def entry(self, name: str) -> Entry:
        """The versions that a name leads to.

        Raises:
            QMPError: to nothing, or that can't be told.
        """
        check(name)
        try:
            with open(self._path(name), "rb") as file:
                return Entry.decode(file.read())
        except FileNotFoundError:
            raise NotFound(f"template '{name}' not found") from None
        except OSError as failed:
            raise QMPError(f"cannot read template '{name}': {failed.strerror}") from None
        except ValueError:
            raise Damaged(f"template '{name}' is damaged") from None

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Every name and its versions; without those that are deleted meanwhile."""
        for name in self.names():
            try:
                entry = self.entry(name)
            except NotFound:
                continue
            yield name, entry

    def write(self, name: str, entry: Entry) -> None:
        """Let a name lead to that. Raises `OSError`."""
        files.replace(self._path(name), entry.encode())

    def unname(self, name: str) -> None:
        """Remove a name. Raises `OSError`."""
        os.unlink(self._path(name))
        files.sync_directory(self._names)

    def manifest_of(self, version: Version) -> Manifest:
        """A version's manifest; raises `Damaged`."""
        return Manifest.decode(self.blobs.get(version.manifest))

    def layout_of(self, manifest: Manifest) -> Layout:
        """Its layout; raises `Damaged`."""
        return Layout.decode(self.blobs.get(manifest.layout.digest))

    def places_of(self, version: Version) -> ChunkPlaces:
        """Where a version's chunks are; raises `Damaged`."""
        return ChunkPlaces.decode(self.blobs.get(version.places))

    def of(self, name: str, read: Callable[[Entry], T]) -> T:
        """The result of reading a template, which is read again where it is changed meanwhile."""
        while True:
            entry = self.entry(name)
            try:
                return read(entry)
            except Damaged:
                if self.entry(name) == entry:
                    raise
