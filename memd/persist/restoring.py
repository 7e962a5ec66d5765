"""Restores the objects of the last daemon from the service manager's store."""

from __future__ import annotations

import json
import logging
import os
import time
from typing import TYPE_CHECKING

from memd.backends.secret import is_credential
from memd.errors import QMPError, StartError, printable, refusing
from memd.json_types import JSONObject
from memd.persist.crash_recovery import discard_rest, remove_half_made
from memd.persist.fdstore import LIST, name_of
from memd.persist.object_log import Unreadable
from memd.persist.recorder import NOT_STORED, Recorder, Storage
from memd.places import Share
from memd.qom import ANONYMOUS, COPIED, NOBODY, Description, Tree, UserCreatable
from memd.work import Job, Run

if TYPE_CHECKING:
    from memd.hostmem.paths import Roots

MISSING = "missing"
FAILED = "failed"

REASONS = {
    ANONYMOUS: "it was private memory, which is in no file",
    COPIED: "it was a private mapping, and what was written to it was the daemon's alone",
    NOT_STORED: "the service manager's store had no room for it",
    MISSING: "its descriptor was not in the service manager's store",
    FAILED: "it could not be made again",
}
"""Why an object is lost (QAPI `MemdevLossReason`), in words."""

NOT_KEPT = "the list of objects can't be kept"

ALL_KEPT = (
    "All descriptors are kept. To give them up, stop the unit and empty its store"
    " (systemctl clean --what=fdstore)."
)
WAY_OUT = f"{ALL_KEPT} To give up only what can't be restored, start with --accept-loss."
"""Hints: for a store that can't be read; for an object that can't be restored."""

_MEMBERS: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "qom-type": str,
    "properties": dict,
    "options": dict,
    "owner": (int, type(None)),
    "stored": bool,
    "lost": (str, type(None)),
}
"""Members of every description, besides those that an object's type adds."""

_OF_MEMORY: dict[str, type | tuple[type, ...]] = {
    "map": dict,
    "file": dict,
    "exports": int,
    "bound": list,
}
"""Further members of a description of stored memory."""

log = logging.getLogger("memd")


