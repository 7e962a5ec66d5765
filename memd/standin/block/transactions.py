"""Transactions, and external snapshots, which are actions of them.

An action is done when its turn comes, and says how it is taken back, should a later one fail;
but backups start, and bitmaps go, once all actions can be done. Rules and texts were observed on
QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from itertools import chain

from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.standin.block.bitmaps import Bitmaps
from memd.standin.block.block_jobs import BlockJobs
from memd.standin.block.blocks import Blocks
from memd.standin.block.dirty_bitmap import Bitmap
from memd.standin.block.images import Images
from memd.standin.block.jobs import Task, changes
from memd.standin.block.nodes import Node, check_cycle, check_depth
from memd.work import Event, Events, in_turns


class Transactions:
    """The commands.

    Args:
        blocks: the nodes.
        images: makes overlays.
        jobs: makes backups.
        bitmaps: changes bitmaps.
    """

    def __init__(self, blocks: Blocks, images: Images, jobs: BlockJobs, bitmaps: Bitmaps) -> None:
        self._blocks = blocks
        self._images = images
        self._jobs = jobs
        self._bitmaps = bitmaps

    async def snapshot(self, args: JSONObject) -> None:
        """`blockdev-snapshot`; raises `QMPError`."""
        node = self._blocks.free(args["node"])
        await self._append(node, self._blocks.named(args["overlay"]))

    async def snapshot_sync(self, args: JSONObject) -> None:
        """`blockdev-snapshot-sync`; raises `QMPError`.

        The overlay is closed at once where no device uses the node below it.
        """
        await self._blocks.collect(await self._snapshot_sync(args))

    async def _snapshot_sync(self, args: JSONObject) -> Node:
        node = self._blocks.free(args.get("node-name", ""), args.get("device", ""))
        overlay = args.get("snapshot-node-name")
        if overlay is None:
            raise QMPError("New overlay node-name missing")
        if self._blocks.find(overlay) is not None:
            raise QMPError("New overlay node-name already in use")
        kind = args.get("format", "qcow2")
        made = await self._images.target(
            *(args["snapshot-file"], kind, node.size, args),
            backing=node,
            options={"node-name": overlay, "read-only": node.read_only, "cache": node.cache},
        )
        try:
            # Another client may have changed what has that name meanwhile.
            await self._append(self._blocks.free(node.name), made)
        except QMPError:
            await self._blocks.collect(made)
            raise
        return made

    async def _append(self, node: Node, overlay: Node) -> None:
        if self._blocks.is_read(overlay):
            raise QMPError("The overlay is already in use")
        if overlay.image is not overlay:
            raise QMPError("Filters cannot be used as overlays")
        if overlay.backing is not None:
            raise QMPError("The overlay already has a backing image")
        if overlay.driver != "qcow2":
            raise QMPError("The overlay does not support backing images")
        check_cycle(overlay, node, "backing")
        check_depth(node, overlays=1)
        overlay.backing = node
        self._blocks.replace(node, overlay)
        self._blocks.protect(node)
        await self._blocks.sync()

    async def run(self, args: JSONObject) -> Events:
        """`transaction`: all of the actions, or none.

        Raises:
            QMPError: one can't be done; the others are undone.
        """
        mode = args.get("properties", {}).get("completion-mode", "individual")
        for action in args["actions"]:
            if mode == "grouped" and action["type"] not in ("blockdev-backup", "drive-backup"):
                raise QMPError(
                    f"Action '{action['type']}' does not support transaction property"
                    f" completion-mode = {mode}"
                )
        done = _Done({node: node.read_only for node in self._blocks.all()})
        try:
            try:
                async for action in in_turns(args["actions"]):
                    await self._act(action["type"], action["data"], done)
            except BaseException:
                for backup in [*done.backups.values()][::-1]:
                    await backup.release()
                raise
            finally:
                for bitmap, _data in done.removals:
                    bitmap.busy = False
        except QMPError as error:
            for undo in reversed(done.undos):
                await undo()
            await self._blocks.collect(*done.made)
            made = (changes(id, "created") for id in done.backups)
            gone = (changes(id, "aborting", "concluded", "null") for id in reversed(done.backups))
            error.events = (*chain(*made, *gone), *error.events)
            raise
        for _bitmap, data in done.removals:
            with suppress(QMPError):
                # Another client may have deleted the node meanwhile.
                await self._bitmaps.remove(data)
        events: list[Event] = []
        todo = [*done.backups.values()]
        try:
            while todo:
                events += await self._jobs.run(todo.pop(0))
        finally:
            for backup in todo:
                await backup.release()
            await self._blocks.collect(*done.made)
        return tuple(events)

    async def _act(self, kind: str, data: JSONObject, done: _Done) -> None:
        if kind == "blockdev-snapshot":
            await self.snapshot(data)
            self._appended(self._blocks.named(data["overlay"]), done)
        elif kind == "blockdev-snapshot-sync":
            self._appended(await self._snapshot_sync(data), done)
        elif kind == "blockdev-backup":
            await self._claim_backup(data, self._blocks.named(data["target"]), done)
        elif kind == "drive-backup":
            data, to = await self._jobs.new_target(data, of_backup=True)
            done.made.append(to)
            await self._claim_backup(data, to, done)
        elif kind == "blockdev-snapshot-internal-sync":
            from memd.standin.block.internal_snapshots import NodeSnapshots

            snapshots = NodeSnapshots(self._blocks)
            await snapshots.make_of_node(data)
            done.undos.append(partial(snapshots.take_back, data))
        elif kind == "block-dirty-bitmap-remove":
            bitmap = self._bitmaps.removable(data)[1]
            bitmap.busy = True
            done.removals.append((bitmap, data))
        elif kind.startswith("block-dirty-bitmap-"):
            done.undos.append(await self._bitmaps.change(kind.rpartition("-")[2], data))
        elif kind == "abort":
            raise QMPError("Transaction aborted using Abort action")
        else:
            raise QMPError(f"memd has no action '{kind}' in a transaction")

    def _appended(self, overlay: Node, done: _Done) -> None:
        """An overlay is there: note how it goes again."""

        async def undo() -> None:
            below = overlay.backing
            assert below is not None
            overlay.backing = None
            self._blocks.replace(overlay, below)
            for each in below.layers():
                each.read_only = done.read_only.get(each, False)
            await self._blocks.sync()

        done.made.append(overlay)
        done.undos.append(undo)

    async def _claim_backup(self, args: JSONObject, to: Node, done: _Done) -> None:
        """Keep what a backup will use from others until the actions are done.

        Raises:
            QMPError: there can't be such a backup.
        """
        backup = await self._jobs.plan_backup(args, to)
        if backup.id in done.backups:
            await backup.release()
            raise QMPError(f"Job ID '{backup.id}' already in use")
        done.backups[backup.id] = backup


class _Done:
    """What the actions of a transaction have done.

    Attributes:
        read_only: the nodes that there were before, and which of them was not written to.
        made: the overlays of its snapshots, and the targets that it made.
        backups: by their ids, the prepared jobs that start once all actions can be done.
        removals: the bitmaps that are removed then, and the arguments of that.
        undos: what takes back the others, the oldest first.
    """

    def __init__(self, read_only: dict[Node, bool]) -> None:
        self.read_only = read_only
        self.made: list[Node] = []
        self.backups: dict[str, Task] = {}
        self.removals: list[tuple[Bitmap, JSONObject]] = []
        self.undos: list[Callable[[], Awaitable[None]]] = []
