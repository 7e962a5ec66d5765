"""Making again what the last daemon had, from what the service manager kept."""

from __future__ import annotations

import json
import logging
import os
import time
from typing import TYPE_CHECKING, Any

from memd import backends
from memd.app.errors import StartError
from memd.app.keeper import NOT_STORED, Keeper
from memd.app.leftovers import remove_half_made, throw_away
from memd.backends import parking
from memd.backends.base import MemoryBackend
from memd.errors import QMPError, printable
from memd.json_types import JSON
from memd.qom.object import UserCreatable
from memd.qom.quota import NOBODY
from memd.qom.tree import Tree
from memd.server.journal import Unreadable
from memd.server.store import Store
from memd.server.stored import LIST, name_of, number_of
from memd.work import Run

if TYPE_CHECKING:
    from memd.cli.config import Config
    from memd.hostmem.paths import Roots

MISSING = "missing"
FAILED = "failed"

REASONS = {
    parking.ANONYMOUS: "it was private memory, which is in no file",
    parking.COPIED: "it was a private mapping, and what was written to it was the daemon's alone",
    NOT_STORED: "the service manager's store had no room for it",
    MISSING: "its descriptor was not in the service manager's store",
    FAILED: "it could not be made again",
}
"""Why an object is lost (QAPI `MemdevLossReason`), in words."""

ALL_KEPT = (
    "All descriptors are kept. To give them up, stop the unit and empty its store"
    " (systemctl clean --what=fdstore)."
)
WAY_OUT = f"{ALL_KEPT} To give up only what can't be had, start with --accept-loss."
"""What can be done about what can't be read; about what can't be made again."""

_CREDENTIALS = ("tls-creds", "secret")
"""How the names of types begin that TLS is made of."""

Description = dict[str, Any]

log = logging.getLogger("memd")


class Restoring:
    """The objects of the last daemon, on their way into this one.

    Args:
        config: the parsed command line.
        tree: where they go.
        keeper: told by which number each is known.
        store: what was kept.
        run: runs commands.

    Raises:
        Unreadable: what was kept is not whole. Nothing was changed.
    """

    __slots__ = ("_config", "_found", "_keeper", "_last", "_run", "_store", "_tree")

    def __init__(self, config: Config, tree: Tree, keeper: Keeper, store: Store, run: Run) -> None:
        self._config = config
        self._tree = tree
        self._keeper = keeper
        self._store = store
        self._run = run
        # Descriptors that were passed and are nobody's yet, by name.
        self._found = {name: fd for name, fd in config.stored.items() if name != LIST}
        self._last: dict[int, Description] = {}
        for number, line in sorted(store.ledger.objects.items()):
            described = json.loads(line[9:])
            self._check(number, described)
            self._last[number] = described

    def _check(self, number: int, described: Description) -> None:
        """See that an object's descriptor is there, and the right one."""
        if not described["parked"]:
            return
        fd = self._found.get(name_of(number))
        try:
            if fd is None:
                raise parking.Changed("its descriptor is missing")
            parking.check(described, fd)
        except parking.Changed as wrong:
            if not self._config.accept_loss:
                raise Unreadable(f"object '{described['id']}': {wrong}") from None
            described["parked"], described["lost"] = False, MISSING

    def clear_up(self) -> None:
        """Remove the files of what was being made; raises `StartError`."""
        try:
            remove_half_made(self._store, self._last.values())
        except OSError as failed:
            raise StartError(f"the list of objects can't be kept: {failed.strerror}") from None

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
        before = self._tree.roots
        for number, described in self._last.items():
            if described["qom-type"].startswith(_CREDENTIALS) == credentials:
                reason = described["lost"]
                if reason == parking.COPIED and number in self._store.ledger.clean:
                    reason = None
                if credentials:
                    # Nobody's are those of the command line, which is not confined.
                    self._tree.roots = None if described["owner"] is NOBODY else roots
                obj = None if reason else await self._make_one(number, described)
                if obj is not None:
                    again.append((obj, described))
                else:
                    described["lost"] = reason or FAILED
        self._tree.roots = before
        for obj, described in again:
            try:
                parking.link(obj, described)
            except QMPError as error:
                if not self._config.accept_loss:
                    raise self._cannot_restore(described, error) from None
                log.warning("'%s' has no %s now: %s", obj.name, parking.LINK, error.desc)

    async def _make_one(self, number: int, described: Description) -> UserCreatable | None:
        """One object; None where that fails and may."""
        id, name = described["id"], name_of(number)
        try:
            fd = self._found.get(name, -1) if described["parked"] else -1
            obj: UserCreatable = await self._run(parking.restore(self._tree, described, fd))
            self._found.pop(name, None)
            self._tree.attach(obj)
        except QMPError as error:
            # They are in files, which come and go.
            if self._config.accept_loss or described["qom-type"].startswith(_CREDENTIALS):
                log.warning("cannot restore '%s': %s", id, error.desc)
                return None
            raise self._cannot_restore(described, error) from None
        self._keeper.numbers[id] = number
        return obj

    def _cannot_restore(self, described: Description, error: QMPError) -> StartError:
        text = f"cannot restore '{described['id']}': {error.desc}"
        return StartError(text, hint=WAY_OUT)

    def has(self, options: dict[str, JSON]) -> bool:
        """Whether an object of the command line is there already, from the last daemon.

        Raises:
            StartError: there is another of its id.
        """
        number = self._keeper.numbers.get(options["id"])
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

    def _same(self, before: dict[str, JSON], now: dict[str, JSON]) -> bool:
        """Whether options make the same memory: a default may be spelled out."""
        try:
            made = [backends.prepare(self._tree, options) for options in (before, now)]
        except QMPError:
            return False
        one, other = (parking.describe(obj) for obj in made)
        return isinstance(made[0], MemoryBackend) and one == other

    def finish(self) -> None:
        """See to what can't be had again, and to what belongs to nothing.

        Raises:
            OSError: it can't be noted.
        """
        store = self._store
        # What is left was being made or deleted, or belongs to what is lost.
        for number, span in list(store.ledger.discards.items()):
            throw_away(self._found.get(name_of(number), -1), span)
            store.write({"discarded": number})
        for name, fd in self._found.items():
            os.close(fd)
            store.remove(number_of(name))
        self._found.clear()
        self._last.clear()

    def name_lost(self) -> None:
        """Note what can't be had again, and say so; raises `OSError`."""
        for number, described in self._last.items():
            if described["id"] not in self._keeper.numbers:
                self._lose(self._store, number, described)

    def _lose(self, store: Store, number: int, described: Description) -> None:
        reason = described["lost"]
        loss: dict[str, JSON] = {
            "id": described["id"],
            "qom-type": described["qom-type"],
            "reason": reason,
            "time": int(time.time()),
        }
        size = described.get("map", {}).get("size")
        if size is not None:
            loss["size"] = size
        store.write({"lost": loss, "was": number})
        log.warning("lost with the restart: '%s': %s", described["id"], REASONS[reason])


def _spell(options: dict[str, JSON]) -> str:
    """Options as a command line has them, but for secrets."""
    others = [
        f"{name}={'...' if name == 'data' else value if type(value) is str else json.dumps(value)}"
        for name, value in options.items()
        if name != "qom-type"
    ]
    return printable(",".join([options["qom-type"], *others]))
