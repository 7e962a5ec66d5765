"""What the objects come to is kept while the daemon runs: its side of the store."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from memd.app.status import Status
from memd.backends import parking
from memd.backends.base import MemoryBackend
from memd.errors import QMPError
from memd.hostmem.libc import PAGE_SIZE
from memd.outcome import JSON, Blocking
from memd.qom.object import QObject, UserCreatable
from memd.qom.tree import LetGo, Tree

if TYPE_CHECKING:
    from memd.server.store import Store

NOT_STORED = "not-stored"
"""A further reason for a loss: the store had no room, or did not take the descriptor."""

_AGAIN = 0.05
"""Seconds after which a manager that had no ear is tried again."""

RunJob = Callable[[Blocking], Awaitable[JSON]]
"""Runs a job beside the loop; gives its value or a `QMPError`."""

log = logging.getLogger("memd")


class Keeper:
    """Keeps what clients make in the store; a `memd.qom.tree.Keeper`.

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

    __slots__ = ("_lost", "_status", "_tree", "_waiting", "committed", "numbers", "store")

    def __init__(self, tree: Tree, status: Status, lost: dict[str, dict[str, JSON]]) -> None:
        self._tree = tree
        self._status = status
        self._lost = lost
        self._waiting: list[tuple[UserCreatable, dict[str, JSON]]] = []
        self.store: Store | None = None
        self.numbers: dict[str, int] = {}
        self.committed = False

    def keep(self, obj: UserCreatable, options: dict[str, JSON]) -> Blocking | None:
        """See `memd.qom.tree.Keeper`."""
        self._status.changed()
        if self.store is None:
            return None
        if not self.committed:
            self._waiting.append((obj, options))
            return None
        return self._park(self.store, obj, options)

    def _park(self, store: Store, obj: UserCreatable, options: dict[str, JSON]) -> Blocking | None:
        """Park an object's memory, then put it on the list."""
        number = store.number()
        described = parking.describe(obj)
        described["options"] = options
        region = obj.region if isinstance(obj, MemoryBackend) else None
        described["lost"] = None if region is None else parking.why_lost(region)
        if region is None or region.fd < 0:
            described["parked"] = False
            self._list(store, number, described)
            return None
        fd = region.fd

        def finish(parked: bool) -> JSON:
            described["parked"] = parked
            if not parked:
                described["lost"] = NOT_STORED
            try:
                self._list(store, number, described)
            except QMPError:
                store.remove(number)
                raise
            return {}

        if not store.reserve(number):
            finish(False)
            return None

        def park(wait: bool) -> bool | None:
            """Whether it is parked; None where that takes waiting."""
            try:
                if store.park(number, fd, wait):
                    return True
                if not wait:
                    return None
            except OSError:
                pass
            store.forgo(number)
            return False

        parked = park(False)
        if parked is None:
            return Blocking(lambda: park(True), finish)
        finish(parked)
        return None

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

    def changed(self, obj: QObject, change: Blocking | None) -> Blocking | None:
        """See `memd.qom.tree.Keeper`."""
        number = self.numbers.get(obj.name)
        store = self.store
        if store is None or number is None or not isinstance(obj, UserCreatable):
            return change
        if self._tree.user_object(obj.name) is not obj:
            return change
        if change is None:
            self._describe_again(store, number, obj)
            return None
        slow = change

        def finish(result: object) -> JSON:
            answer = slow.finish(result)
            if self.numbers.get(obj.name) == number:
                self._describe_again(store, number, obj)
            return answer

        return slow.ending(finish)

    def _describe_again(self, store: Store, number: int, obj: UserCreatable) -> None:
        before = json.loads(store.ledger.objects[number][9:])
        # What is described anew takes precedence, what only the list knows stays.
        _write(store, {**before, **parking.describe(obj, before)})

    def strike(self, obj: UserCreatable) -> LetGo:
        """See `memd.qom.tree.Keeper`."""
        self._status.changed()
        store = self.store
        number = self.numbers.get(obj.name)
        if store is None or number is None:
            return lambda rest: rest
        region = obj.region if isinstance(obj, MemoryBackend) else None
        span = parking.to_discard(obj)
        entry: dict[str, JSON] = {"gone": number}
        if span is not None:
            entry["discard"] = span
        _write(store, entry)
        del self.numbers[obj.name]
        huge = region is not None and region.page_size > PAGE_SIZE

        def gone() -> None:
            if span is not None:
                _try_to_write(store, {"discarded": number})
            store.remove(number)

        def let_go(rest: Blocking | None) -> Blocking | None:
            if rest is None:
                gone()
                return Blocking(store.settle, lambda _done: {}) if huge else None

            def finish(result: object) -> JSON:
                answer = rest.finish(result)
                gone()
                # Only then the memory is free, and it is much.
                return Blocking(store.settle, lambda _done: answer)

            return Blocking(rest.work, finish)

        return let_go

    async def park_waiting(self, run_job: RunJob) -> None:
        """Park what was made before the store was this daemon's.

        Raises:
            QMPError: it can't be noted.
        """
        waiting, self._waiting = self._waiting, []
        if self.store is not None:
            for obj, options in waiting:
                slow = self._park(self.store, obj, options)
                if slow is not None and isinstance(done := await run_job(slow), QMPError):
                    raise done

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
