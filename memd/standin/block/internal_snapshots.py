"""Internal snapshots: those of one node, and those of the machine with all of its nodes.

Rules and texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from memd.compat import Compat
from memd.errors import QMPError, prefixed
from memd.json_types import JSON, JSONObject
from memd.sizes import short_size
from memd.standin.block.blocks import Blocks
from memd.standin.block.jobs import Jobs, Task
from memd.standin.block.nodes import Node, held, waits_for
from memd.standin.block.qcow2 import EXTERNAL_DATA, Header, Snapshot
from memd.standin.block.qcow2_snapshots import StateReader, StateWriter, create, delete, revert
from memd.standin.stream import NotLoaded
from memd.work import Event, Events, Job

if TYPE_CHECKING:
    from memd.standin.migration import Host, Load, Migration, Save

Change = Callable[[int, Header, Snapshot], object]
"""Given the file of an image, its header and a snapshot, changes the image; in a thread."""

Emit = Callable[[Event], None]

_LONGEST_NAME = 255
"""Bytes of a snapshot's name, which is cut there."""

_UNTOLD = ("Invalid argument", "Operation not supported")
"""Reasons that QEMU does not give."""

_COLUMNS = "{:<7} {:<16} {:>8} {:>19} {:>15} {:>10}"


class NodeSnapshots:
    """Commands about the internal snapshots of one node.

    Args:
        blocks: the nodes.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    async def make_of_node(self, args: JSONObject) -> None:
        """`blockdev-snapshot-internal-sync`; raises `QMPError`."""
        device = args["device"]
        node = self._blocks.root(device)
        if node.read_only:
            raise QMPError(f"Device '{device}' is read only")
        header = node.with_header.header
        if header is None:
            raise QMPError(
                f"Block format '{node.driver}' used by device '{device}' does not support"
                " internal snapshots"
            )
        if header.incompatible & EXTERNAL_DATA:
            raise QMPError("Failed to get a snapshot list: Operation not supported")
        name = args["name"]
        if not name:
            raise QMPError("Name is empty")
        if _has(node, name):
            raise QMPError(f"Snapshot with name '{name}' already exists on device '{device}'")
        with prefixed(f"Failed to create snapshot '{name}' on device '{device}': "):
            await self._change(node, create, _new(name))

    async def delete_of_node(self, args: JSONObject) -> JSON:
        """`blockdev-snapshot-delete-internal-sync`; raises `QMPError`."""
        device, id, name = args["device"], args.get("id"), args.get("name")
        node = self._blocks.root(device)
        if id is None and name is None:
            raise QMPError("Name or id must be provided")
        header = node.with_header.header
        if header is None:
            raise QMPError("Failed to get a snapshot list: Operation not supported")
        for each in header.snapshots:
            if id in (None, each.id) and name in (None, each.name):
                await self._change(node, delete, each)
                return each.told()
        told = ["null" if each is None else each for each in (id, name)]
        raise QMPError(
            f"Snapshot with id '{told[0]}' and name '{told[1]}' does not exist on device '{device}'"
        )

    async def take_back(self, args: JSONObject) -> None:
        """Delete the snapshot again that `make_of_node` has made."""
        with suppress(QMPError):
            # Another client may have deleted it, or the node, meanwhile.
            await self.delete_of_node(args)

    # Of an image

    async def _change(self, node: Node, work: Change, snapshot: Snapshot) -> None:
        """Create a snapshot in the image of a node, delete it, or revert to it.

        Raises:
            QMPError: it can't be.
        """
        with held([node]):
            await Job(_changing(node, work, snapshot), on=waits_for([node]), heavy=True)


class Snapshots(NodeSnapshots):
    """Commands about those, and about snapshots of the machine.

    Args:
        blocks: the nodes.
        jobs: those that `snapshot-save` and the like start.
        compat: whose words are said.
        host: the daemon.
        migration: has the state of the machine written and read.
    """

    def __init__(
        self, blocks: Blocks, jobs: Jobs, compat: Compat, host: Host, migration: Migration
    ) -> None:
        super().__init__(blocks)
        self._jobs = jobs
        self._compat = compat
        self._host = host
        self._migration = migration

    async def _change_named(self, node: Node, work: Change, name: str) -> None:
        """The same as `_change`, where there is a snapshot of that name."""
        there = _has(node, name)
        if there is not None:
            await self._change(node, work, there)

    def _emit(self, event: Event) -> None:
        self._host.machine.emit((event,))

    def job(self, kind: str) -> Callable[[JSONObject], Awaitable[Events]]:
        """Gives what starts a job: `snapshot-save`, `-load` or `-delete`."""
        does = {"save": self.save, "load": self.load, "delete": self.delete}[kind]

        def start(args: JSONObject) -> Awaitable[Events]:
            work = partial(does, args)
            return self._jobs.start(Task(f"snapshot-{kind}", args["job-id"], {}, work=work))

        return start

    async def save(self, args: JSONObject, emit: Emit | None = None) -> None:
        """`savevm` of the human monitor, or what a job does for `snapshot-save`.

        Args:
            emit: the job's, which tells of an event.

        Raises:
            QMPError: it can't be done.
        """
        emit = emit or self._emit
        self._migration.check_blocked()
        nodes = self._nodes(args)
        tag, given = args.get("tag"), "devices" in args
        if nodes and given and all(_has(node, tag) for node in nodes):
            raise QMPError(f"Snapshot '{tag}' already exists in one or more devices")
        first = self._of_state(nodes, args)
        self._check_migration()
        snapshot = _new(tag or time.strftime("vm-%Y%m%d%H%M%S"))
        was = self._stop("save-vm", emit)
        done: list[Node] = []
        node = first
        try:
            for node in () if given else nodes:
                while (there := _has(node, snapshot.name)) is not None:
                    await self._change(node, delete, there)
            for node in (first, *(each for each in nodes if each is not first)):
                if node is first:
                    await self._save_state(node, snapshot, was)
                else:
                    await self._change(node, create, snapshot)
                done.append(node)
        except QMPError as error:
            for each in done:
                with suppress(QMPError):
                    await self._change_named(each, delete, snapshot.name)
            why = "" if error.desc in _UNTOLD else f": {error.desc}"
            raise QMPError(
                f"Could not create snapshot '{snapshot.name}' on '{_label(node)}'{why}"
            ) from None
        finally:
            self._resume(was, emit)

    async def _save_state(self, node: Node, snapshot: Snapshot, was: str) -> None:
        def put(save: Save) -> None:
            def work(fd: int, header: Header) -> None:
                state = StateWriter(fd, header)
                save(state.write)
                create(fd, header, snapshot, state)

            _changing(node, work)()

        with held([node]):
            await self._migration.save(put, waits_for([node]), was)

    async def load(self, args: JSONObject, emit: Emit | None = None) -> None:
        """`loadvm`, or `snapshot-load`; see `save`."""
        emit = emit or self._emit
        # QEMU stops the machine first, and has it run again only if a snapshot was loaded.
        was = self._stop("restore-vm", emit)
        try:
            await self._load_all(args)
        except QMPError:
            if was != "running":
                self._host.run_state = was
            raise
        self._resume(was, emit)

    async def _load_all(self, args: JSONObject) -> None:
        nodes, tag = self._nodes(args), args["tag"]
        if not all(_has(node, tag) for node in nodes):
            raise QMPError(f"Snapshot '{tag}' does not exist in one or more devices")
        first = self._of_state(nodes, args)
        found = _has(first, tag)
        if found is not None and not found.size:
            raise QMPError("This is a disk-only snapshot. Revert to it  offline using qemu-img")
        self._check_migration()
        for node in nodes:
            if node.with_header.bitmaps or node.bitmaps:
                raise QMPError(
                    f"Could not load snapshot '{tag}' on '{_label(node)}': Device has active dirty"
                    " bitmaps"
                )
        try:
            await self._load_state(first, tag)
            for node in nodes:
                await self._change_named(node, revert, tag)
        except NotLoaded as error:
            raise QMPError(f"Error -22 while loading VM state{_why(error)}") from None
        except QMPError as error:
            raise QMPError(
                f"Could not load snapshot '{tag}' on '{_label(node)}': {error.desc}"
            ) from None

    async def _load_state(self, node: Node, tag: str) -> None:
        """Load the machine's state; raises `NotLoaded`."""

        def take(load: Load) -> None:
            def work(fd: int, header: Header) -> None:
                found = next(each for each in header.snapshots if each.name == tag)
                load(StateReader(fd, header, found).read_into)

            _changing(node, work)()

        with held([node]):
            await self._migration.load(take, waits_for([node]))

    async def delete(self, args: JSONObject, emit: Emit | None = None) -> None:
        """`delvm`, or `snapshot-delete`; see `save`."""
        tag = args["tag"]
        for node in self._nodes(args):
            with prefixed(f"Could not delete snapshot '{tag}' on '{_label(node)}': "):
                await self._change_named(node, delete, tag)

    def _check_migration(self) -> None:
        if self._migration.is_under_way:
            raise QMPError("There's a migration process in progress")

    def _stop(self, state: str, emit: Emit) -> str:
        """Have the machine stand still; gives the run state that it had."""
        was = self._host.run_state
        self._host.run_state = state
        if was == "running":
            emit(Event("STOP"))
        return was

    def _resume(self, was: str, emit: Emit) -> None:
        self._host.run_state = was
        if was == "running":
            emit(Event("RESUME"))

    # What is told

    def told(self) -> list[str]:
        """`info snapshots`."""
        try:
            nodes = [*filter(self._can, self._used())]
            first = self._of_state(nodes, {})
        except QMPError as error:
            return [error.desc if self._compat is Compat.V10_0 else f"Error: {error.desc}"]
        lists = {node: _snapshots(node) for node in nodes}
        if not any(lists.values()):
            return ["There is no snapshot available."]
        whole = [each for each in lists[first] if all(_has(node, each.name) for node in nodes)]
        lines = ["List of snapshots present on all disks:"]
        lines += [_HEAD, *(_row(each, "--") for each in whole)] if whole else ["None"]
        names = {each.name for each in whole}
        for node, found in lists.items():
            partial_ones = [each for each in found if each.name not in names]
            if partial_ones:
                lines += ["", f"List of partial (non-loadable) snapshots on '{_label(node)}':"]
                lines += [_HEAD, *(_row(each, each.id) for each in partial_ones)]
        return lines

    # The nodes

    def _nodes(self, args: JSONObject) -> list[Node]:
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
            nodes = [*dict.fromkeys(known[name] for name in args["devices"])]
        for node in nodes:
            if not self._can(node):
                raise QMPError(
                    f"Device '{_label(node)}' is writable but does not support snapshots"
                )
        return nodes

    def _used(self) -> list[Node]:
        """The nodes that may be written to and are in use, or wait to be."""
        found = dict.fromkeys(each.node for each in self._blocks.drives if each.node is not None)
        for node in self._blocks.all():
            if node.owned and (node.holds or not node.above):
                found[node] = None
        return [node for node in found if not node.read_only]

    def _can(self, node: Node) -> bool:
        return not (node.read_only or self._blocks.inactive) and node.with_header.header is not None

    def _of_state(self, nodes: list[Node], args: JSONObject) -> Node:
        """The node that has, or would have, the machine's state; raises `QMPError`."""
        wanted = args.get("vmstate")
        for node in nodes:
            if wanted in (None, node.name):
                return node
        if wanted is not None:
            raise QMPError(f"vmstate block device '{wanted}' does not exist")
        raise QMPError("no block device can store vmstate for snapshot")


