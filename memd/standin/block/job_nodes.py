"""The block nodes that a job uses: what it does to them and denies to others, its filter.

Observed on QEMU 10.0.2.
"""

from __future__ import annotations

from contextlib import ExitStack

from memd.errors import QMPError, prefixed
from memd.standin.block.blocks import Blocks
from memd.standin.block.image_locks import Locks
from memd.standin.block.nodes import Claim, JobName, Node


class JobNodes:
    """The nodes of a job, from before it starts until it is over.

    Args:
        blocks: all nodes.
        id: the job's.
        kind: QAPI's `JobType`.

    Attributes:
        job: the job's kind and id.
        filter: the node that the job has put above its source, or None.
    """

    def __init__(self, blocks: Blocks, id: str, kind: str) -> None:
        self._blocks = blocks
        self.job = JobName(kind, id)
        self._claims: list[Claim] = []
        self._later: list[tuple[Node, Locks, str]] = []
        # What ends once the job moves nothing any more.
        self._moving = ExitStack()
        self._frozen: list[Node] = []
        self._opened: list[Node] = []
        self.filter: Node | None = None

    async def put_above(
        self, node: Node, driver: str, name: str | None, target: Node | None = None
    ) -> Node:
        """Put the job's filter between a node and those that use it; gives the filter.

        Args:
            name: the filter's; None for one that it gets by itself.
            target: what it copies to, None for nothing.

        Raises:
            QMPError: no node can have that name, or the filter does what another user denies.
        """
        # Those that are opened as other nodes are say so.
        opened = driver not in ("mirror_top", "commit_top")
        try:
            with prefixed("Could not create node: " if opened else ""):
                self.filter = self._blocks.put_above(node, driver, name, target)
                await self._blocks.relock()
            with prefixed("Could not replace node: " if opened else ""):
                self._blocks.replace(node, self.filter, same=True)
                await self._blocks.relock()
        except QMPError:
            self.finish()
            if self.filter is not None:
                self._blocks.forget(self.filter)
                await self._blocks.relock(refuse=False)
            raise
        return self.filter

    def claim(self, node: Node, role: str, locks: Locks = frozenset()) -> None:
        """Keep commands from a node, and deny something to others.

        Args:
            role: what the node is to the job.
            locks: what the job does to it, and what it denies.
        """
        self._claims.append(Claim(node, locks, role, self.job))

    def use(self, node: Node, locks: Locks) -> None:
        """Use a node as a device does."""
        self._moving.callback(Claim(node, locks).end)

    def use_later(self, node: Node, locks: Locks, role: str) -> None:
        """Use a node and keep commands from it, once the others are used."""
        self._later.append((node, locks, role))

    def note(self, node: Node, granularity: int, *, recording: bool) -> None:
        """Have a node's writes noted in a bitmap without a name."""
        row = (granularity, 0, recording)
        node.nameless.append(row)
        self._moving.callback(node.nameless.remove, row)

    def freeze(self, *nodes: Node) -> None:
        """Have nodes stand on what they stand on now."""
        for each in nodes:
            each.frozen += 1
        self._frozen += nodes

    def write_to(self, node: Node) -> None:
        """Have a node written to that may be read-only, as long as the job is there.

        Raises:
            QMPError: it can't be.
        """
        if node.read_only and any(each.tells_share for each in node.following()):
            raise QMPError("Cannot change the option 'force-share'")
        if node.read_only:
            node.set_read_only(False)
            self._opened.append(node)

    def keep(self) -> None:
        """Have what was read-only written to from now on."""
        self._opened.clear()

    async def check(self) -> None:
        """Raise `QMPError` where the nodes can't be used so; they are not used then."""
        try:
            await self._blocks.relock()
            for node, locks, role in self._later:
                self.use(node, locks)
                self.claim(node, role)
                await self._blocks.relock()
        except QMPError:
            await self.end()
            raise

    def finish(self) -> None:
        """The job moves nothing any more, and has no filter; commands are still kept away."""
        self._moving.close()
        for claim in self._claims if self.job.kind != "stream" else ():
            claim.locks = frozenset()
        for node in self._frozen:
            node.frozen -= 1
        self._frozen.clear()
        for node in self._opened:
            node.set_read_only(True)
        self._opened.clear()
        if self.filter is not None:
            self._blocks.take_out(self.filter)

    async def end(self) -> None:
        """The job is over: others may do everything with its nodes."""
        self.finish()
        nodes = [each.node for each in self._claims]
        for each in self._claims:
            each.end()
        self._claims.clear()
        await self._blocks.collect(*nodes, self.filter)
