"""Restart without loss: what the service manager is told, and what it keeps.

At the start what the last daemon left is read and made again, and nothing in the
manager's store is changed before all of it and the whole command line have come
about (`commit`): a daemon that can't start leaves the store as it found it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from memd.app.errors import StartError
from memd.app.keeper import Keeper
from memd.app.restoring import ALL_KEPT, WAY_OUT, Restoring
from memd.app.status import Status
from memd.backends.tls_creds import TLSCredentials
from memd.errors import QMPError, printable
from memd.hostmem import noting
from memd.json_types import JSON
from memd.qom.tree import Tree
from memd.server.journal import Unreadable
from memd.server.notify import Notifier, Watchdog, monotonic_usec, watchdog_period
from memd.server.store import LEAST, Store, room
from memd.work import Run

if TYPE_CHECKING:
    from memd.cli.config import Config
    from memd.hostmem.paths import Roots

_UNREADABLE = "what the service manager's store holds can't be read"

MORE_TIME = 30.0
"""Seconds that are asked for where the start takes long, three times in each."""

log = logging.getLogger("memd")


class Keeping:
    """The daemon before its service manager.

    Args:
        config: the parsed command line.
        loop: the event loop.
        tree: where the objects are.
        run: runs commands.

    Attributes:
        lost: what ended with the last daemon, by id (QAPI `MemdevLoss`).

    Raises:
        StartError: the manager can't be told anything.
    """

    __slots__ = (
        *("_config", "_keeper", "_loop", "_notifier", "_reloading", "_restoring", "_run"),
        *("_status", "_tree", "_watchdog", "lost"),
    )

    def __init__(
        self, config: Config, loop: asyncio.AbstractEventLoop, tree: Tree, run: Run
    ) -> None:
        self._config = config
        self._loop = loop
        self._tree = tree
        self._run = run
        self.lost: dict[str, dict[str, JSON]] = {}
        try:
            notifier = Notifier(os.environ.get("NOTIFY_SOCKET", ""))
        except ValueError as wrong:
            raise StartError(str(wrong)) from None
        self._notifier = notifier
        self._status = Status(loop, notifier, tree, self.lost)
        self._keeper = Keeper(tree, self._status, self.lost)
        self._restoring: Restoring | None = None
        self._watchdog: Watchdog | None = None
        self._reloading: asyncio.Future[None] | None = None
        tree.listeners = (self._keeper,)

    # The start

    def open(self) -> None:
        """Read what the last daemon left.

        Raises:
            StartError: it can't be read, or is not all there.
        """
        found = self._config.stored
        capacity = room(os.environ)
        pid = str(os.getpid())
        # What the manager's child starts has the variable too, and no store.
        mine = os.environ.get("SYSTEMD_EXEC_PID", pid) == pid
        if not found and (capacity < LEAST or not mine):
            return
        for fd in found.values():
            os.set_inheritable(fd, False)
        _let_more_be_opened(found)
        try:
            store = Store(self._notifier, self._loop, capacity, found)
        except Unreadable as wrong:
            raise StartError(f"{_UNREADABLE}: {wrong}", hint=ALL_KEPT) from None
        except OSError as failed:
            if found:
                text = f"{_UNREADABLE}: {failed.strerror}"
                raise StartError(text, hint=ALL_KEPT) from None
            log.warning("nothing is kept over a restart: %s", failed.strerror)
            return
        try:
            self._restoring = Restoring(self._config, self._tree, self._keeper, store, self._run)
        except Unreadable as wrong:
            raise StartError(f"{_UNREADABLE}: {wrong}", hint=WAY_OUT) from None
        except (KeyError, TypeError) as wrong:
            text = f"{_UNREADABLE}: {wrong} is not what it should be"
            raise StartError(text, hint=ALL_KEPT) from None
        self._keeper.store = store
        self.lost.update(store.ledger.lost)
        store.ledger.lost = self.lost
        noting.watcher = store

    async def restore(self, *, credentials: bool, roots: Roots | None = None) -> None:
        """Make again what the last daemon had.

        Args:
            credentials: that for TLS, or all else.
            roots: what files have to be below from which clients' are read.

        Raises:
            StartError: something can't be made again.
        """
        if self._restoring is not None:
            if credentials:
                self._restoring.clear_up()
            await self._restoring.make(credentials=credentials, roots=roots)

    def has(self, options: dict[str, JSON]) -> bool:
        """Whether an object of the command line is there already, from the last daemon.

        Raises:
            StartError: there is another of its id.
        """
        return self._restoring is not None and self._restoring.has(options)

    async def commit(self) -> None:
        """All is there: from now on the store holds this daemon's objects.

        Raises:
            StartError: what there is can't be noted.
        """
        store, restoring = self._keeper.store, self._restoring
        if store is not None and restoring is not None:
            try:
                restoring.name_lost()
                await self._run(self._keeper.park_waiting())
                store.ledger.clean.clear()
                store.shorten()
                restoring.finish()
            except OSError as failed:
                raise StartError(f"the list of objects can't be kept: {failed.strerror}") from None
            except QMPError as error:
                raise StartError(error.desc) from None
        self._restoring = None
        self._keeper.committed = True

    def ask_for_time(self, done: asyncio.Future[JSON]) -> None:
        """Have the manager be patient while something takes long (EXTEND_TIMEOUT_USEC)."""

        def ask() -> None:
            if not done.done():
                self._tell(f"EXTEND_TIMEOUT_USEC={int(MORE_TIME * 1_000_000)}")
                self._loop.call_later(MORE_TIME / 3, ask)

        self._loop.call_later(MORE_TIME / 3, ask)

    def ready(self) -> None:
        """Tell the manager that clients are served."""
        self._tell("READY=1", self._status.line())
        period = watchdog_period(os.environ, os.getpid())
        if period:
            self._watchdog = Watchdog(self._loop, self._notifier, period)

    def failed(self, text: str) -> None:
        """Tell the manager why the daemon can't start."""
        self._tell(f"STATUS={printable(text)}")

    # While it runs

    def reload(self) -> None:
        """Read the TLS credentials' files anew, and park anew what is kept (SIGUSR1)."""
        if self._keeper.committed and (self._reloading is None or self._reloading.done()):
            self._reloading = asyncio.ensure_future(self._reload())

    async def _reload(self) -> None:
        self._tell("RELOADING=1", monotonic_usec())
        for obj in list((self._tree.objects.children or {}).values()):
            if isinstance(obj, TLSCredentials):
                try:
                    await self._run(obj.complete())
                except QMPError as error:
                    log.warning("'%s' stays as it was: %s", obj.name, error.desc)
        try:
            await self._keeper.park_again()
        except OSError as failed:
            log.warning("the service manager can't be reached: %s", failed.strerror)
        self._tell("READY=1", self._status.line())

    # The end

    def stopping(self) -> None:
        """Tell the manager that the daemon ends."""
        if self._watchdog is not None:
            self._watchdog.close()
        self._tell("STOPPING=1")

    def end(self) -> None:
        """Leave the store as the next daemon is to find it; nobody is served any more."""
        self._tree.listeners = ()
        noting.watcher = None
        self._status.close()
        self._keeper.end()
        if self._keeper.store is not None:
            self._keeper.store.close()
        self._notifier.close()

    def _tell(self, *lines: str) -> None:
        try:
            self._notifier.send(*lines)
        except OSError as failed:
            log.warning("the service manager can't be reached: %s", failed.strerror)


def _let_more_be_opened(found: dict[str, int]) -> None:
    """Raise the soft limit of descriptors where those that were passed come near it."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if max(found.values(), default=0) > soft // 2:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except OSError as failed:
            # A sandbox may forbid it.
            log.warning("the limit of descriptors stays at %d: %s", soft, failed.strerror)