class Restoring:
    """The restoring of the last daemon's objects.

    Args:
        tree: where they go.
        recorder: told by which number each is known.
        storage: the log and the store.
        found: the descriptors that were in the store, by name; taken over.
        run: runs commands.
        accept_loss: whether what can't be restored is given up.

    Raises:
        Unreadable: what was kept is not whole. Nothing was changed.
    """

    def __init__(
        self,
        tree: Tree,
        recorder: Recorder,
        storage: Storage,
        found: dict[str, int],
        run: Run,
        *,
        accept_loss: bool,
    ) -> None:
        self._tree = tree
        self._recorder = recorder
        self._storage = storage
        self._run = run
        self._accept_loss = accept_loss
        # Descriptors that no object has taken yet, by name.
        self._found = {name: fd for name, fd in found.items() if name != LIST}
        self._last: dict[int, Description] = {}
        for number in sorted(storage.log.state.objects):
            described = storage.log.state.described(number)
            self._check(number, described)
            self._last[number] = described

    def _check(self, number: int, described: Description) -> None:
        """See that an object's descriptor is there, and the right one."""
        _check_members(described, _MEMBERS)
        if not described["stored"]:
            return
        _check_members(described, _OF_MEMORY)
        fd = self._found.get(name_of(number))
        wrong: str | None = "missing"
        if fd is not None:
            from memd.hostmem.identity import difference

            try:
                wrong = difference(described["file"], fd)
            except KeyError as missing:
                raise Unreadable(f"object '{described['id']}': it has no {missing}") from None
            if not wrong:
                return
        if not self._accept_loss:
            raise Unreadable(f"object '{described['id']}': its descriptor is {wrong}")
        described["stored"], described["lost"] = False, MISSING

    async def clear_up(self, roots: Roots | None) -> None:
        """Remove the files of unfinished objects, in a thread.

        Args:
            roots: what they have to be below; None for anywhere.

        Raises:
            StartError: that can't be noted.
        """
        fdstore, object_log = self._storage
        state = object_log.state
        if not state.creations:
            return
        # No client knows of them, and without these descriptors their files are unused.
        for name in self._found.keys() - set(map(name_of, (*self._last, *state.discards))):
            os.close(self._found.pop(name))
            fdstore.remove(name)

        def work() -> None:
            from memd.hostmem.host import Host

            fdstore.wait_for_manager()
            remove_half_made(object_log, self._last.values(), Host(roots))

        with refusing(NOT_KEPT, StartError):
            await Job(work)

    async def make(self, *, credentials: bool, roots: Roots | None = None) -> None:
        """Make again what the last daemon had.

        Args:
            credentials: that for TLS, which monitors may need, or all else.
            roots: what the files have to be below from which credentials of
                clients' are read; None for anywhere.

        Raises:
            StartError: something can't be made again.
        """
        again = []
        host = self._tree.host
        before = host.roots
        for number, described in self._last.items():
            if is_credential(described["qom-type"]) == credentials:
                reason = described["lost"]
                if reason == COPIED and number in self._storage.log.state.clean:
                    reason = None
                if credentials:
                    # Owner NOBODY: of the command line, which is not confined.
                    host.roots = None if described["owner"] is NOBODY else roots
                obj = None if reason else await self._make_one(number, described)
                if obj is not None:
                    again.append((obj, described))
                else:
                    described["lost"] = reason or FAILED
        host.roots = before
        for obj, described in again:
            try:
                obj.relink(described)
            except QMPError as error:
                if not self._accept_loss:
                    raise self._cannot_restore(described, error) from None
                log.warning("'%s' is not as it was: %s", obj.name, error.desc)
            if obj.keeps_texts:
                # Above the limits, too, and only now it is known how much it has.
                obj.texts = Share(self._tree.objects.account, described["owner"])
                obj.texts.set(obj.texts_size)

    async def _make_one(self, number: int, described: Description) -> UserCreatable | None:
        """One object; None where that fails and may."""
        id, name = described["id"], name_of(number)
        try:
            fd = self._found.get(name, -1) if described["stored"] else -1
            obj: UserCreatable = await self._run(restore(self._tree, described, fd))
            self._found.pop(name, None)
            self._tree.objects.attach(obj)
        except QMPError as error:
            # They are in files, which come and go.
            if self._accept_loss or is_credential(described["qom-type"]):
                log.warning("cannot restore '%s': %s", id, error.desc)
                return None
            raise self._cannot_restore(described, error) from None
        self._recorder.numbers[id] = number
        obj.kept = described["stored"]
        return obj

    def _cannot_restore(self, described: Description, error: QMPError) -> StartError:
        text = f"cannot restore '{described['id']}': {error.desc}"
        return StartError(text, hint=WAY_OUT)

    def has(self, options: JSONObject) -> bool:
        """Whether an object of the command line is there already, from the last daemon.

        Raises:
            StartError: there is another of its id.
        """
        number = self._recorder.numbers.get(options["id"])
        if number is None or number not in self._last:
            return False
        before = self._last[number]["options"]
        if before != options and not self._same(before, options):
            raise StartError(
                f"object '{options['id']}' is there from before the restart, and was made"
                f" otherwise: {_spell(before)} then, {_spell(options)} now",
                hint="All descriptors are kept. Delete the object first (object-del), or give"
                " this one another id.",
            )
        return True

    def _same(self, before: JSONObject, now: JSONObject) -> bool:
        """Whether options make the same object."""
        try:
            one, other = (self._tree.objects.prepare(options) for options in (before, now))
        except QMPError:
            return False
        return one.would_be(other)

    def finish(self) -> None:
        """Remove from the store what belongs to no object, and complete discarding.

        Raises:
            OSError: it can't be noted.
        """
        fdstore, object_log = self._storage
        # The rest was being made or deleted, or belongs to lost objects.
        for number, span in list(object_log.state.discards.items()):
            discard_rest(self._found.get(name_of(number), -1), span)
            object_log.write({"discarded": number})
        for name, fd in self._found.items():
            os.close(fd)
            fdstore.remove(name)
        self._found.clear()
        self._last.clear()

    def name_lost(self) -> None:
        """Note what can't be restored, and say so; raises `OSError`."""
        for number, described in self._last.items():
            if described["id"] in self._recorder.numbers:
                continue
            reason = described["lost"]
            loss: JSONObject = {
                "id": described["id"],
                "qom-type": described["qom-type"],
                "reason": reason,
                "time": int(time.time()),
            }
            size = described.get("map", {}).get("size")
            if size is not None:
                loss["size"] = size
            self._storage.log.write({"lost": loss, "was": number})
            log.warning(
                "lost with the restart: '%s': %s", described["id"], REASONS.get(reason, reason)
            )


async def restore(tree: Tree, described: Description, fd: int) -> UserCreatable:
    """Make an object again; it is not in the tree yet.

    Args:
        fd: its memory's file, the object's once this returns; -1 where there is none.

    Raises:
        QMPError: it can't be made.
    """
    try:
        qom_type = tree.type_by_name(described["qom-type"])
        if qom_type is None or qom_type.factory is None:
            raise QMPError(f"invalid object type: {described['qom-type']}")
        obj: UserCreatable = qom_type.factory(qom_type, tree, described["id"])
        obj.set_properties(obj.restoring(described))
        # It is kept even above the present limits.
        quota = tree.objects.quota
        obj.charge = quota.charge(obj.memory_size, described["owner"], obj.descriptors)
        try:
            await obj.restore(described, fd)
        except BaseException:
            obj.charge.end()
            raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as wrong:
        raise QMPError(f"its description is not understood: {wrong}") from None
    return obj


def _check_members(described: Description, members: dict[str, type | tuple[type, ...]]) -> None:
    for name, kind in members.items():
        if not isinstance(described.get(name, Ellipsis), kind):
            raise Unreadable(f"'{name}' of an object is not what it should be")


def _spell(options: JSONObject) -> str:
    """Options as a command line has them, but for secrets."""
    others = [
        f"{name}={'...' if name == 'data' else value if type(value) is str else json.dumps(value)}"
        for name, value in options.items()
        if name != "qom-type"
    ]
    return printable(",".join([options["qom-type"], *others]))