def _changing(node: Node, work: Callable[..., object], *more: object) -> Callable[[], None]:
    """What changes the image of a node in a thread; it raises `QMPError`.

    Args:
        work: is given the image's file, its header, and what else there is.
    """
    image = node.with_header
    fd = image.file_fd

    def run() -> None:
        try:
            with image.changing(fd) as header:
                work(fd, header, *more)
        except OSError as error:
            raise QMPError(os.strerror(error.errno or 0)) from None

    return run


def _new(name: str) -> Snapshot:
    """A snapshot that is to be."""
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    raw = name.encode(errors="surrogatepass")[:_LONGEST_NAME]
    return Snapshot("", os.fsdecode(raw), 0, seconds & 0xFFFFFFFF, nanoseconds)


def _snapshots(node: Node) -> list[Snapshot]:
    header = node.with_header.header
    return [] if header is None else header.snapshots


def _has(node: Node, tag: str | None) -> Snapshot | None:
    return next((each for each in _snapshots(node) if each.name == tag), None)


def _label(node: Node) -> str:
    return node.drive_name or node.name


def _why(error: Exception) -> str:
    """Why a state can't be loaded, where that is memd's own reason."""
    text = str(error)
    return f": {text}" if "memd" in text else ""


_HEAD = _COLUMNS.format("ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT")


def _row(snapshot: Snapshot, id: str) -> str:
    date = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(snapshot.seconds))
    seconds, rest = divmod(snapshot.clock, 1_000_000_000)
    minutes, seconds = divmod(seconds, 60)
    clock = f"{minutes // 60:04}:{minutes % 60:02}:{seconds:02}.{rest // 1_000_000:03}"
    return _COLUMNS.format(id, snapshot.name, short_size(snapshot.size), date, clock, "--")
