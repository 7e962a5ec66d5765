"""Files named by the SHA-256 of what they hold: each is there whole, or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256

from memd.errors import QMPError, refusing
from memd.hostmem.libc import write_at

DIGEST = re.compile(r"[0-9a-f]{64}")
"""How a digest is written: SHA-256 in lower-case hexadecimal digits."""

_NEW = "new."
"""Begins the name of a file that is still being written."""


class Damaged(QMPError):
    """Something is not what its digest says, or is missing."""


@dataclass(frozen=True, slots=True)
class Blob:
    """One of them.

    Attributes:
        digest: its name.
        size: in bytes.
    """

    digest: str
    size: int


class Blobs:
    """A directory of such files.

    Args:
        directory: its path; made by `make`.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def make(self) -> None:
        """Make the directory where it is missing; raises `OSError`."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)

    def path(self, digest: str) -> str:
        """The path of a blob, whether it is there or not."""
        return os.path.join(self.directory, digest)

    def has(self, digest: str) -> bool:
        """Whether a blob is there."""
        return os.path.exists(self.path(digest))

    def size(self, digest: str) -> int:
        """How many bytes it has; raises `OSError`."""
        return os.stat(self.path(digest)).st_size

    def get(self, digest: str) -> bytes:
        """A whole blob, verified.

        Raises:
            Damaged: it is missing, or is not what its name says.
        """
        path = self.path(digest)
        with refusing(f"blob {digest} can't be read", Damaged), open(path, "rb") as file:
            data = file.read()
        if sha256(data).hexdigest() != digest:
            raise Damaged(f"blob {digest} is damaged")
        return data

    def read_at(self, digest: str, offset: int, length: int) -> bytes:
        """A part of a blob, not verified; shorter where the blob ends. Raises `OSError`."""
        fd = os.open(self.path(digest), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, length, offset)
        finally:
            os.close(fd)

    def put(self, data: bytes) -> Blob:
        """Store bytes. Raises `OSError`."""
        digest = sha256(data).hexdigest()
        if not self.has(digest):
            with self.create() as new:
                new.write(data)
                new.finish()
        return Blob(digest, len(data))

    def create(self) -> NewBlob:
        """Begin a blob whose content is yet to come. Raises `OSError`."""
        return NewBlob(self)

    def digests(self) -> Iterator[str]:
        """Every blob that is there. Raises `OSError`."""
        return (name for name in os.listdir(self.directory) if DIGEST.fullmatch(name))

    def taken(self) -> int:
        """Bytes of all blobs. Raises `OSError`."""
        taken = 0
        for digest in self.digests():
            try:
                taken += self.size(digest)
            except FileNotFoundError:
                # Removed meanwhile.
                continue
        return taken

    def remove(self, digest: str) -> None:
        """Remove a blob, if it is there. Raises `OSError`."""
        remove(self.path(digest))

    def remove_unfinished(self) -> None:
        """Remove what a process that died has left. Raises `OSError`."""
        for name in os.listdir(self.directory):
            if name.startswith(_NEW):
                remove(os.path.join(self.directory, name))


class NewBlob:
    """A blob that is being written; a `with` block discards it at its end, unless it is finished.

    Attributes:
        size: bytes written so far.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._path = os.path.join(blobs.directory, f"{_NEW}{os.urandom(8).hex()}")
        self._fd = create(self._path)
        self._hash = sha256()
        self.size = 0

    def __enter__(self) -> NewBlob:
        return self

    def __exit__(self, *_error: object) -> None:
        self.discard()

    def write(self, data: bytes) -> int:
        """Append; the offset at which it begins. Raises `OSError`."""
        at = self.size
        write_at(self._fd, data, at)
        self._hash.update(data)
        self.size += len(data)
        return at

    def digest(self) -> str:
        """The digest of what was written so far."""
        return self._hash.hexdigest()

    def finish(self) -> str:
        """Put it in its place, so that it outlives a crash; its digest. Raises `OSError`."""
        os.fsync(self._fd)
        digest = self.digest()
        os.rename(self._path, self._blobs.path(digest))
        self._close()
        sync_directory(self._blobs.directory)
        return digest

    def discard(self) -> None:
        """Remove it, unless it is finished."""
        if self._fd >= 0:
            remove(self._path)
            self._close()

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1


def create(path: str) -> int:
    """Create a file, for its user alone, to be written; raises `OSError`."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def replace(path: str, data: bytes, *, sync: bool = True) -> None:
    """Put a file in the place of one that may be there, at once.

    Args:
        sync: whether it has to outlive a crash.

    Raises:
        OSError: it could not be done, and what was there is as it was.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.{os.urandom(8).hex()}")
    fd = create(temporary)
    try:
        try:
            write_at(fd, data, 0)
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        remove(temporary)
        raise
    if sync:
        sync_directory(directory)


def remove(path: str) -> None:
    """Remove a file, if it is there. Raises `OSError`."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def sync_directory(path: str) -> None:
    """See that the names in a directory outlive a crash. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
