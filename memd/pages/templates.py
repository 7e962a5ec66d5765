"""The templates of a daemon: the store, and the processes that serve them."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

from memd.json_types import JSON
from memd.pages.servers import InThread, Servers, Settings
from memd.pages.store import Holdings, Store
from memd.work import Command, Emit, Job

Spawn = Callable[[Command[None], str], None]


class Templates:
    """The template store that a daemon writes, and what serves from it.

    Args:
        store: the store.
        emit: sends events to all clients.
        in_thread: runs what may wait.
        spawn: runs a command that no client waits for; the text says what it does.
        roots: directories below which machines' sockets have to be, none for anywhere.
        tcp: whether machines may be on other hosts.

    Attributes:
        store: as above; its methods wait for the file system and for sources.
        servers: the processes that serve.
    """

    def __init__(
        self,
        store: Store,
        emit: Emit,
        in_thread: InThread,
        spawn: Spawn,
        *,
        roots: Sequence[str] = (),
        tcp: bool = False,
    ) -> None:
        self.store = store

        async def learn(name: str, pages: array[int]) -> None:
            await Job(lambda: store.set_working_set(name, pages), on=store.on)

        def learnt(name: str, pages: array[int]) -> None:
            spawn(learn(name, pages), f"storing the working set of template '{name}'")

        settings = Settings(store.directory, store.sources, roots, tcp)
        self.servers = Servers(settings, emit, learnt, in_thread)

    async def holdings(self) -> Holdings:
        """The sums of the store, for metrics."""
        return await Job(self.store.holdings, on=self.store.on)

    def clones_of(self, name: str) -> list[dict[str, JSON]]:
        """The machines that are being sent a template, as QMP tells of them."""
        clones = self.servers.clones.values()
        return [each.describe() for each in clones if each.name == name]


async def open_store(
    directory: str, sources: Sequence[str], cache_limit: int | None
) -> tuple[Store, bool]:
    """Open a template store; also gives whether there is anything to serve yet.

    Args:
        directory: the store's.
        sources: URLs of where templates are that it has not.
        cache_limit: bytes of fetched chunks that it keeps, None for any number.

    Raises:
        QMPError: it can't be used.
    """

    def work() -> tuple[Store, bool]:
        store = Store(directory, sources=sources, cache_limit=cache_limit)
        return store, bool(sources or store.names())

    return await Job(work)
