"""What the objects come to is kept while the daemon runs: its side of the store."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import TYPE_CHECKING

from memd.app.status import Status
from memd.backends import parking
from memd.backends.base import MemoryBackend
from memd.errors import QMPError
from memd.hostmem.libc import PAGE_SIZE
from memd.json_types import JSON
from memd.qom.object import UserCreatable
from memd.qom.tree import Tree
from memd.work import Job

if TYPE_CHECKING:
    from memd.server.store import Store

NOT_STORED = "not-stored"
"""A further reason for a loss: the store had no room, or did not take the descriptor."""

_AGAIN = 0.05
"""Seconds after which a manager that had no ear is tried again."""

log = logging.getLogger("memd")


class Keeper:
    """Keeps what clients make in the store; a `memd.qom.tree.Listener`.

    Args:
        tree: where the objects are.
        status: told when they come and go.
        lost: what ended with the last daemon, by id (QAPI `MemdevLoss`).

    Attributes:
        store: None where the manager has none.
        numbers: by which numbers the objects are on the list, by id.
        committed: whether the store is this daemon's; before that, what is made
            waits to be parked.
    """

    __slots__ = (
        *("_going", "_lost", "_status", "_tree", "_waiting", "committed", "numbers", "store"),
    )

    def __init__(self, tree: Tree, status: Status, lost: dict[str, dict[str, JSON]]) -> None:
        self._tree = tree
        self._status = status
        self._lost = lost
        self._waiting: list[tuple[UserCreatable, dict[str, JSON]]] = []
        # What is being deleted: its number, whether its data goes, whether it is much.
        self._going: dict[UserCreatable, tuple[int, bool, bool]] = {}
        self.store: Store | None = None
        self.numbers: dict[str, int] = {}
        self.committed = False

    async def on_created(self, obj: UserCreatable, options: dict[str, JSON]) -> None:
        """Keep it, then it is listed; or later, where the store is not this daemon's yet."""
        self._status.changed()
        if self.store is None:
            return
        if self.committed:
            await self._park(self.store, obj, options)
        else:
            self._waiting.append((obj, options))

    async def _park(self, store: Store, obj: UserCreatable, options: dict[str, JSON]) -> None:
        """Park an object's memory, then put it on the list; raises `QMPError`."""
        number = store.number()
        described = parking.describe(obj)
        described["options"] = options
        region = obj.region if isinstance(obj, MemoryBackend) else None
        described["lost"] = None if region is None else parking.why_lost(region)
        described["parked"] = False
        if region is not None and region.fd >= 0:
            described["parked"] = await self._park_fd(store, number, region.fd)
            if not described["parked"]:
                described["lost"] = NOT_STORED
        try:
            self._list(store, number, described)
        except QMPError:
            if described["parked"]:
                store.remove(number)
            raise

    async def _park_fd(self, store: Store, number: int, fd: int) -> bool:
        """Give the manager a descriptor; whether it has it."""
        if not store.reserve(number):
            return False
        try:
            if store.park(number, fd) or await Job(lambda: store.park(number, fd, True)):
                return True
        except OSError:
            pass
        store.forgo(number)
        return False

    def _list(self, store: Store, number: int, described: dict[str, JSON]) -> None:
        """Put an object on the list; raises `QMPError`."""
        id = described["id"]
        _write(store, {"is": number, **described})
        self.numbers[id] = number
        if self.committed and id in self._lost:
            # Whoever makes it anew knows.
            _try_to_write(store, {"found": id})
        self._settle(store, described)

    def _settle(self, store: Store, described: dict[str, JSON]) -> None:
        """Note that a file is an object's, if it was made for it."""
        if store.ledger.makings and "file" in described:
            file = described["file"]["dev"], described["file"]["ino"]
            for number, making in list(store.ledger.makings.items()):
                if (making.get("dev"), making.get("ino")) == file:
                    # Where that fails, it is seen by the file that the object is of.
                    _try_to_write(store, {"settled": number})

    def on_changed(self, obj: UserCreatable) -> None:
        """Note what it comes to now."""
        number = self.numbers.get(obj.name)
        if self.store is not None and number is not None:
            self._describe_again(self.store, number, obj)

    def _describe_again(self, store: Store, number: int, obj: UserCreatable) -> None:
        before = json.loads(store.ledger.objects[number][9:])
        # What is described anew takes precedence, what only the list knows stays.
        _write(store, {**before, **parking.describe(obj, before)})

    def on_deleting(self, obj: UserCreatable) -> None:
        """Strike it off the list, while all of it is still there."""
        self._status.changed()
        store = self.store
        number = self.numbers.get(obj.name)
        if store is None or number is None:
            return
        region = obj.region if isinstance(obj, MemoryBackend) else None
        span = parking.to_discard(obj)
        entry: dict[str, JSON] = {"gone": number}
        if span is not None:
            entry["discard"] = span
        _write(store, entry)
        del self.numbers[obj.name]
        much = False
        if region is not None:
            from memd.backends.making import LARGE

            much = region.page_size > PAGE_SIZE or region.length > LARGE
        self._going[obj] = number, span is not None, much

    async def on_deleted(self, obj: UserCreatable) -> None:
        """Have the manager close its descriptor, too; of much memory, wait until it has."""
        store = self.store
        if store is None or obj not in self._going:
            return
        number, discarded, much = self._going.pop(obj)
        if discarded:
            _try_to_write(store, {"discarded": number})
        store.remove(number)
        if much:
            await Job(store.settle)

    async def park_waiting(self) -> None:
        """Park what was made before the store was this daemon's.

        Raises:
            QMPError: it can't be noted.
        """
        waiting, self._waiting = self._waiting, []
        if self.store is not None:
            for obj, options in waiting:
                await self._park(self.store, obj, options)

    async def park_again(self) -> None:
        """Park what is parked already: a manager may have dropped it, as when its room shrinks.

        Raises:
            OSError: it can't be reached.
        """
        store = self.store
        if store is None:
            return
        while not store.park_list():
            await asyncio.sleep(_AGAIN)
        for id, number in list(self.numbers.items()):
            # It may be deleted meanwhile.
            while self.numbers.get(id) == number and store.has(number):
                obj = self._tree.user_object(id)
                region = obj.region if isinstance(obj, MemoryBackend) else None
                if region is None or store.park(number, region.fd):
                    break
                await asyncio.sleep(_AGAIN)

    def end(self) -> None:
        """Nobody is served any more: see to what is kept, and leave it alone.

        It is not deleted, so its data stays whatever `discard-data` says.
        """
        if self.store is None:
            return
        for obj, _options in self._waiting:
            # It was whole; what was made for it is not removed by the next start.
            self._settle(self.store, parking.describe(obj))
        found = [self._tree.user_object(id) for id in self.numbers]
        kept = [obj for obj in found if obj is not None]
        if self.committed:
            self._note_clean(self.store, [obj for obj in kept if isinstance(obj, MemoryBackend)])
        for obj in kept:
            parking.keep_data(obj)

    def _note_clean(self, store: Store, kept: list[MemoryBackend]) -> None:
        """Note of which private mappings nothing would be lost."""
        private = [
            (self.numbers[obj.name], obj.region)
            for obj in kept
            if obj.region is not None and parking.why_lost(obj.region) == parking.COPIED
        ]
        untouched = parking.unchanged([region for _number, region in private])
        try:
            for (number, _region), clean in zip(private, untouched, strict=True):
                if clean:
                    store.write({"clean": number})
        except OSError as failed:
            log.warning("private mappings are not kept: %s", failed.strerror)


def _try_to_write(store: Store, entry: dict[str, JSON]) -> None:
    """Put something on the list that only saves the next daemon work."""
    try:
        store.write(entry)
    except OSError as failed:
        log.warning("the list of objects can't be kept in order: %s", failed.strerror)


def _write(store: Store, entry: dict[str, JSON]) -> None:
    """Put something on the list; raises `QMPError`."""
    try:
        store.write(entry)
    except OSError as failed:
        text = f"cannot note it for a restart: {os.strerror(failed.errno or 0)}"
        raise QMPError(text) from None
