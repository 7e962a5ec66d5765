"""Records clients' objects while the daemon runs, so that the next one can restore them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from memd.json_types import JSON, JSONObject
from memd.named_tuple import NamedTuple
from memd.persist.fdstore import LIST, FdStore, name_of
from memd.persist.object_log import LogEntry, ObjectLog, line_of, recording
from memd.persist.status import Status
from memd.qom import COPIED, Description, Tree, UserCreatable
from memd.work import Job

NOT_STORED = "not-stored"
"""A further reason for a loss: the store was full, or did not take the descriptor."""

_AGAIN = 0.05
"""Seconds after which a manager whose socket was full is tried again."""

_GROWTH = 4096
"""Bytes by which a description may grow when a property is set, apart from its value:
another object's path, or nodes that are added."""

log = logging.getLogger("memd")


class Storage(NamedTuple):
    """The store and the log: the last daemon's, until this one has committed its own."""

    fdstore: FdStore
    log: ObjectLog


class Recorder:
    """Records what clients make; a `memd.qom.objects.Listener`.

    Args:
        tree: where the objects are.
        status: told when they come and go.
        lost: what ended with the last daemon, by id (QAPI `MemdevLoss`).

    Attributes:
        storage: where it is recorded; None where the manager keeps nothing.
        numbers: by which numbers the objects are in the log, by id.
        committed: whether the log is this daemon's; before that, what is made
            waits to be recorded.
    """

    def __init__(self, tree: Tree, status: Status, lost: dict[str, LogEntry]) -> None:
        self._tree = tree
        self._status = status
        self._lost = lost
        self._waiting: list[tuple[UserCreatable, JSONObject]] = []
        # Objects being deleted: number, whether data is discarded, whether it is much.
        self._deleting: dict[UserCreatable, tuple[int, bool, bool]] = {}
        self.storage: Storage | None = None
        self.numbers: dict[str, int] = {}
        self.committed = False

    async def on_created(self, obj: UserCreatable, options: JSONObject) -> None:
        """Store its memory, then log it; later, where the log is not this daemon's yet."""
        self._status.changed()
        if self.storage is None:
            return
        if self.committed:
            await self._record(self.storage, obj, options)
        else:
            self._waiting.append((obj, options))

    async def _record(self, storage: Storage, obj: UserCreatable, options: JSONObject) -> None:
        number = storage.log.number()
        stored = obj.memory_fd >= 0 and await _store(
            storage.fdstore, name_of(number), obj.memory_fd
        )
        try:
            described = obj.describe()
            described["options"] = options
            described["stored"] = stored
            described["lost"] = obj.lost_reason()
            if obj.memory_fd >= 0 and not stored:
                described["lost"] = NOT_STORED
                log.warning("'%s' is not kept: the service manager has no room for it", obj.name)
            with recording():
                storage.log.write({"is": number, **described})
        except BaseException:
            if stored:
                storage.fdstore.remove(name_of(number))
            raise
        self.numbers[obj.name] = number
        obj.kept = stored
        if self.committed and obj.name in self._lost:
            # The client that makes it again knows.
            _try_to_write(storage.log, {"found": obj.name})
        _settle(storage.log, described)

    @contextmanager
    def on_changing(self, obj: UserCreatable, value: JSON) -> Iterator[None]:
        """Reserve space in the log for its new description, which is written at the end."""
        number = self.numbers.get(obj.name)
        if self.storage is None or number is None:
            yield
            return
        log = self.storage.log
        length = len(log.state.objects[number]) + len(line_of({"": value})) + _GROWTH
        with log.reserve(length) as write:
            yield
            # It may have been deleted meanwhile.
            if self.numbers.get(obj.name) == number:
                # New members take precedence; those that only the log has stay.
                write({**log.state.described(number), **obj.describe()})

    def on_deleting(self, obj: UserCreatable) -> None:
        """Remove it from the log, before anything of it is freed."""
        self._status.changed()
        storage = self.storage
        number = self.numbers.get(obj.name)
        if storage is None or number is None:
            return
        span = obj.to_discard()
        entry: LogEntry = {"gone": number}
        if span is not None:
            entry["discard"] = span
        with recording():
            storage.log.write(entry)
        del self.numbers[obj.name]
        self._deleting[obj] = number, span is not None, obj.holds_much

    async def on_deleted(self, obj: UserCreatable) -> None:
        """Have the manager close its descriptor, too; of much memory, wait until it has."""
        storage = self.storage
        if storage is None or obj not in self._deleting:
            return
        number, discarded, much = self._deleting.pop(obj)
        if discarded and obj.lingers:
            # The next daemon does what may not be done yet.
            return
        if discarded:
            _try_to_write(storage.log, {"discarded": number})
        storage.fdstore.remove(name_of(number))
        if much:
            await Job(storage.fdstore.wait_for_manager)

    async def record_waiting(self) -> None:
        """Record what was made before the log was this daemon's; raises `QMPError`."""
        waiting, self._waiting = self._waiting, []
        if self.storage is not None:
            for obj, options in waiting:
                await self._record(self.storage, obj, options)

    async def store_again(self) -> None:
        """Store all memory again: a manager drops some when its limit is lowered.

        Raises:
            OSError: it can't be reached.
        """
        if self.storage is None:
            return
        fdstore, log = self.storage
        while not fdstore.store(LIST, log.fd):
            await asyncio.sleep(_AGAIN)
        for id, number in list(self.numbers.items()):
            name = name_of(number)
            # It may be deleted meanwhile.
            while self.numbers.get(id) == number and fdstore.has(name):
                obj = self._tree.objects.get(id)
                if obj is None or fdstore.store(name, obj.memory_fd):
                    break
                await asyncio.sleep(_AGAIN)

    def end(self) -> None:
        """Clients are no longer served: complete the log.

        Kept objects are not deleted, so `discard-data` does not apply.
        """
        if self.storage is None:
            return
        for obj, _options in self._waiting:
            # It was whole; what was made for it is not removed by the next start.
            _settle(self.storage.log, obj.describe())
        found = [self._tree.objects.get(id) for id in self.numbers]
        kept = [obj for obj in found if obj is not None]
        # Private mappings without copied pages can be made again.
        try:
            for obj in kept if self.committed else ():
                if obj.lost_reason() == COPIED and obj.untouched():
                    self.storage.log.write({"clean": self.numbers[obj.name]})
        except OSError as failed:
            log.warning("private mappings are not kept: %s", failed.strerror)
        for obj in kept:
            obj.keep_data()


async def _store(fdstore: FdStore, name: str, fd: int) -> bool:
    """Give the manager a descriptor; whether it has it."""
    if not fdstore.reserve(name):
        return False
    stored = False
    try:
        stored = fdstore.store(name, fd) or await Job(lambda: fdstore.store(name, fd, True))
    except OSError:
        pass
    finally:
        if not stored:
            fdstore.release(name)
    return stored


def _settle(object_log: ObjectLog, described: Description) -> None:
    """Record that a file belongs to a complete object, if it was created for it."""
    creations = object_log.state.creations
    if creations and "file" in described:
        file = described["file"]["dev"], described["file"]["ino"]
        for number, creation in list(creations.items()):
            if (creation.get("dev"), creation.get("ino")) == file:
                # Where that fails, it is seen by the file that the object is of.
                _try_to_write(object_log, {"settled": number})


def _try_to_write(object_log: ObjectLog, entry: LogEntry) -> None:
    """Write an entry that only saves the next daemon work."""
    try:
        object_log.write(entry)
    except OSError as failed:
        log.warning("the list of objects can't be kept in order: %s", failed.strerror)
