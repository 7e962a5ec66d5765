"""Permissions: what is done to each block node and denied to others, and which uses conflict.

Users say by locks what they do to a node and deny to others. A node asks of those that it
stands on what it needs for that, down to the files, which are locked so against other
processes. Texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import cast

from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.named_tuple import NamedTuple
from memd.standin.block.image_locks import (
    NAMES,
    NO_READ,
    NO_RESIZE,
    NO_WRITE,
    READ,
    RESIZE,
    REWRITE,
    UNSHARED,
    WRITE,
    Locks,
)
from memd.standin.block.nodes import JOB_FILTERS, Drive, JobName, Node

_TOLD = {does: name.replace(" ", "-") for does, name in NAMES.items()}
"""What is done to a node, as QAPI's `BlockPermission`."""


class Use(NamedTuple):
    """A use of a node.

    Attributes:
        stamp: is larger than those of older ones.
        user: what uses the node.
        kind: QAPI's `XDbgBlockGraphNodeType` of that.
        name: of that.
        role: what the node is to that.
        claim: what that does to it, and denies to others.
    """

    stamp: int
    user: object
    kind: str
    name: str
    role: str
    claim: Locks

    @property
    def by(self) -> str:
        """Who uses the node, as errors call that."""
        match self.kind:
            case "block-driver":
                return f"node '{self.name}'"
            case "block-job":
                return "{} job '{}'".format(*cast(JobName, self.user))
        return f"block device '{self.name}'" if self.name else "an unnamed block device"


class Permissions:
    """What is done to nodes at this moment.

    Args:
        nodes: all of them, the oldest first.
        inactive: whether images are another machine's.

    Attributes:
        of: what is done to each node and denied to others, as locks of a file say it.
    """

    def __init__(self, nodes: Iterable[Node], *, inactive: bool) -> None:
        self._inactive = inactive
        self.of: dict[Node, Locks] = {
            node: frozenset[int]().union(*(each.locks for each in node.users if not inactive))
            for node in nodes
        }
        # The youngest first: most are above those below them.
        todo = [*self.of]
        while todo:
            at = todo.pop()
            for role, below in at.roles:
                needs = self._needs(at, role, below)
                if not needs <= self.of[below]:
                    self.of[below] |= needs
                    todo.append(below)

    def _needs(self, node: Node, role: str, below: Node) -> Locks:
        """What a node does to one below it, which has that role, and denies to others."""
        claim = self.of[node]
        needs: Locks
        if node.driver in JOB_FILTERS:
            needs = _needs_of_job(node, role, claim)
        elif role == "backing":
            needs = claim & {READ} | ({NO_WRITE, NO_RESIZE} if NO_WRITE in claim else set())
        elif node.driver != "qcow2":
            needs = claim
            if node.is_part:
                needs |= {NO_RESIZE}
            if node.driver == "copy-on-read" and not self._inactive:
                needs |= {REWRITE}
        elif self._inactive:
            needs = {READ}
        else:
            does = set() if node.read_only else {WRITE, RESIZE, *(claim & {REWRITE})}
            needs = {READ, NO_WRITE, NO_RESIZE, *does, *(claim & {NO_READ})}
        return needs - {NO_WRITE, NO_RESIZE} if below.shared else needs

    def refusals(self) -> dict[Node, QMPError]:
        """The nodes that are used as they can't be, and why not."""
        return {node: error for node in self.of if (error := self._refusal(node))}

    def _refusal(self, node: Node) -> QMPError | None:
        locks = self.of[node]
        if any(each in locks and each + UNSHARED in locks for each in NAMES):
            error = _conflict(self._uses(node), node)
            if error is not None:
                return error
        if node.read_only and locks & {WRITE, REWRITE}:
            return QMPError("Block node is read-only")
        return None

    def _uses(self, node: Node) -> list[Use]:
        """Those that use a node, the youngest first."""
        uses = [
            Use(each.stamp, each, "block-backend", each.label, each.role, each.locks)
            if each.job is None
            else Use(each.stamp, each.job, "block-job", each.job.id, each.role, each.locks)
            for each in node.users
        ]
        for above in node.parents:
            for role, below in above.roles:
                if below is node:
                    needs, stamp = self._needs(above, role, node), above.stamps[above.link(role)]
                    uses.append(Use(stamp, above, "block-driver", above.name, role, needs))
        return sorted(uses, key=attrgetter("stamp"), reverse=True)

    def graph(self, drives: Iterable[Drive]) -> JSONObject:
        """QAPI's `XDbgBlockGraph`: who does what to each node, and shares what.

        Args:
            drives: all of them, those without a medium, too.
        """
        numbers: dict[object, int] = {}
        nodes: list[JSON] = []
        edges: list[JSON] = []

        def number(user: object, kind: str, name: str) -> int:
            if user not in numbers:
                numbers[user] = len(numbers) + 1
                nodes.append({"id": numbers[user], "type": kind, "name": name})
            return numbers[user]

        for drive in drives:
            number(drive, "block-backend", drive.label)
        for node in self.of:
            below = number(node, "block-driver", node.name)
            for use in self._uses(node):
                shared = [each for does, each in _TOLD.items() if does + UNSHARED not in use.claim]
                edges.append(
                    {
                        "parent": number(use.user, use.kind, use.name),
                        "child": below,
                        "name": use.role,
                        "perm": [each for does, each in _TOLD.items() if does in use.claim],
                        "shared-perm": shared,
                    }
                )
        return {"nodes": nodes, "edges": edges}


def _needs_of_job(node: Node, role: str, claim: Locks) -> Locks:
    """What a filter of a job does to a node below it, and denies to others."""
    if node.driver == "commit_top":
        return frozenset()
    if role == "target":
        return {WRITE, NO_RESIZE}
    if node.driver == "copy-before-write" and node.used:
        return {*claim, READ, NO_WRITE, NO_RESIZE}
    return {*claim - {READ, NO_WRITE}, NO_RESIZE} if node.commits else claim


def _conflict(uses: list[Use], node: Node) -> QMPError | None:
    """The refusal where one user of a node does what another one denies, or None.

    Args:
        uses: the youngest first; of those that can't be together they are named.
    """
    # Two of each, since nobody is kept from what it denies others.
    doers = {does: [use for use in uses if does in use.claim][:2] for does in NAMES}
    for denier in uses:
        found = [
            doer
            for does, some in doers.items()
            if does + UNSHARED in denier.claim
            for doer in some
            if doer is not denier
        ]
        if found:
            return _refused(node, max(found, key=attrgetter("stamp")), denier)
    return None


def _refused(node: Node, doer: Use, denier: Use) -> QMPError:
    what = ", ".join(
        name
        for does, name in NAMES.items()
        if does in doer.claim and does + UNSHARED in denier.claim
    )
    one, other = (
        f"{use.by} (uses node '{node.name}' as '{use.role}' child)" for use in (doer, denier)
    )
    return QMPError(
        f"Permission conflict on node '{node.name}': permissions '{what}' are both required by"
        f" {one} and unshared by {other}."
    )
