"""The cache of fetched chunks; the least recently used are removed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from memd.pages.blobs import DIGEST, remove, replace

_KEEP = 7, 8
"""The part of the limit that is left once it was reached."""


class Cache:
    """A directory of records, shared by the processes of a memd.

    What a crash tears is found out when it is unpacked, and fetched anew.

    Args:
        directory: of the records.
        limit: bytes that they may have together, None for any number.
    """

    def __init__(self, directory: str, limit: int | None) -> None:
        self.directory = directory
        self.limit = limit
        self._total = os.path.join(directory, "total")
        self._noted = os.path.join(directory, "limit")

    def make(self) -> None:
        """Make the directory where it is missing, and see what is in it; raises `OSError`."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        with self._locked() as total:
            for name in os.listdir(self.directory):
                if name not in ("total", "limit") and not DIGEST.fullmatch(name):
                    remove(os.path.join(self.directory, name))
            replace(self._noted, b"" if self.limit is None else b"%d" % self.limit)
            _set(total, self._trim(sum(size for _used, size, _path in self._records())))

    def noted_limit(self) -> int | None:
        """The limit that `make` was called with. Raises `OSError`."""
        with open(self._noted, "rb") as file:
            text = file.read()
        return int(text) if text else None

    def _path(self, digest: bytes) -> str:
        return os.path.join(self.directory, digest.hex())

    def get(self, digest: bytes) -> bytes | None:
        """The record of a chunk, None where it is not kept."""
        path = self._path(digest)
        try:
            with open(path, "rb") as file:
                record = file.read()
            os.utime(path)
        except OSError:
            return None
        return record

    def has(self, digest: bytes) -> bool:
        """Whether there is a record of a chunk."""
        return os.path.exists(self._path(digest))

    def put(self, digest: bytes, record: bytes) -> None:
        """Keep a record, in the place of others if need be. Raises `OSError`."""
        if self.limit is not None and len(record) > self.limit:
            return
        path = self._path(digest)
        with self._locked() as total:
            taken = self._trim(int(os.pread(total, 20, 0) or b"0"), len(record))
            try:
                replaced = os.stat(path).st_size
            except FileNotFoundError:
                replaced = 0
            replace(path, record, sync=False)
            _set(total, taken + len(record) - replaced)

    def keep_only(self, digests: set[bytes]) -> None:
        """Remove what belongs to no template any more. Raises `OSError`."""
        with self._locked() as total:
            left = 0
            for _used, size, path in self._records():
                if bytes.fromhex(os.path.basename(path)) in digests:
                    left += size
                else:
                    remove(path)
            _set(total, left)

    def taken(self) -> int:
        """Bytes of what is kept. Raises `OSError`."""
        with self._locked() as total:
            return int(os.pread(total, 20, 0) or b"0")

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file with the sum, locked against other threads and processes."""
        fd = os.open(self._total, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)

    def _trim(self, taken: int, more: int = 0) -> int:
        """Remove chunks, if so many bytes more do not fit; returns the bytes taken then."""
        if self.limit is None or taken + more <= self.limit:
            return taken
        left = list(self._records())
        taken = sum(size for _used, size, _path in left)
        goal = min(self.limit * _KEEP[0] // _KEEP[1], self.limit - more)
        for _used, size, path in sorted(left):
            if taken <= goal:
                break
            remove(path)
            taken -= size
        return taken

    def _records(self) -> Iterator[tuple[int, int, str]]:
        """Every record: when it was used, its size and its path."""
        with os.scandir(self.directory) as entries:
            for entry in entries:
                if DIGEST.fullmatch(entry.name):
                    there = entry.stat()
                    yield there.st_mtime_ns, there.st_size, entry.path


def _set(total: int, taken: int) -> None:
    os.ftruncate(total, 0)
    os.pwrite(total, b"%d" % taken, 0)
