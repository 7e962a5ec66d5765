"""Objects that `object-add` makes."""

from __future__ import annotations

from collections.abc import Iterator

from memd.json_types import JSON, JSONObject
from memd.places import Share
from memd.qom.object import ObjectType, Paths, QObject
from memd.qom.quota import Charge
from memd.work import Completion

Description = JSONObject
"""The description of an object in JSON; see `UserCreatable.describe`."""

ANONYMOUS = "anonymous"
COPIED = "copied"
"""Why memory does not outlive its daemon (QAPI `MemdevLossReason`): it is in no file; or
it is a private mapping, whose pages are the daemon's alone once they were written."""

# In which order properties are set, and so which of several refusals a client
# gets to see. QEMU's is fixed by the names and does not follow the order in
# which they were given (observed on 10.0.2 and 11.1.3).
_SET_ORDER = {
    name: at
    for at, name in enumerate(
        (
            "share",
            "prealloc-context",
            "reserve",
            "prealloc",
            "cpu-affinity",
            "chardev",
            "offset",
            "x-use-canonical-path-for-ramblock-id",
            "close-action",
            "hugetlbsize",
            "readonly",
            "rom",
            "host-nodes",
            "prealloc-threads",
            "size",
            "hugetlb",
            "merge",
            "dump",
            "pmem",
            "policy",
            "seal",
            "pretty",
            "node-affinity",
            "discard-data",
            "mem-path",
            "align",
        )
    )
}


class UserCreatable(QObject):
    """An object that `object-add` makes: `/objects/<id>` once it is whole.

    Attributes:
        charge: what it is counted as; None before its id is taken.
        texts: what `texts_size` is counted as; None where nothing is, or not yet.
        given_up: set at the end of its making, if an `object-del` has cancelled that.
        kept: whether its memory outlives this daemon; None where nothing keeps any.
        lingers: whether it was deleted, and a file system has not closed its file yet.

    Its own children, if any, carry an index in their names (`m0[0]`): an id
    can't, so a partial path that begins with an id need not be looked for here.
    """

    charge: Charge | None = None
    texts: Share | None = None
    given_up: Completion | None = None
    kept: bool | None = None
    lingers = False

    keeps_texts = False
    """Whether the daemon itself keeps what it was given, and that may be much: see `texts_size`."""

    def __init__(self, qom_type: ObjectType, tree: Paths, id: str) -> None:
        super().__init__(qom_type, tree)
        self.name = id

    def set_properties(self, options: JSONObject) -> None:
        """Set the properties that `object-add` gave, in QEMU's order.

        Args:
            options: without `qom-type` and `id`.

        Raises:
            QMPError: a property refuses its value; the first one wins.
        """
        last = len(_SET_ORDER)
        for name in sorted(options, key=lambda each: _SET_ORDER.get(each, last)):
            self.set_property(name, options[name])

    @property
    def memory_size(self) -> int:
        """Bytes of memory that it has, or is to have."""
        return 0

    @property
    def descriptors(self) -> int:
        """How many descriptors its memory keeps open, at most."""
        return 0

    @property
    def texts_size(self) -> int:
        """Bytes that the daemon itself keeps of what it was given, and of what came of that."""
        return 0

    def explain(self) -> list[str]:
        """The effect of `object-add` in words; empty if it can't be predicted.

        Raises:
            QMPError: it would fail.
        """
        return []

    async def complete(self) -> None:
        """Make it real.

        Raises:
            QMPError: it can't be; nothing is left behind.
        """

    def give_up(self) -> bool:
        """Have `complete`, which waits for a job, raise soon; gives whether that can be done."""
        return False

    async def reload(self) -> None:
        """Read again what was read when it was made; raises `QMPError`, and is as it was."""

    def check_delete(self) -> None:
        """Raise `QMPError` where it is in use and has to stay."""

    async def finalize(self) -> None:
        """Free what it holds."""

    # A restart

    def describe(self) -> Description:
        """Its description in JSON, from which the next daemon restores it."""
        # Of what was never given some can't be given either.
        usual = _defaults(self)
        return {
            "id": self.name,
            "qom-type": self.qom_type.name,
            "properties": {name: value for name, value in _values(self) if value != usual[name]},
            "owner": None if self.charge is None else self.charge.owner,
        }

    def restoring(self, described: Description) -> JSONObject:
        """The properties with which it is made again."""
        properties: JSONObject = described["properties"]
        return properties

    async def restore(self, described: Description, fd: int) -> None:
        """Make it real again; its properties are set.

        Args:
            described: what it was for the last daemon.
            fd: its memory's file, the object's once this returns; -1 where there is none.

        Raises:
            QMPError: it can't be.
        """
        await self.complete()

    def relink(self, described: Description) -> None:
        """Set what it can be told only once all objects are there; raises `QMPError`."""

    @property
    def memory_fd(self) -> int:
        """The descriptor with which its memory outlives the daemon; -1 for none."""
        return -1

    @property
    def holds_much(self) -> bool:
        """Whether others may wait for the memory that it holds."""
        return False

    def lost_reason(self) -> str | None:
        """Why its memory does not outlive the daemon; None if it does, or it has none."""
        return None

    def untouched(self) -> bool:
        """Whether none of its memory's pages is the daemon's alone; see COPIED."""
        return False

    def to_discard(self) -> list[int] | None:
        """The range of its file that a deletion discards: offset, length in bytes; or None."""
        return None

    def keep_data(self) -> None:
        """Have its file's data left alone when it is freed: it is not deleted."""

    def would_be(self, other: UserCreatable) -> bool:
        """Whether making the other one, neither of them made yet, comes to the same."""
        return False


def _values(obj: UserCreatable) -> Iterator[tuple[str, JSON]]:
    """The properties that can be read and set, with their values."""
    for name, prop in obj.qom_type.all_properties.items():
        if prop.getter is not None and prop.setter is not None:
            yield name, prop.getter(obj)


_usual: dict[str, JSONObject] = {}
"""The properties that an object of a type has before any is set."""


def _defaults(obj: UserCreatable) -> JSONObject:
    qom_type = obj.qom_type
    found = _usual.get(qom_type.name)
    if found is None and qom_type.factory is not None:
        fresh = qom_type.factory(qom_type, obj.tree, obj.name)
        found = _usual[qom_type.name] = dict(_values(fresh))
    return found or {}
