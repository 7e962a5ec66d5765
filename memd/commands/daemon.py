"""What commands act on: the daemon's state, shared by all its clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from memd.commands.fdsets import FdSets
from memd.compat import Compat
from memd.outcome import JSON, Constant

if TYPE_CHECKING:
    from memd.qapi import Schema
    from memd.qom import Tree


class Daemon:
    """The state that outlives every client.

    Attributes:
        compat: whose texts and introspection are given.
        tree: the QOM tree; its `/objects` are the backends.
        fdsets: the descriptor sets of `add-fd`.
        name: what `query-name` gives, None where there is none.
        uuid: what `query-uuid` gives.
        run_state: "running", "paused" or "prelaunch" (QAPI `RunState`).
        kvm_enabled: whether KVM was asked for and is there.
    """

    __slots__ = ("_constants", "_schema", "compat", "fdsets", "kvm_enabled", "name", "run_state", "tree", "uuid")

    def __init__(
        self,
        tree: Tree,
        compat: Compat = Compat.V10_0,
        *,
        name: str | None = None,
        uuid: str = "00000000-0000-0000-0000-000000000000",
        run_state: str = "running",
        kvm_enabled: bool = False,
    ) -> None:
        self.tree = tree
        self.compat = compat
        self.fdsets = FdSets()
        self.name = name
        self.uuid = uuid
        self.run_state = run_state
        self.kvm_enabled = kvm_enabled
        self._schema: Schema | None = None
        self._constants: dict[str, Constant] = {}

    def constant(self, name: str, make: Callable[[], JSON]) -> Constant:
        """The value of a command that always answers the same, made when first asked for."""
        constant = self._constants.get(name)
        if constant is None:
            constant = self._constants[name] = Constant(make())
        return constant

    @property
    def schema(self) -> Schema:
        """The QAPI schema, read when it is first asked for: the greeting needs none."""
        if self._schema is None:
            from memd.qapi import load_schema

            self._schema = load_schema(self.compat)
        return self._schema
