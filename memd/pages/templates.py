"""The templates of a daemon: the store, and the processes that serve them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

from memd.json_types import JSON
from memd.pages.servers import Emit, InThread, Servers
from memd.pages.store import Holdings, Store
from memd.work import Command, Job

Spawn = Callable[[Command[None], str], None]


class Templates:
    """The template store that a daemon writes.

    Args:
        directory: of the store.
        sources: URLs of where templates are that it has not.
        cache_limit: bytes of fetched chunks that it keeps, None for any number.
    """

    def __init__(self, directory: str, sources: Sequence[str], cache_limit: int | None) -> None:
        self._arguments = directory, sources, cache_limit
        self._store: Store | None = None
        self._servers: Servers | None = None

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

    @property
    def servers(self) -> Servers:
        """The processes that serve templates, once `serve` was called."""
        assert self._servers is not None
        return self._servers

    async def holdings(self) -> Holdings:
        """What the store holds, for metrics."""
        return await Job(self.store.holdings)

    async def serve(self, emit: Emit, in_thread: InThread, spawn: Spawn) -> None:
        """Be ready to serve clones, and recover those that an earlier daemon has left.

        Args:
            emit: sends events to all clients.
            in_thread: runs what may wait.
            spawn: runs a command that no client waits for; the text says what it does.
        """
        store = self.store
        _directory, sources, _limit = self._arguments

        async def learn(name: str, pages: array[int]) -> None:
            await Job(lambda: store.set_working_set(name, pages))

        def learnt(name: str, pages: array[int]) -> None:
            spawn(learn(name, pages), f"storing the working set of template '{name}'")

        self._servers = Servers(Path(store.directory), sources, emit, learnt, in_thread)
        await self._servers.resume()

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
