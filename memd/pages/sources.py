"""The interfaces of a place that has templates, and of one that takes them too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from ipaddress import ip_address
from typing import Protocol, runtime_checkable

from memd.errors import QMPError
from memd.pages.names import Version


class SourceError(QMPError):
    """A source can't be reached, refuses, or gives something else than was asked for."""


class Source(Protocol):
    """A place that has templates. Its methods may be called in any thread.

    Attributes:
        url: as it was given.
    """

    url: str

    def find(self, name: str) -> Version | None:
        """The version that a name leads to, None for none.

        Raises:
            SourceError: that can't be told.
        """

    def part(self, digest: str, offset: int, length: int) -> bytes:
        """A part of a blob, of exactly that length.

        Raises:
            SourceError: it is not available.
        """

    def blob(self, digest: str) -> AbstractContextManager[Iterator[bytes]]:
        """A whole blob, in pieces; not verified.

        Raises:
            SourceError: it is not available; also while the pieces come.
        """

    def check(self) -> None:
        """See whether it can be reached.

        Raises:
            SourceError: it can't.
        """


@runtime_checkable
class Target(Source, Protocol):
    """A source that templates can be pushed to."""

    def has(self, digest: str) -> bool:
        """Whether it has a blob.

        Raises:
            SourceError: that can't be told.
        """

    def upload(self, digest: str, path: str, progress: Callable[[int], None]) -> None:
        """Give it a blob.

        Args:
            digest: the blob's.
            path: the file that it is.
            progress: told how many more bytes were sent.

        Raises:
            SourceError: it would not take it.
        """

    def name(self, name: str, version: Version, blobs: list[tuple[str, str, int]]) -> None:
        """Let a name lead to a template whose blobs it has.

        Args:
            name: the template's.
            version: what it leads to.
            blobs: what belongs to it: what it is, its digest and its size.

        Raises:
            SourceError: it would not.
        """


def is_loopback(host: str) -> bool:
    """Whether a host is this one, to which nothing travels in clear."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
