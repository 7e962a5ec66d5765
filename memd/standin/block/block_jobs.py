"""Commands about block nodes that make images, snapshots, and jobs that move data.

There is no guest that writes, so snapshots and jobs change which node is above
which, and what images name as their backing files. A job that would have to copy
data is refused. Rules and texts were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING

from memd.compat import Compat
from memd.errors import QMPError, device_not_found, refusing
from memd.hostmem.file_systems import of_paths
from memd.hostmem.libc import write_at
from memd.hostmem.paths import encode_path, target
from memd.json_types import JSONObject
from memd.standin.block.bitmaps import Bitmaps, bitmap_of, default_granularity
from memd.standin.block.dirty_bitmap import Bitmap, regrained
from memd.standin.block.graph import (
    DRIVERS,
    Blocks,
    Claim,
    Node,
    changing,
    check_depth,
    held,
    measure,
    waits_for,
)
from memd.standin.block.image_locks import (
    NO_READ,
    NO_RESIZE,
    NO_WRITE,
    READ,
    RESIZE,
    WRITE,
    change_locks,
)
from memd.standin.block.job_nodes import JobNodes
from memd.standin.block.jobs import Jobs, Task, begun, given_up
from memd.standin.block.qcow2 import empty_image
from memd.work import MEMORY, Event, Events, Job, in_turns

if TYPE_CHECKING:
    from memd.hostmem.paths import Roots
    from memd.qom.tree import Tree

Content = dict[int, bytes]
"""Bytes by their offsets."""

_FORMATS = ("raw", "qcow2")
_OF_BITMAP = ("incremental", "bitmap")
"""The modes in which a bitmap tells what is copied."""

_COPIED = 64 << 10
"""Bytes that a backup copies at once, where the target has no larger clusters."""

_MOST_WORKERS = (1 << 31) - 1
_CREATE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_MODE = 0o644
_MOST_READ = 128 << 10
"""How many bytes QEMU reads to see whether an image begins with zeroes."""


class Images:
    """Commands about block nodes that are more than a node's own.

    Args:
        blocks: the nodes.
        tree: says what files have to be below.
    """

    def __init__(self, blocks: Blocks, tree: Tree) -> None:
        self._blocks = blocks
        self._tree = tree
        self.jobs = Jobs(blocks)
        self.bitmaps = Bitmaps(blocks)

    async def _start(self, task: Task, moved: Sequence[Node]) -> Events:
        """Start a job whose nodes are put together.

        Args:
            moved: nodes whose data it would copy.

        Raises:
            QMPError: it can't be; nothing has changed then.
        """
        await self._prepare(task, moved)
        return await self._run(task)

    async def _prepare(self, task: Task, moved: Sequence[Node]) -> None:
        """Keep what a job uses from others; raises as `_start`."""
        assert task.nodes is not None
        events: Events = ()
        try:
            self.jobs.check(task.id, task.args)
            events = begun(task.id)
            await task.nodes.check()
            events = ()
            await self._needs_no_copy(moved)
            if task.bitmap is not None:
                task.bitmap.check_free()
                task.bitmap.busy = True
        except QMPError as error:
            await task.nodes.end()
            error.events = events
            raise

    async def _run(self, task: Task) -> Events:
        """Start a job that is prepared; raises `QMPError`."""
        try:
            return await self.jobs.start(task)
        except QMPError:
            await task.release()
            raise

    async def create(self, args: JSONObject) -> Events:
        """`blockdev-create`; raises `QMPError` where no job is made of it."""
        self.jobs.check(args["job-id"], {})
        options = args["options"]
        error = None
        try:
            await self._create(options)
        except QMPError as failed:
            error = failed.desc
        return await self.jobs.start(Task("create", args["job-id"], {}, error=error))

    async def _create(self, options: JSONObject) -> None:
        if options["driver"] == "file":
            if options.get("preallocation", "off") != "off":
                raise QMPError("memd allocates no blocks of images")
            path = options["filename"]
            await self._make(path, options["size"])
            return
        below = options.get("file")
        if options["driver"] not in _FORMATS or type(below) is not str:
            raise QMPError(f"memd makes no images of the format '{options['driver']}' like this")
        node = self._blocks.named(below)
        if node.fd < 0:
            raise QMPError(f"Block node '{node.name}' is read-only")
        content = empty_image(options) if options["driver"] == "qcow2" else {}
        claim = Claim(node, {WRITE, RESIZE})
        try:
            await self._blocks.relock()
            await Job(lambda: _fill(node, content), on=waits_for([node]))
        finally:
            claim.end()
            await self._blocks.relock(refuse=False)

    async def _make(self, path: str, size: int, content: Content | None = None) -> None:
        """Make the file of an image, or empty it."""
        roots = self._tree.host.roots
        await Job(lambda: make_file(path, size, content or {}, roots), on=of_paths([path]))

    async def close(self) -> None:
        """Count no job any more."""
        self.jobs.close()

    # Snapshots

    async def snapshot(self, args: JSONObject) -> None:
        """`blockdev-snapshot`; raises `QMPError`."""
        await self._append(args["node"], lambda: self._blocks.named(args["overlay"]))

    async def snapshot_sync(self, args: JSONObject) -> None:
        """`blockdev-snapshot-sync`; raises `QMPError`.

        The overlay is closed at once where no device uses the node below it.
        """
        await self._blocks.collect(await self._snapshot_sync(args))

    async def _snapshot_sync(self, args: JSONObject) -> Node:
        node = self._blocks.named(args.get("node-name", ""), args.get("device", ""))
        self._blocks.check_free(node)
        overlay = args.get("snapshot-node-name")
        if overlay is None:
            raise QMPError("New overlay node-name missing")
        if self._blocks.find(overlay) is not None:
            raise QMPError("New overlay node-name already in use")
        kind = args.get("format", "qcow2")
        made = await self._target(
            *(args["snapshot-file"], kind, node.size, args),
            backing=node,
            name=overlay,
            more={"read-only": node.read_only, "cache": node.cache},
        )
        try:
            await self._append(node.name, lambda: made)
        except QMPError:
            await self._blocks.collect(made)
            raise
        return made

    async def _append(self, name: str, found: Callable[[], Node]) -> None:
        node = self._blocks.named(name)
        self._blocks.check_free(node)
        overlay = found()
        if self._blocks.is_read(overlay):
            raise QMPError("The overlay is already in use")
        if overlay.image is not overlay:
            raise QMPError("Filters cannot be used as overlays")
        if overlay.backing is not None:
            raise QMPError("The overlay already has a backing image")
        if overlay.driver != "qcow2":
            raise QMPError("The overlay does not support backing images")
        if overlay in (node, *node.lower()):
            raise QMPError(
                f"Making '{node.name}' a backing child of '{overlay.name}' would create a cycle"
            )
        check_depth(node, overlays=1)
        overlay.backing = node
        self._blocks.replace(node, overlay)
        self._blocks.protect(node)
        await self._blocks.sync()

    async def transaction(self, args: JSONObject) -> Events:
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
                for bitmap in done.claimed:
                    bitmap.busy = False
        except QMPError as error:
            for undo in reversed(done.undos):
                await undo()
            await self._blocks.collect(*done.made)
            error.events = (*given_up([*done.backups]), *error.events)
            raise
        for data in done.removals:
            with suppress(QMPError):
                # Another client may have deleted the node meanwhile.
                await self.bitmaps.remove(data)
        events: list[Event] = []
        todo = [*done.backups.values()]
        try:
            while todo:
                events += await self._run(todo.pop(0))
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
            data, to = await self._new_target(data, of_backup=True)
            done.made.append(to)
            await self._claim_backup(data, to, done)
        elif kind == "blockdev-snapshot-internal-sync":
            from memd.standin.block.internal_snapshots import NodeSnapshots

            snapshots = NodeSnapshots(self._blocks)
            await snapshots.make_of_node(data)
            done.undos.append(partial(snapshots.take_back, data))
        elif kind == "block-dirty-bitmap-remove":
            bitmap = self.bitmaps.removable(data)[1]
            bitmap.busy = True
            done.claimed.append(bitmap)
            done.removals.append(data)
        elif kind.startswith("block-dirty-bitmap-"):
            done.undos.append(await self.bitmaps.change(kind.rpartition("-")[2], data))
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
        backup = await self._plan_backup(args, to)
        if backup.id in done.backups:
            await backup.release()
            raise QMPError(f"Job ID '{backup.id}' already in use")
        done.backups[backup.id] = backup

    # Jobs

    def _nodes_of_job(self, args: JSONObject, node: Node, kind: str) -> JobNodes:
        """The nodes of a job about a node, which has the id of its drive where none is given."""
        return JobNodes(self._blocks, args.get("job-id", node.drive_name), kind)

    def _in_chain(self, node: Node, args: JSONObject, what: str) -> Node | None:
        """The node of a chain that is named by its name or by its file."""
        if f"{what}-node" in args:
            return self._blocks.named(args[f"{what}-node"], "")
        if what not in args:
            return None
        for each in node.shown():
            if each.filename == args[what] and (each is not node or what == "top"):
                return each
        if what == "top":
            raise QMPError(f"Top image file {args['top']} not found")
        raise QMPError(f"Can't find '{args[what]}' in the backing chain")

    async def commit(self, args: JSONObject) -> Events:
        """`block-commit`; raises `QMPError`."""
        node = self._blocks.find(args["device"])
        if node is None:
            raise device_not_found(args["device"])
        self._blocks.check_root(node)
        for name in ("base", "top"):
            if {name, f"{name}-node"} <= args.keys():
                raise QMPError(f"'{name}-node' and '{name}' are mutually exclusive")
        top = self._in_chain(node, args, "top") or node
        if top not in node.shown():
            raise QMPError(f"'{top.name}' is not in this backing file chain")
        base = self._in_chain(node, args, "base") or [*top.shown()][-1]
        if base not in top.shown():
            raise QMPError(f"'{base.name}' is not in this backing file chain")
        if top is base:
            raise QMPError("cannot commit an image into itself")
        active = top.image is node.image
        if active and "backing-file" in args:
            raise QMPError("'backing-file' specified, but 'top' is the active layer")
        upper = [*takewhile(lambda each: each is not base, top.shown())]
        for each in (*upper, base):
            self._check_job(each)
        if base.image is node.image:
            raise QMPError("Can't mirror node into itself")
        nodes = self._nodes_of_job(args, node, "commit")
        called = args.get("filter-node-name")
        nodes.write_to(base)
        if active:
            made = await nodes.put_above(node, "mirror_top", called)
            made.commits = True
            made.nameless.append((default_granularity(base), 0, False))
            nodes.claim(made, "main node", {READ, NO_RESIZE})
            nodes.claim(node, "source", {NO_RESIZE})
            nodes.use_later(base, {WRITE, NO_RESIZE}, "target")
        else:
            made = await nodes.put_above(top, "commit_top", called)
            nodes.claim(node, "main node")
            nodes.use(top, frozenset())
            nodes.use_later(base, {READ, WRITE, NO_WRITE, NO_RESIZE}, "base")
        for each in upper[active:]:
            nodes.claim(each, "intermediate node", {NO_READ, NO_RESIZE})
        nodes.freeze(made, *upper)

        async def finish(pivots: bool) -> None:
            if pivots and active:
                nodes.keep()
            nodes.finish()
            for overlay in [each for each in top.parents if each.backing is top]:
                await self._set_backing(overlay, base, args.get("backing-file"))
            if pivots and active:
                self._blocks.replace(top, base)

        task = Task(
            *(*nodes.job, args, nodes),
            length=0 if active else base.size,
            end="ready" if active else "pending",
            finish=finish,
        )
        return await self._start(task, upper)

    async def stream(self, args: JSONObject) -> Events:
        """`block-stream`; raises `QMPError`."""
        node = self._blocks.named(args["device"])
        if "base" in args and "base-node" in args:
            raise QMPError("'base' and 'base-node' cannot be specified at the same time")
        for both in (("base", "bottom"), ("bottom", "base-node")):
            if {*both} <= args.keys():
                raise QMPError("'{}' and '{}' cannot be specified at the same time".format(*both))
        base = self._in_chain(node, args, "base")
        if base is not None and (base is node or base not in node.shown()):
            raise QMPError(f"Node '{base.name}' is not a backing image of '{node.name}'")
        if "bottom" in args:
            bottom = self._blocks.named(args["bottom"], "")
            if bottom.image is not bottom:
                raise QMPError(
                    f"Node '{bottom.name}' is a filter, use a non-filter node as 'bottom'"
                )
            if bottom not in node.shown():
                raise QMPError(
                    f"Node '{bottom.name}' is not in a chain starting from '{node.name}'"
                )
            base = bottom.backing
        if base is None and "backing-file" in args:
            raise QMPError("backing file specified, but streaming the entire chain")
        if base is not None and base.image is node.image:
            raise QMPError(f"'{base.name}' is not in the backing chain of '{node.name}'")
        upper = [*takewhile(lambda each: each is not base, node.shown())]
        between = upper[1:]
        for each in upper:
            self._check_job(each)
        nodes = self._nodes_of_job(args, node, "stream")
        nodes.write_to(node)
        made = await nodes.put_above(node, "copy-on-read", args.get("filter-node-name"))
        nodes.use(made, {READ, NO_RESIZE})
        nodes.claim(made, "main node")
        nodes.claim(node, "active node", {NO_RESIZE})
        for each in between:
            nodes.claim(each, "intermediate node", {NO_WRITE, NO_RESIZE})
        if between:
            nodes.freeze(made, node, *between[:-1])

        async def finish(pivots: bool) -> None:
            nodes.finish()
            if node.image.backing is not None:
                await self._set_backing(node.image, base, args.get("backing-file"))
                node.image.align()

        # Filters at either end have no data of their own.
        ends = {node.image, base.image if base is not None else None}
        moved = [each for each in between if each.image not in ends]
        length = node.size if moved else 0
        task = Task(*nodes.job, args, nodes, length=length, finish=finish)
        return await self._start(task, moved)

    async def mirror(self, args: JSONObject, to: Node | None = None) -> Events:
        """`blockdev-mirror`; raises `QMPError`.

        Args:
            to: the target, None where the arguments name it.
        """
        node = self._blocks.root(args["device"])
        new, to = to is not None, to or self._blocks.named(args["target"])
        if args["sync"] in _OF_BITMAP:
            raise QMPError(f"Sync mode '{args['sync']}' not supported")
        granularity = args.get("granularity", 0)
        if granularity and not 512 <= granularity <= 64 << 20:
            raise QMPError("Parameter 'granularity' expects a value in range [512B, 64MB]")
        if granularity & (granularity - 1):
            raise QMPError("Parameter 'granularity' expects a power of 2")
        if args.get("buf-size", 0) < 0:
            raise QMPError("Invalid parameter 'buf-size'")
        self._blocks.check_free(node)
        self._blocks.check_free(to)
        replaced = node
        if "replaces" in args:
            replaced = self._replaced(node, args["replaces"])
        if to in node.filtering:
            raise QMPError("Can't mirror node into itself")
        nodes = self._nodes_of_job(args, node, "mirror")

        async def finish(pivots: bool) -> None:
            nodes.finish()
            if pivots:
                if fresh and args["sync"] != "full" and to.driver == "qcow2":
                    to.backing = node.image.backing if args["sync"] == "top" else node
                if replaced.read_only:
                    self._blocks.protect(to)
                self._blocks.replace(replaced, to)
                await self._blocks.collect(replaced)

        fresh = new and args.get("mode") != "existing"
        full = args["sync"] == "full" or (args["sync"] == "top" and node.image.backing is None)
        moves = any(map(_has_all, node.shown() if full else _moved(node, args["sync"])))
        zeroed = full and not fresh and not to.unmaps
        if zeroed and self._blocks.compat is not Compat.V10_0:
            images = [each.image for each in to.shown()]
            with held([node, to]):
                zeroed = not await Job(lambda: all(map(_is_zero, images)), on=waits_for(images))
        length, error = node.size if zeroed or moves else 0, None
        if node.size != to.size:
            length, error = 0, "Source and target image have different sizes"
        made = await nodes.put_above(node, "mirror_top", args.get("filter-node-name"))
        made.nameless.append((granularity or default_granularity(to), 0, False))
        nodes.claim(made, "main node", {READ, NO_RESIZE})
        nodes.claim(node, "source", {NO_RESIZE})
        nodes.use_later(to, {WRITE, NO_READ, NO_WRITE, NO_RESIZE}, "target")
        task = Task(
            *(*nodes.job, args, nodes), length=length, end="ready", finish=finish, error=error
        )
        return await self._start(task, _moved(node, args["sync"]))

    def _replaced(self, node: Node, name: str) -> Node:
        """The node whose place a mirror of another one is to take; raises `QMPError`."""
        found = self._blocks.find(name)
        if found is None:
            raise QMPError(f"Failed to find node with node-name='{name}'")
        self._blocks.check_free(found)
        if found not in node.filtering:
            raise QMPError(
                f"Cannot replace '{name}' by a node mirrored from '{node.name}', because it cannot"
                " be guaranteed that doing so would not lead to an abrupt change of visible data"
            )
        return found

    async def drive_mirror(self, args: JSONObject) -> Events:
        """`drive-mirror`; raises `QMPError`."""
        node = self._blocks.root(args["device"])
        if "replaces" in args:
            if "node-name" not in args:
                raise QMPError(
                    "a node-name must be provided when replacing a named node of the graph"
                )
            if self._replaced(node, args["replaces"]).size != node.size:
                raise QMPError("cannot replace image with a mirror image of different size")
        return await self._with_new_target(self.mirror, args, of_backup=False)

    def _check_backup(self, args: JSONObject, to: Node) -> tuple[Node, Bitmap | None]:
        """The source and the bitmap of a backup; raises `QMPError` where there can't be one."""
        node = self._blocks.named(args["device"])
        bitmap = _bitmap_of_backup(node, args)
        if node is to:
            raise QMPError("Source and target cannot be the same")
        for each in (node, to):
            self._check_job(each)
        if args.get("compress") and to.driver != "qcow2":
            raise QMPError("Compression is not supported for this drive ")
        perf = args.get("x-perf", {})
        if not 1 <= perf.get("max-workers", 1) <= _MOST_WORKERS:
            raise QMPError(f"max-workers must be between 1 and {_MOST_WORKERS}")
        if perf.get("max-chunk", 0) < 0:
            raise QMPError("max-chunk must be zero (which means no limit) or positive")
        if node.size != to.size:
            raise QMPError("Source and target image have different sizes")
        return node, bitmap

    async def backup(self, args: JSONObject, to: Node | None = None) -> Events:
        """`blockdev-backup`; raises `QMPError`.

        Args:
            to: the target, None where the arguments name it.
        """
        to = to or self._blocks.named(args["target"])
        return await self._run(await self._plan_backup(args, to))

    async def _plan_backup(self, args: JSONObject, to: Node) -> Task:
        """Keep what a backup uses from others; raises `QMPError` where there can't be it."""
        node, bitmap = self._check_backup(args, to)
        end = "running" if args["sync"] == "none" else "pending"
        unit = max(to.facts.get("cluster-size", 0), _COPIED)
        whole = -(-node.size // unit) * unit
        if bitmap is not None and args["sync"] in _OF_BITMAP:
            bits, granularity = bitmap.bits, bitmap.granularity
            dirty = bits and await Job(lambda: regrained(bits, granularity, unit), on=MEMORY)
            length = dirty.bit_count() * unit
            # Another client may have been quicker.
            node, bitmap = self._check_backup(args, to)
        else:
            length = 0 if args["sync"] == "top" and not _has_all(node) else whole

        async def finish(pivots: bool) -> None:
            if bitmap is not None and args.get("bitmap-mode") != "never":
                bitmap.set_bits(0)

        nodes = self._nodes_of_job(args, node, "backup")
        name = args.get("filter-node-name")
        made = await nodes.put_above(node, "copy-before-write", name, to)
        rest = whole if end == "running" else 0
        made.nameless += ((unit, count, False) for count in (0, rest, whole))
        if bitmap is not None:
            nodes.note(node, bitmap.granularity, recording=bitmap.recording)
        nodes.claim(made, "main node")
        nodes.claim(to, "target")
        task = Task(
            *(*nodes.job, args, nodes), length=length, end=end, finish=finish, bitmap=bitmap
        )
        await self._prepare(task, _moved(node, args["sync"], bitmap))
        return task

    async def drive_backup(self, args: JSONObject) -> Events:
        """`drive-backup`; raises `QMPError`."""
        return await self._with_new_target(self.backup, args, of_backup=True)

    async def _with_new_target(
        self,
        start: Callable[[JSONObject, Node], Awaitable[Events]],
        args: JSONObject,
        *,
        of_backup: bool,
    ) -> Events:
        """Start a job whose target is an image that is made."""
        args, made = await self._new_target(args, of_backup=of_backup)
        try:
            return await start(args, made)
        finally:
            await self._blocks.collect(made)

    async def _new_target(self, args: JSONObject, *, of_backup: bool) -> tuple[JSONObject, Node]:
        """Make the target of a job; gives its arguments, and the target.

        Args:
            of_backup: whether it is a backup's, and not a mirror's.
        """
        node = self._blocks.named(args["device"])
        if of_backup:
            self._check_job(node)
        if args["sync"] == "top" and node.image.backing is None:
            args = {**args, "sync": "full"}
        kind, name = args.get("format", node.driver), args.get("node-name")
        backing = {"top": node.backing, "none": node}.get(args["sync"])
        unmaps = {"discard": "unmap", "detect-zeroes": "unmap"}
        alone = {"backing": None} if kind == "qcow2" else {}
        made = await self._target(
            *(args["target"], kind, node.size, args),
            backing=backing,
            name=name,
            moved=_moved(node, args["sync"]),
            more={"cache": node.cache, **(unmaps if of_backup else alone)},
        )
        if of_backup and args["sync"] == "none" and made.driver == "qcow2":
            made.backing = node
        return args, made

    async def _target(
        self,
        path: str,
        kind: str,
        size: int,
        args: JSONObject,
        *,
        backing: Node | None,
        name: str | None,
        moved: Sequence[Node] = (),
        more: JSONObject | None = None,
    ) -> Node:
        """An image that is made, where it is not there already, and opened.

        Args:
            more: further options of its node.
            moved: nodes whose data a job would copy into it.

        Raises:
            QMPError: it can't be; where there is data to copy, the file is as it was.
        """
        if kind not in DRIVERS:
            raise QMPError(f"Unknown file format '{kind}'")
        if args.get("mode", "absolute-paths") != "existing":
            if kind not in (*_FORMATS, "file"):
                raise QMPError(f"Format driver '{kind}' does not support image creation")
            options: JSONObject = {"size": size}
            if backing is not None:
                if kind != "qcow2":
                    raise QMPError(f"Backing file not supported for file format '{kind}'")
                if backing.filename == path:
                    raise QMPError(
                        "Error: Trying to create an image with the same filename as the backing"
                        " file"
                    )
                options |= {"backing-file": backing.filename, "backing-fmt": backing.driver}
            await self._needs_no_copy(moved)
            if kind != "qcow2":
                await self._make(path, size)
            else:
                await self._make(path, 0, empty_image(options))
        named = {} if name is None else {"node-name": name}
        below = {"driver": "file", "filename": path}
        own = below if kind == "file" else {"driver": kind, "file": below}
        told = {**own, **named, **(more or {})}
        return await self._blocks.add(told, owned=False)

    def _check_job(self, node: Node) -> None:
        if node.job is not None:
            self._blocks.check_free(node)

    async def _needs_no_copy(self, moved: Sequence[Node], *others: Node) -> None:
        """Raise `QMPError` where a node holds data that would have to be copied.

        Args:
            moved: the nodes whose data it is.
            others: further nodes that may not go meanwhile.
        """
        files = [node.image for node in moved if not node.image.driver.startswith("null")]
        if not files:
            return
        with held([*moved, *others]):
            on = waits_for(files)
            full = await Job(lambda: next(filter(_has_data, files), None), on=on, heavy=True)
        if full is not None:
            raise QMPError(f"memd copies no data of images, and node '{full.name}' holds some")

    async def change_backing(self, args: JSONObject) -> None:
        """`change-backing-file`; raises `QMPError`."""
        node = self._blocks.root(args["device"])
        image, to = self._blocks.named(args["image-node-name"], ""), args["backing-file"]
        if image.shown_below is None:
            raise QMPError("not allowing backing file change on an image without a backing file")
        self._blocks.check_free(node)
        if image not in node.shown():
            raise QMPError(f"'{args['device']}' and image file are not in the same chain")
        complaint = f"Could not change backing file to '{to}'"
        if image.header is None:
            raise QMPError(f"{complaint}: Operation not supported")
        with held([image]), refusing(complaint):
            await self._name_backing(image, to, image.driver)
        self._blocks.rename(image)

    async def _name_backing(self, image: Node, name: str | None, kind: str | None) -> None:
        """Write into an image, if that has a header, what it stands on.

        Raises:
            QMPError: it may not be written to, or another process has it locked.
            OSError: it can't be written.
        """

        def write() -> None:
            file = image.file
            if image.header is not None and file is not None:
                with changing(image, file.fd) as header:
                    header.set_backing(file.fd, name, kind)

        was_read_only = image.read_only
        if was_read_only and image.file is not None and image.file.read_only:
            raise QMPError("Block node is read-only")
        image.read_only = False
        try:
            await self._blocks.relock()
            await Job(write, on=waits_for([image]))
        finally:
            image.read_only = was_read_only
            await self._blocks.relock(refuse=False)

    async def _set_backing(self, node: Node, base: Node | None, told: str | None) -> None:
        """Have an image and its node stand on another one, or on none."""
        name, kind = (None, None) if base is None else (base.filename, base.driver)
        try:
            await self._name_backing(node, name if told is None else told, kind)
        except OSError as error:
            raise QMPError(os.strerror(error.errno or 0)) from None
        old, node.backing = node.backing, base
        self._blocks.rename(node)
        await self._blocks.collect(old)


class _Done:
    """What the actions of a transaction have done.

    Attributes:
        read_only: the nodes that there were before, and which of them was not written to.
        made: the overlays of its snapshots, and the targets that it made.
        backups: by their ids, the prepared jobs that start once all actions can be done.
        removals: the arguments of those of bitmaps, which come then, too.
        claimed: the bitmaps that are removed then.
        undos: what takes back the others, the oldest first.
    """

    def __init__(self, read_only: dict[Node, bool]) -> None:
        self.read_only = read_only
        self.made: list[Node] = []
        self.backups: dict[str, Task] = {}
        self.removals: list[JSONObject] = []
        self.claimed: list[Bitmap] = []
        self.undos: list[Callable[[], Awaitable[None]]] = []


def _bitmap_of_backup(node: Node, args: JSONObject) -> Bitmap | None:
    """The bitmap that a backup is told to use; raises `QMPError` where it can't."""
    sync, mode, name = args["sync"], args.get("bitmap-mode"), args.get("bitmap")
    if sync in _OF_BITMAP and name is None:
        raise QMPError(f"must provide a valid bitmap name for '{sync}' sync mode")
    if sync == "incremental":
        if mode not in (None, "on-success"):
            raise QMPError(f"Bitmap sync mode must be 'on-success' when using sync mode '{sync}'")
        mode = "on-success"
    if name is None:
        if mode is not None:
            raise QMPError("Cannot specify bitmap sync mode without a bitmap")
        return None
    bitmap = bitmap_of(node, name, "Bitmap '{}' could not be found")
    if mode is None:
        raise QMPError("Bitmap sync mode must be given when providing a bitmap")
    bitmap.check_free(changes=mode != "never")
    if sync == "none":
        raise QMPError(f"sync mode '{sync}' does not produce meaningful bitmap outputs")
    if mode == "never" and sync not in _OF_BITMAP:
        raise QMPError(
            f"Bitmap sync mode '{mode}' has no meaningful effect when combined with sync mode"
            f" '{sync}'"
        )
    return bitmap


def _moved(node: Node, sync: str, bitmap: Bitmap | None = None) -> list[Node]:
    """The nodes whose data a copy of a node would have.

    Args:
        bitmap: tells what is copied, where that is the mode.
    """
    if sync in _OF_BITMAP and bitmap is not None and bitmap.bits:
        return [*node.shown()]
    return {"full": [*node.shown()], "top": [node]}.get(sync, [])


def _has_all(node: Node) -> bool:
    """Whether a node without data has its zeroes itself, so that a copy of it alone has them."""
    layers = [*node.layers()]
    if any(each.driver == "qcow2" for each in layers):
        return False
    return "null" not in layers[-1].driver or bool(layers[-1].options.get("read-zeroes"))


def _is_zero(node: Node) -> bool:
    """Whether QEMU finds an image to read as zeroes before it writes any; in a thread."""
    file = node.file
    if file is None:
        return bool(node.options.get("read-zeroes"))
    try:
        if node.header is not None:
            return not _has_data(node)
        # The first block of a raw file that QEMU makes is not sparse.
        start = os.lseek(file.fd, 0, os.SEEK_HOLE)
        if start > _MOST_READ or os.pread(file.fd, start, 0).strip(b"\0"):
            return False
        return not _has_data(node, start)
    except OSError:
        return False


def _has_data(node: Node, start: int = 0) -> bool:
    """Whether an image may hold data, a raw one from there on; in a thread."""
    file = node.file
    if file is None:
        return False
    if node.header is not None:
        return node.header.has_data(file.fd)
    try:
        os.lseek(file.fd, start, os.SEEK_DATA)
    except OSError:
        return False
    return True


def make_file(path: str, size: int, content: Content, roots: Roots | None) -> None:
    """Make the file of an image, or empty it; in a thread. Where that fails no new file is left."""
    with ExitStack() as opened:
        with refusing(f"Could not create '{path}'"):
            entry = target(encode_path(path), roots)
            opened.callback(entry.close)
            new = True
            try:
                fd = entry.open(_CREATE | os.O_EXCL, _MODE)
            except FileExistsError:
                new = False
                fd = entry.open(_CREATE, _MODE)
        opened.callback(os.close, fd)
        needed = {WRITE, RESIZE, NO_RESIZE}
        change_locks(fd, frozenset(), needed, needed, path)
        try:
            os.ftruncate(fd, 0)
            # A size of 64 bits, which the file system takes for a signed one.
            os.ftruncate(fd, size if size < 1 << 63 else -1)
            _write(fd, content)
        except OSError as error:
            if new:
                with suppress(OSError):
                    entry.unlink()
            raise QMPError(f"Could not resize file: {error.strerror}") from None


def _fill(node: Node, content: Content) -> None:
    """Write an image into an open file; in a thread."""
    with refusing(f"Could not write to '{node.filename}'"):
        _write(node.fd, content)
        measure(node)


def _write(fd: int, content: Content) -> None:
    for offset, data in content.items():
        write_at(fd, data, offset)
