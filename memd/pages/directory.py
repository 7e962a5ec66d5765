"""A directory as a source: another template store, which any file server can serve as well."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from memd.errors import refusing
from memd.pages.blobs import Blobs, replace
from memd.pages.names import Entry, Version
from memd.pages.sources import SourceError, Target

FORMAT = b"memd templates 1\n"
"""The content of the file that marks a directory as a template store."""

MOST_NAME = 1 << 20
"""Bytes of what a source says of a name at most."""

PIECE = 1 << 20
"""Bytes of a blob that are read at once."""


class Directory(Target):
    """The source `file:PATH`.

    Args:
        url: as it was given.
        path: the directory.
    """

    def __init__(self, url: str, path: str) -> None:
        self.url = url
        self.path = path
        self._blobs = Blobs(os.path.join(path, "blobs"))

    def find(self, name: str) -> Version | None:
        with self._failures():
            try:
                with open(os.path.join(self.path, "names", name), "rb") as file:
                    return read_name(self.url, name, file.read(MOST_NAME))
            except FileNotFoundError:
                self.check()
                return None

    def part(self, digest: str, offset: int, length: int) -> bytes:
        with self._failures():
            data = self._blobs.read_at(digest, offset, length)
        if len(data) != length:
            raise SourceError(f"template source '{self.url}': blob {digest} is cut short")
        return data

    @contextmanager
    def blob(self, digest: str) -> Iterator[Iterator[bytes]]:
        with self._failures(), open(self._blobs.path(digest), "rb") as file:
            yield iter(lambda: file.read(PIECE), b"")

    def check(self) -> None:
        with self._failures():
            os.listdir(os.path.join(self.path, "names"))

    def has(self, digest: str) -> bool:
        return self._blobs.has(digest)

    def upload(self, digest: str, path: str, progress: Callable[[int], None]) -> None:
        with self._failures():
            self._make()
            with self._blobs.create() as new:
                with open(path, "rb") as file:
                    while piece := file.read(PIECE):
                        new.write(piece)
                        progress(len(piece))
                if new.digest() != digest:
                    raise SourceError(f"blob {digest} is damaged here")
                new.finish()

    def name(self, name: str, version: Version, blobs: list[tuple[str, str, int]]) -> None:
        if not all(self.has(digest) for _kind, digest, _size in blobs):
            raise SourceError(f"template source '{self.url}': a blob is gone again")
        with self._failures():
            replace(os.path.join(self.path, "names", name), Entry([version]).encode())

    def _make(self) -> None:
        """See that it is a store, so that it can be used as one too."""
        for part in ("blobs", "names"):
            os.makedirs(os.path.join(self.path, part), mode=0o700, exist_ok=True)
        marker = os.path.join(self.path, "format")
        if not os.path.exists(marker):
            replace(marker, FORMAT)

    def _failures(self) -> AbstractContextManager[None]:
        """Have an `OSError` raised as a `SourceError`."""
        return refusing(f"template source '{self.url}'", SourceError)


def read_name(url: str, name: str, data: bytes) -> Version:
    """The present version that a file below names/ names.

    Raises:
        SourceError: nothing that can be read.
    """
    try:
        return Entry.decode(data).version
    except ValueError:
        raise SourceError(
            f"template source '{url}': what it says of '{name}' can't be read"
        ) from None
