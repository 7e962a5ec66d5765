"""The templates of a daemon: the store, for as long as the daemon runs."""

from __future__ import annotations

from collections.abc import Sequence

from memd.pages.store import Store
from memd.work import Job


class Templates:
    """The template store that a daemon writes.

    Args:
        directory: of the store.
        sources: URLs of where templates are that it has not.
        cache_limit: bytes of fetched chunks that it keeps, None for any number.
    """

    __slots__ = ("_arguments", "_store")

    def __init__(self, directory: str, sources: Sequence[str], cache_limit: int | None) -> None:
        self._arguments = directory, sources, cache_limit
        self._store: Store | None = None

    async def open(self) -> None:
        """Open the store.

        Raises:
            QMPError: it can't be used.
        """
        directory, sources, limit = self._arguments
        self._store = await Job(lambda: Store(directory, sources=sources, cache_limit=limit))

    @property
    def store(self) -> Store:
        """The store, once it is open; its methods wait for the file system and for sources."""
        assert self._store is not None
        return self._store

    def close(self) -> None:
        """Leave the store to others."""
        if self._store is not None:
            self._store.close()
