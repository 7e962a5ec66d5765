"""Block jobs: commit, stream, mirror, backup.

There is no guest that writes, so a job changes which node is above which, and what images
name as their backing files. One that would have to copy data is refused. Rules and texts
were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

from memd.compat import Compat
from memd.errors import QMPError, device_not_found
from memd.json_types import JSONObject
from memd.standin.block.bitmaps import bitmap_of, default_granularity
from memd.standin.block.blocks import Blocks
from memd.standin.block.dirty_bitmap import Bitmap, regrained
from memd.standin.block.image_locks import NO_READ, NO_RESIZE, NO_WRITE, READ, WRITE
from memd.standin.block.images import Images, is_zero
from memd.standin.block.job_nodes import JobNodes
from memd.standin.block.jobs import Jobs, Task, changes
from memd.standin.block.nodes import Node, held, waits_for
from memd.work import MEMORY, Events, Job

_OF_BITMAP = ("incremental", "bitmap")
"""The modes in which a bitmap tells what is copied."""

_COPIED = 64 << 10
"""Bytes that a backup copies at once, where the target has no larger clusters."""

_MOST_WORKERS = (1 << 31) - 1


class BlockJobs:
    """The commands.

    Args:
        blocks: the nodes.
        images: makes targets.
        jobs: all jobs.
    """

    def __init__(self, blocks: Blocks, images: Images, jobs: Jobs) -> None:
        self._blocks = blocks
        self._images = images
        self._jobs = jobs

    async def _start(self, task: Task, moved: Sequence[Node]) -> Events:
        """Start a job whose nodes are put together.

        Args:
            moved: nodes whose data it would copy.

        Raises:
            QMPError: it can't be; nothing has changed then.
        """
        await self._prepare(task, moved)
        return await self.run(task)

    async def _prepare(self, task: Task, moved: Sequence[Node]) -> None:
        """Keep what a job uses from others; raises as `_start`."""
        assert task.nodes is not None
        events: Events = ()
        try:
            self._jobs.check(task.id, task.args)
            events = changes(task.id, "created", "null")
            await task.nodes.check()
            events = ()
            await self._images.check_no_data(moved)
            if task.bitmap is not None:
                task.bitmap.check_free()
                task.bitmap.busy = True
        except QMPError as error:
            await task.nodes.end()
            error.events = events
            raise

    async def run(self, task: Task) -> Events:
        """Start a job that is prepared; raises `QMPError`."""
        try:
            return await self._jobs.start(task)
        except QMPError:
            await task.release()
            raise

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
        nodes.write_to(base)
        if active:
            made = await _mirror(nodes, node, args, default_granularity(base))
            made.commits = True
            nodes.use_later(base, {WRITE, NO_RESIZE}, "target")
        else:
            made = await nodes.put_above(top, "commit_top", args.get("filter-node-name"))
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
                await self._images.set_backing(overlay, base, args.get("backing-file"))
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
        for both in (("base", "base-node"), ("base", "bottom"), ("bottom", "base-node")):
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
                await self._images.set_backing(node.image, base, args.get("backing-file"))
                node.image.align()

        # Filters at either end have no data of their own.
        ends = {node.image, base and base.image}
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
        replaced = self._replaced(node, args["replaces"]) if "replaces" in args else node
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
                zeroed = not await Job(lambda: all(map(is_zero, images)), on=waits_for(images))
        length, error = node.size if zeroed or moves else 0, None
        if node.size != to.size:
            length, error = 0, "Source and target image have different sizes"
        await _mirror(nodes, node, args, granularity or default_granularity(to))
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
        args, made = await self.new_target(args, of_backup=False)
        try:
            return await self.mirror(args, made)
        finally:
            await self._blocks.collect(made)

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

    async def backup(self, args: JSONObject) -> Events:
        """`blockdev-backup`; raises `QMPError`."""
        return await self.run(await self.plan_backup(args, self._blocks.named(args["target"])))

    async def plan_backup(self, args: JSONObject, to: Node) -> Task:
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
        args, made = await self.new_target(args, of_backup=True)
        try:
            return await self.run(await self.plan_backup(args, made))
        finally:
            await self._blocks.collect(made)

    async def new_target(self, args: JSONObject, *, of_backup: bool) -> tuple[JSONObject, Node]:
        """Make the target of a job; gives its arguments, and the target.

        Args:
            of_backup: whether it is a backup's, and not a mirror's.
        """
        node = self._blocks.named(args["device"])
        if of_backup:
            self._check_job(node)
        if args["sync"] == "top" and node.image.backing is None:
            args = {**args, "sync": "full"}
        kind = args.get("format", node.driver)
        backing = {"top": node.backing, "none": node}.get(args["sync"])
        named = {"node-name": args["node-name"]} if "node-name" in args else {}
        unmaps = {"discard": "unmap", "detect-zeroes": "unmap"}
        alone = {"backing": None} if kind == "qcow2" else {}
        made = await self._images.target(
            *(args["target"], kind, node.size, args),
            backing=backing,
            options={"cache": node.cache, **(unmaps if of_backup else alone), **named},
            moved=_moved(node, args["sync"]),
        )
        if of_backup and args["sync"] == "none" and made.driver == "qcow2":
            made.backing = node
        return args, made

    def _check_job(self, node: Node) -> None:
        if node.job is not None:
            self._blocks.check_free(node)


async def _mirror(nodes: JobNodes, node: Node, args: JSONObject, granularity: int) -> Node:
    """Have a job copy what is written to a node; gives the job's filter.

    Args:
        args: of the command.
        granularity: of the bitmap that tells what is to be copied.
    """
    made = await nodes.put_above(node, "mirror_top", args.get("filter-node-name"))
    made.nameless.append((granularity, 0, False))
    nodes.claim(made, "main node", {READ, NO_RESIZE})
    nodes.claim(node, "source", {NO_RESIZE})
    return made


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
