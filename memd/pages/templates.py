"""The templates of a daemon: the store, and the processes that serve them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace

from memd.json_types import JSON
from memd.pages.servers import Emit, InThread, Servers, Settings
from memd.pages.store import Holdings, Store
from memd.work import Command, Job

Spawn = Callable[[Command[None], str], None]


class Templates:
    """The template store that a daemon writes.

    Args:
        directory: of the store.
        sources: URLs of where templates are that it has not.
        cache_limit: bytes of fetched chunks that it keeps, None for any number.
        roots: directories below which machines' sockets have to be, none for anywhere.
        tcp: whether machines may be on other hosts.
    """

    def __init__(
        self,
        directory: str,
        sources: Sequence[str],
        cache_limit: int | None,
        *,
        roots: Sequence[str] = (),
        tcp: bool = False,
    ) -> None:
        self._settings = Settings(directory, sources, roots, tcp)
        self._cache_limit = cache_limit
        self._store: Store | None = None
        # Whether there is anything to serve yet.
        self._some = False
        self._servers: Servers | None = None

    async def open(self) -> None:
        """Open the store.

        Raises:
            QMPError: it can't be used.
        """
        directory, sources = self._settings.directory, self._settings.sources
        limit = self._cache_limit

        def look() -> tuple[Store, bool]:
            store = Store(directory, sources=sources, cache_limit=limit)
            return store, bool(sources or store.names())

        self._store, self._some = await Job(look)

    @property
    def store(self) -> Store:
        """The store, once it is open; its methods wait for the file system and for sources."""
        assert self._store is not None
        return self._store

    @property
    def servers(self) -> Servers:
        """The processes that serve templates, once `start_serving` was called."""
        assert self._servers is not None
        return self._servers

    async def holdings(self) -> Holdings:
        """The sums of the store, for metrics."""
        return await Job(self.store.holdings, on=self.store.on)

    async def start_serving(self, emit: Emit, in_thread: InThread, spawn: Spawn) -> None:
        """Start to serve clones, and recover those that an earlier daemon has left.

        Args:
            emit: sends events to all clients.
            in_thread: runs what may wait.
            spawn: runs a command that no client waits for; the text says what it does.
        """
        store = self.store

        async def learn(name: str, pages: array[int]) -> None:
            await Job(lambda: store.set_working_set(name, pages), on=store.on)

        def learnt(name: str, pages: array[int]) -> None:
            spawn(learn(name, pages), f"storing the working set of template '{name}'")

        settings = replace(self._settings, directory=store.directory)
        self._servers = Servers(settings, emit, learnt, in_thread)
        await self._servers.resume()
        if self._some:
            self._servers.prepare_soon()

    def clones_of(self, name: str) -> list[dict[str, JSON]]:
        """The machines that are being sent a template, as QMP tells of them."""
        clones = {} if self._servers is None else self._servers.clones
        return [each.describe() for each in clones.values() if each.name == name]

    async def stop_serving(self) -> None:
        """End the processes that serve; the next daemon goes on."""
        if self._servers is not None:
            await self._servers.close()

    def close(self) -> None:
        """Leave the store to others."""
        if self._store is not None:
            self._store.close()
