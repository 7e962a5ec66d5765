"""The graph of block nodes: which there are, what stands on what, and when a node goes.

A node stays as long as it is in use, or was made by a client who has not deleted it.
After each change of the graph `relock` adds up what all users do (`permissions.py`), refuses
what is in each other's way, and locks the files so; `sync` puts bitmaps into images that
are not written to any more (`persistent_bitmaps.py`); `collect` closes what nothing uses.
Rules and texts were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from memd.compat import Compat
from memd.errors import QMPError, printable, reset_meanwhile
from memd.qom.tree import Tree
from memd.standin.block.filenames import filename_of
from memd.standin.block.image_locks import READ, REWRITE, WRITE, Locks
from memd.standin.block.nodes import JOB_FILTERS, REMOTE, Claim, Drive, Node, check_name, waits_for
from memd.standin.block.permissions import Permissions
from memd.work import Job

if TYPE_CHECKING:
    from memd.standin.block.persistent_bitmaps import Storing
    from memd.standin.chardevs import Sets

_PATIENCE = 30.0
"""Seconds that the end of the process waits for file systems to take bitmaps."""


class Graph:
    """The block nodes of a stand-in, and the drives that they are in.

    Args:
        compat: whose nodes it has.
        tree: says what their files have to be below, and has groups of limits.
        sets: the sets of descriptors that paths may name.
        say: takes lines for standard error.

    Attributes:
        account: counts them, and what is made of them.
        making: the names of nodes and drives whose files are being opened.
        drives: in the order in which they came.
        inactive: whether images are another machine's: this one has gone, or not yet come.
    """

    inactive = False

    def __init__(self, compat: Compat, tree: Tree, sets: Sets, say: Callable[[str], None]) -> None:
        self.compat = compat
        self.account = tree.objects.account
        self._tree = tree
        self._sets = sets
        self._say = say
        self._nodes: dict[str, Node] = {}
        self.making: set[str] = set()
        self._closed = False
        # The nodes whose users could not be refused.
        self._tolerated: set[Node] = set()
        self._numbers = 0
        self.drives: list[Drive] = []
        self._drives: dict[str, Drive] = {}

    async def close(self) -> None:
        """Close every node; those that are being opened are closed then."""
        self._closed = True
        nodes = self.all()
        for node in nodes:
            if node.group is not None:
                node.group.users.discard(node)
        await self._put(_storing(nodes), nodes)
        end_counting([*nodes, *self.drives])

    async def store(self) -> None:
        """Put bitmaps into all images, as the process ends."""
        await self._put(_storing(self.all()), [], _PATIENCE)

    async def _put(
        self, storing: list[Storing], closed: list[Node], patience: float | None = None
    ) -> None:
        """Put bitmaps into their images, and close nodes then."""
        todo = [each for each in storing if each.todo]
        nodes = [*closed, *(each.node for each in todo)]

        def work() -> None:
            for each in todo:
                each.run()
            close_files(closed)

        if nodes:
            await Job(work, on=waits_for(nodes), patience=patience, release=True)
        for each in storing:
            each.say_lost(self._say)

    def find(self, name: str) -> Node | None:
        """The node of that name, or what is in the drive of that name."""
        drive = self.drive(name)
        return self._nodes.get(name) if drive is None else drive.node

    def drive(self, name: str) -> Drive | None:
        """The drive of that name."""
        return self._drives.get(name)

    def add_drive(self, drive: Drive) -> None:
        """A drive is there."""
        self.drives.append(drive)
        if drive.name:
            self._drives[drive.name] = drive

    def take_name(self, drive: Drive) -> None:
        """A drive has a name no more."""
        self._drives.pop(drive.name, None)
        drive.name = ""

    def remove_drive(self, drive: Drive) -> None:
        """A drive is there no more."""
        end_counting([drive])
        self.drives.remove(drive)
        self._drives.pop(drive.name, None)

    def all(self) -> list[Node]:
        """Every node, the oldest first."""
        return [*self._nodes.values()]

    def named(self, name: str, device: str | None = None) -> Node:
        """The node of that name; raises `QMPError` where there is none.

        Args:
            device: another name for it, where a client may give one of two.
        """
        device = name if device is None else device
        drive, node = self.drive(device), self._nodes.get(name)
        if drive is not None:
            node = drive.node
            if node is None:
                raise QMPError(f"Device '{device}' has no medium")
        if node is None:
            raise QMPError(f"Cannot find device='{device}' nor node-name='{name}'")
        return node

    def free(self, name: str, device: str | None = None) -> Node:
        """The same, of a node that no node above it and no block job keeps others from."""
        node = self.named(name, device)
        self.check_free(node)
        return node

    def root(self, name: str) -> Node:
        """The node of that name; raises `QMPError` where there is none, or another one uses it."""
        node = self.named(name)
        self.check_root(node)
        return node

    def check_open(self) -> None:
        """Raise `QMPError` where all is closed: the machine was made anew meanwhile."""
        if self._closed:
            raise reset_meanwhile()

    def _take_name(self, name: str | None) -> str:
        """The name of a node that is to be; raises `QMPError` where it can't be."""
        if name is None:
            self._numbers += 1
            name = f"#block{self._numbers:03}"
        else:
            check_name(name)
        if self.drive(name) is not None:
            raise QMPError(f"node-name={name} is conflicting with a device id")
        if name in self._nodes or name in self.making:
            raise QMPError(f"Duplicate nodes with node-name='{name}'")
        return name

    def check_free(self, node: Node) -> None:
        """Raise `QMPError` where a node above or a block job keeps others from it."""
        reasons = [
            (each.stamp, f"block device is in use by block job: {each.job.kind}")
            for each in node.claims
            if each.job is not None
        ]
        reasons += (
            (each.stamps["backing"], f"node is used as backing hd of '{each.name}'")
            for each in node.parents
            if each.backing is node
        )
        if reasons:
            # The youngest one is told.
            raise QMPError(f"Node '{node.name}' is busy: {max(reasons)[1]}")

    def check_root(self, node: Node) -> None:
        """Raise `QMPError` where a node above or a block job uses a node."""
        if node.job is not None or node.above:
            raise QMPError("Need a root block node")

    async def set_active(self, active: bool) -> None:
        """Lock the images, since the machine has come, or leave them to where it goes.

        Raises:
            QMPError: another process has one locked; none is locked then.
        """
        if self.inactive != active:
            return
        self.inactive = not active
        try:
            if not active:
                await self.sync()
            await self.relock(refuse=active)
            for node in self.all() if active else ():
                await self._keep(node, again=True)
        except QMPError:
            self.inactive = True
            await self.sync()
            await self.relock(refuse=False)
            raise

    async def sync(self, *, marks: bool = True) -> None:
        """Put bitmaps into images that are not written to any more, and mark those that are.

        Args:
            marks: whether to do the latter, too.
        """
        for node in self.all():
            wanted = self._kept(node)
            # What was opened just now is read by who does so.
            if node.keeps in ("", wanted) or (wanted == "in use" and not marks):
                continue
            try:
                await self._keep(node)
            except QMPError as error:
                self._say(f"{printable(node.name)}: {printable(error.desc)}")
            if not (node.owned or node.holds or node.users or node.parents):
                # Another command could not close it meanwhile.
                await self.collect(node)

    def _kept(self, node: Node) -> str:
        """What is to be done about the bitmaps of an image; see `Node.keeps`."""
        if node.header is None or node.header.version < 3 or self.inactive:
            return ""
        return "read" if node.read_only else "in use"

    async def _keep(self, node: Node, *, again: bool = False) -> None:
        """Do what is to be done about the bitmaps of an image.

        Args:
            again: whether another process may have changed the image meanwhile.

        Raises:
            QMPError: it can't be done.
        """
        wanted = self._kept(node)
        if wanted or node.keeps:
            from memd.standin.block.persistent_bitmaps import keep

            await keep(node, wanted, self.account, self._say, again=again)

    def permissions(self) -> Permissions:
        """What is done to each node now."""
        return Permissions(self._nodes.values(), inactive=self.inactive)

    async def relock(self, *, refuse: bool = True) -> None:
        """Lock the files of all nodes as those that use them need it.

        Args:
            refuse: whether it is an error that another process is in the way; what has
                happened can't be refused any more.

        Raises:
            QMPError: another process is, or another user of a node. A caller that has just had a
                node used undoes that, and calls this again.
        """
        permissions = self.permissions()
        refusals = permissions.refusals()
        new = {*refusals} - self._tolerated
        for node, refusal in refusals.items() if refuse else ():
            # The highest one is told.
            if node in new and new.isdisjoint(node.higher()):
                raise refusal
        self._tolerated = {*refusals}
        # What another command has not locked yet is checked for this one, too.
        changed: dict[Node, Locks] = {}
        for node in self._nodes.values():
            now = permissions.of[node]
            if node.fd >= 0 and node.locking != "off" and not (node.wanted == now == node.locked):
                node.wanted = now
                changed[node] = now - node.locked if refuse else frozenset()
        if changed:
            await Job(lambda: _lock(changed), on=waits_for([*changed]), release=not refuse)

    @asynccontextmanager
    async def using(self, node: Node, locks: Locks) -> AsyncIterator[None]:
        """A context in which a command uses a node.

        Args:
            locks: what it does to the node, and denies to others.

        Raises:
            QMPError: another user of the node is in the way, or another process.
        """
        claim = Claim(node, locks)
        try:
            await self.relock()
            yield
        finally:
            claim.end()
            await self.relock(refuse=False)

    def is_read(self, node: Node) -> bool:
        """Whether something reads a node."""
        return READ in self.permissions().of[node]

    def protect(self, node: Node) -> None:
        """Have a node, and the nodes of its file that follow it, read-only, if nobody writes."""
        layers = node.following()
        if any(each.driver in (*REMOTE, *JOB_FILTERS, "copy-on-read") for each in layers):
            # They can't be opened anew.
            return
        before = [each.read_only for each in layers]
        for each in layers:
            each.read_only = True
        wanted = self.permissions().of
        if any(wanted[each] & {WRITE, REWRITE} for each in layers):
            for each, was in zip(layers, before, strict=True):
                each.read_only = was

    async def collect(self, *nodes: Node | None) -> None:
        """Close nodes that have neither a user nor a name of a client's, and those below them."""
        await self.sync()
        gone: list[Node] = []
        storing: list[Storing] = []
        todo = [*nodes]
        while todo:
            at = todo.pop()
            if at is None or at.owned or at.holds or at.users:
                continue
            if at.parents or self._nodes.get(at.name) is not at:
                continue
            del self._nodes[at.name]
            gone.append(at)
            storing += _storing([at])
            todo += at.below
            at.leave()
        if gone:
            await self._put(storing, gone)
            end_counting(gone)
        await self.relock(refuse=False)

    def replace(self, old: Node, new: Node, *, same: bool = False) -> None:
        """Have what uses a node use another one.

        Args:
            same: whether drives still have the same medium.
        """
        for drive in [*old.drives]:
            if same:
                drive.move(new)
            else:
                drive.insert(new)
        for claim in [*old.claims]:
            if claim.job is None:
                claim.move(new)
        # What the new one stands on stays below it.
        kept = {new, *new.lower()}
        for each in old.parents:
            for role, below in each.roles if each not in kept else ():
                if below is old:
                    setattr(each, each.link(role), new)
        self.rename(old, new)

    def put_above(self, node: Node, driver: str, name: str | None, target: Node | None) -> Node:
        """Make a filter of a job above a node; gives the filter, which nothing uses yet.

        Args:
            name: its name; None for one that it gets by itself.
            target: what it copies to, None for nothing.

        Raises:
            QMPError: no node can have that name.
        """
        made = Node(self._take_name(name), {"driver": driver})
        made.read_only = driver == "commit_top"
        made.implicit = name is None and driver != "copy-before-write"
        made.size, made.alignments = node.size, node.alignments
        self._nodes[made.name] = made
        made.child, made.target = node, target
        made.join()
        self.rename(made)
        return made

    def take_out(self, made: Node) -> None:
        """Have those that use a filter of a job use what is below it; the filter has no part."""
        if made.child is not None:
            self.replace(made, made.child, same=True)
            made.leave()

    def forget(self, made: Node) -> None:
        """A filter that was taken out is there no more."""
        del self._nodes[made.name]

    def rename(self, *nodes: Node) -> None:
        """Have nodes and those above them be told to be what they are made of now."""
        todo = [*nodes]
        while todo:
            at = todo.pop()
            at.filename = filename_of(at)
            todo += at.parents


def _storing(nodes: Iterable[Node]) -> list[Storing]:
    """The bitmaps of nodes that are put into their images."""
    nodes = [node for node in nodes if node.unstored]
    if not nodes:
        return []
    from memd.standin.block.persistent_bitmaps import Storing

    return [Storing(node) for node in nodes]


def _lock(changed: dict[Node, Locks]) -> None:
    """Lock the files of nodes as is wanted, all that can be. Runs in a thread."""
    refusals = []
    for node, checked in changed.items():
        try:
            node.lock(checked)
        except QMPError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]


def end_counting(gone: Iterable[Node | Drive]) -> None:
    """Count them no more."""
    for each in gone:
        if each.counted is not None:
            each.counted.end()
        for bitmap in each.bitmaps.values() if isinstance(each, Node) else ():
            bitmap.counted.end()


def close_files(nodes: list[Node]) -> None:
    """Close the files of nodes; in a thread."""
    for node in nodes:
        node.close()
