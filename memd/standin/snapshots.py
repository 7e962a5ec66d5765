"""Internal snapshots, which memd neither makes, loads nor deletes.

What QEMU refuses is refused in its words, and what it has nothing to do for is done.
What it would do is refused, too. Observed on QEMU 10.0.2.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from memd.compat import Compat
from memd.errors import QMPError
from memd.standin.jobs import Task

if TYPE_CHECKING:
    from memd.standin.blocks import Blocks, Node
    from memd.standin.jobs import Jobs
    from memd.standin.qcow2 import Header, Snapshot
    from memd.work import Event

Args = dict[str, Any]

_NONE_MADE = "memd makes no internal snapshots, and this would be one"
_NONE_LOADED = "memd loads no internal snapshots, and '{}' is one"
_NONE_DELETED = "memd deletes no internal snapshots, and '{}' is one"
_NONE_LISTED = "memd lists no internal snapshots, and node '{}' has some"


class Snapshots:
    """Commands about internal snapshots.

    Args:
        blocks: the nodes.
        jobs: those that `snapshot-save` and the like start.
        compat: whose words are said.
    """

    def __init__(self, blocks: Blocks, jobs: Jobs, compat: Compat) -> None:
        self._blocks = blocks
        self._jobs = jobs
        self._compat = compat

    # Of one node

    def make_of_node(self, args: Args) -> None:
        """`blockdev-snapshot-internal-sync`: raise `QMPError`."""
        device = args["device"]
        node = self._root(device)
        if node.read_only:
            raise QMPError(f"Device '{device}' is read only")
        header = _header(node)
        if header is None:
            raise QMPError(
                f"Block format '{node.driver}' used by device '{device}' does not support"
                " internal snapshots"
            )
        name = args["name"]
        if not name:
            raise QMPError("Name is empty")
        if _has(node, name):
            raise QMPError(f"Snapshot with name '{name}' already exists on device '{device}'")
        raise QMPError(_NONE_MADE)

    def delete_of_node(self, args: Args) -> None:
        """`blockdev-snapshot-delete-internal-sync`: raise `QMPError`."""
        device, id, name = args["device"], args.get("id"), args.get("name")
        node = self._root(device)
        if id is None and name is None:
            raise QMPError("Name or id must be provided")
        header = _header(node)
        if header is None:
            raise QMPError("Failed to get a snapshot list: Operation not supported")
        for each in header.snapshots:
            if id in (None, each.id) and name in (None, each.name):
                raise QMPError(_NONE_DELETED.format(each.name))
        told = ["null" if each is None else each for each in (id, name)]
        raise QMPError(
            f"Snapshot with id '{told[0]}' and name '{told[1]}' does not exist on device '{device}'"
        )

    def _root(self, name: str) -> Node:
        node = self._blocks.named(name)
        self._blocks.check_root(node)
        return node

    # Of the machine

    def save(self, args: Args) -> None:
        """`snapshot-save`; `savevm` where no devices are named: raise `QMPError`."""
        nodes = self._nodes(args)
        tag = args.get("tag")
        if nodes and "devices" in args and all(_has(node, tag) for node in nodes):
            raise QMPError(f"Snapshot '{tag}' already exists in one or more devices")
        self._of_state(nodes, args)
        raise QMPError(_NONE_MADE)

    def load(self, args: Args) -> None:
        """`snapshot-load`; `loadvm` where no devices are named: raise `QMPError`."""
        nodes, tag = self._nodes(args), args["tag"]
        if not all(_has(node, tag) for node in nodes):
            raise QMPError(f"Snapshot '{tag}' does not exist in one or more devices")
        found = _has(self._of_state(nodes, args), tag)
        if found is not None and not found.size:
            raise QMPError("This is a disk-only snapshot. Revert to it  offline using qemu-img")
        raise QMPError(_NONE_LOADED.format(tag))

    def delete(self, args: Args) -> None:
        """`snapshot-delete`; `delvm` where no devices are named; raises `QMPError`."""
        tag = args["tag"]
        if any(_has(node, tag) for node in self._nodes(args)):
            raise QMPError(_NONE_DELETED.format(tag))

    def told(self) -> str:
        """`info snapshots`; raises `QMPError` where there are some."""
        try:
            node = self._of_state([*filter(_can, self._used())], {})
        except QMPError as error:
            return error.desc if self._compat is Compat.V10_0 else f"Error: {error.desc}"
        header = _header(node)
        if header is not None and header.snapshots:
            raise QMPError(_NONE_LISTED.format(node.name))
        return "There is no snapshot available."

    def job(self, kind: str) -> Callable[[Args], Awaitable[tuple[Event, ...]]]:
        """Gives what starts a job: `snapshot-save`, `-load` or `-delete`."""
        does = {"save": self.save, "load": self.load, "delete": self.delete}[kind]

        def start(args: Args) -> Awaitable[tuple[Event, ...]]:
            error = None
            try:
                does(args)
            except QMPError as failed:
                error = failed.desc
            return self._jobs.start(args["job-id"], Task(f"snapshot-{kind}", error=error), {})

        return start

    def _nodes(self, args: Args) -> list[Node]:
        """The nodes that are named, or all that count; raises `QMPError` if one has to be left."""
        if "devices" not in args:
            nodes = self._used()
        else:
            if not args["devices"]:
                raise QMPError("At least one device is required for snapshot")
            known = {node.name: node for node in self._blocks.all()}
            for name in args["devices"]:
                if name not in known:
                    raise QMPError(f"No block device node '{name}'")
            nodes = [known[name] for name in args["devices"]]
        for node in nodes:
            if not _can(node):
                names = [each.name for each in reversed(node.drives) if each.name]
                raise QMPError(
                    f"Device '{(*names, node.name)[0]}' is writable but does not support snapshots"
                )
        return nodes

    def _used(self) -> list[Node]:
        """The nodes that may be written to and are in use, or wait to be."""
        found = dict.fromkeys(each.node for each in self._blocks.drives if each.node is not None)
        for node in self._blocks.all():
            if node.owned and (node.holds or not node.above):
                found[node] = None
        return [node for node in found if not node.read_only]

    def _of_state(self, nodes: list[Node], args: Args) -> Node:
        """The node that has, or would have, the machine's state; raises `QMPError`."""
        wanted = args.get("vmstate")
        for node in nodes:
            if wanted in (None, node.name):
                return node
        if wanted is not None:
            raise QMPError(f"vmstate block device '{wanted}' does not exist")
        raise QMPError("no block device can store vmstate for snapshot")


def _header(node: Node) -> Header | None:
    """That of the image which has a node's internal snapshots; None where none can have any."""
    return next((each.header for each in node.layers() if each.header is not None), None)


def _can(node: Node) -> bool:
    return not node.read_only and _header(node) is not None


def _has(node: Node, tag: str | None) -> Snapshot | None:
    header = _header(node)
    found = () if header is None else header.snapshots
    return next((each for each in found if each.name == tag), None)
