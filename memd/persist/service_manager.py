"""Restart without loss: messages to the service manager, and its store.

At the start the objects of the last daemon are restored. None of them changes in the
manager's store before all of them and those of the command line exist (`commit`), so a
daemon that fails to start loses none. Only crash recovery removes descriptors before that.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from typing import TYPE_CHECKING

from memd.errors import QMPError, StartError, printable, refusing, starting
from memd.json_types import JSON, JSONObject
from memd.persist.fdstore import LEAST, LIST, FdStore, capacity_of
from memd.persist.object_log import ObjectLog, Unreadable
from memd.persist.recorder import Recorder, Storage
from memd.persist.restoring import ALL_KEPT, NOT_KEPT, WAY_OUT, Restoring
from memd.persist.sd_notify import (
    Notifier,
    Watchdog,
    loss_logged,
    monotonic_usec,
    watchdog_period,
)
from memd.persist.status import Status
from memd.qom import Tree
from memd.work import Run

if TYPE_CHECKING:
    from memd.hostmem.paths import Roots

_UNREADABLE = "what the service manager's store holds can't be read"

MORE_TIME = 30.0
"""Seconds that are asked for where the start takes long, three times in each."""

log = logging.getLogger("memd")


class ServiceManager:
    """The connection to the service manager.

    Args:
        loop: the event loop.
        tree: where the objects are.
        run: runs commands.
        stored: the descriptors that the manager kept, by name.
        accept_loss: whether the start goes on where something can't be restored.

    Attributes:
        lost: what ended with the last daemon, by id (QAPI `MemdevLoss`).

    Raises:
        StartError: the manager can't be told anything.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tree: Tree,
        run: Run,
        stored: dict[str, int],
        *,
        accept_loss: bool = False,
    ) -> None:
        self._loop = loop
        self._tree = tree
        self._run = run
        self._stored = stored
        self._accept_loss = accept_loss
        self.lost: dict[str, JSONObject] = {}
        try:
            notifier = Notifier(os.environ.get("NOTIFY_SOCKET", ""))
        except ValueError as wrong:
            raise StartError(str(wrong)) from None
        self._notifier = notifier
        self._status = Status(loop, notifier, tree, self.lost)
        self._recorder = Recorder(tree, self._status, self.lost)
        self._restoring: Restoring | None = None
        self._watchdog: Watchdog | None = None
        self._reloading: asyncio.Future[None] | None = None
        tree.objects.listener = self._recorder

    # The start

    def open(self) -> None:
        """Read what the last daemon left.

        Raises:
            StartError: it can't be read, or is not all there.
        """
        found = self._stored
        capacity = capacity_of(os.environ)
        pid = str(os.getpid())
        # Children of the manager's child have the variable too, and no store.
        mine = os.environ.get("SYSTEMD_EXEC_PID", pid) == pid
        if not found and (capacity < LEAST or not mine):
            return
        for fd in found.values():
            os.set_inheritable(fd, False)
        try:
            storage = self._open(found, capacity)
        except Unreadable as wrong:
            raise StartError(f"{_UNREADABLE}: {wrong}", hint=ALL_KEPT) from None
        except OSError as failed:
            if found:
                text = f"{_UNREADABLE}: {failed.strerror}"
                raise StartError(text, hint=ALL_KEPT) from None
            log.warning("nothing is kept over a restart: %s", failed.strerror)
            return
        try:
            self._restoring = Restoring(
                self._tree, self._recorder, storage, found, self._run, accept_loss=self._accept_loss
            )
        except Unreadable as wrong:
            raise StartError(f"{_UNREADABLE}: {wrong}", hint=WAY_OUT) from None
        self._recorder.storage = storage
        self.lost.update(storage.log.state.lost)
        storage.log.state.lost = self.lost
        self._tree.host.creations = storage.log

    def _open(self, found: dict[str, int], capacity: int) -> Storage:
        """The store, and the log that is in it; a new one where the store is empty.

        Raises:
            Unreadable: it can't be read. Nothing was changed.
            OSError: there is no memory for a new one, or the manager can't be reached.
        """
        fdstore = FdStore(self._notifier, self._loop, capacity, found)
        if LIST in found:
            return Storage(fdstore, ObjectLog(found[LIST]))
        if found:
            raise Unreadable(f"there is no list ({LIST}) with the descriptors in it")
        object_log = ObjectLog()
        # One of a daemon that was killed right after storing it is of no use. A manager that
        # does not read this is not waited for a second time.
        told = self._notifier.send("FDSTOREREMOVE=1", f"FDNAME={LIST}", wait=True)
        if not (told and fdstore.store(LIST, object_log.fd, wait=True)):
            raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        return Storage(fdstore, object_log)

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
                await self._run(self._restoring.clear_up(roots))
            await self._restoring.make(credentials=credentials, roots=roots)

    def has(self, options: JSONObject) -> bool:
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
        storage, restoring = self._recorder.storage, self._restoring
        if storage is not None and restoring is not None:
            with starting(), refusing(NOT_KEPT, StartError):
                restoring.name_lost()
                await self._run(self._recorder.record_waiting())
                storage.log.state.clean.clear()
                storage.log.shorten()
                restoring.finish()
        self._restoring = None
        self._recorder.committed = True

    def ask_for_time(self, done: asyncio.Future[JSON]) -> None:
        """Extend the manager's timeout while something takes long (EXTEND_TIMEOUT_USEC)."""

        def ask() -> None:
            if not done.done():
                self._notifier.tell(f"EXTEND_TIMEOUT_USEC={int(MORE_TIME * 1_000_000)}")
                self._loop.call_later(MORE_TIME / 3, ask)

        self._loop.call_later(MORE_TIME / 3, ask)

    def ready(self) -> None:
        """Tell the manager that clients are served."""
        self._notifier.tell("READY=1", self._status.line())
        period = watchdog_period(os.environ, os.getpid())
        if period:
            self._watchdog = Watchdog(self._loop, self._notifier, period)

    def failed(self, text: str) -> None:
        """Tell the manager why the daemon can't start."""
        self._notifier.tell(f"STATUS={printable(text)}")

    # While it runs

    def reload(self) -> None:
        """Read the TLS credentials' files anew, and store anew what is kept (SIGUSR1)."""
        if self._recorder.committed and (self._reloading is None or self._reloading.done()):
            self._reloading = asyncio.ensure_future(self._reload())

    async def _reload(self) -> None:
        self._notifier.tell("RELOADING=1", monotonic_usec())
        for obj in self._tree.objects.each():
            try:
                await self._run(obj.reload())
            except QMPError as error:
                log.warning("'%s' stays as it was: %s", obj.name, error.desc)
        with loss_logged():
            await self._recorder.store_again()
        self._notifier.tell("READY=1", self._status.line())

    def status_changed(self) -> None:
        """There is something new to tell of what the daemon has."""
        self._status.changed()

    # The end

    def stopping(self) -> None:
        """Tell the manager that the daemon ends."""
        if self._watchdog is not None:
            self._watchdog.close()
        self._notifier.tell("STOPPING=1")

    def end(self) -> None:
        """Complete the store for the next daemon; clients are no longer served."""
        self._tree.objects.listener = None
        self._tree.host.creations = None
        self._status.close()
        self._recorder.end()
        if self._recorder.storage is not None:
            fdstore, object_log = self._recorder.storage
            fdstore.close()
            object_log.close()
        self._notifier.close()
