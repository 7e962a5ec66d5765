"""Commands about single block nodes: `blockdev-add`, `blockdev-del`, `block_resize` and others.

A node is planned first, with those below it that come with it; then their files are opened
in a thread (`opening.py`); only then is it one of the graph. Nobody reads or writes a guest's
data in nodes; of qcow2 images there is the metadata. What is known of drivers, rules and texts
was observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from memd.compat import Compat
from memd.errors import QMPError, prefixed, printable, refusing
from memd.hostmem.spec import round_up
from memd.json_types import JSONObject
from memd.standin.block.graph import Graph, close_files, end_counting
from memd.standin.block.image_locks import RESIZE
from memd.standin.block.nodes import (
    DRIVERS,
    FILES,
    PROBED,
    REMOTE,
    SECTOR,
    Node,
    check_depth,
    waits_for,
)
from memd.standin.block.opening import measure, open_nodes, take_given
from memd.wire.rows import encode_rows
from memd.work import Encoded, Job, in_turns

if TYPE_CHECKING:
    from memd.standin.tunable import ThrottleGroup

_LONGEST = (1 << 63) - (1 << 30)
"""Bytes of a node at most."""

_NULL_SIZE = 1 << 30

_OF_ANY_NODE = (
    *("driver", "node-name", "discard", "cache", "read-only", "auto-read-only", "force-share"),
    *("detect-zeroes", "active"),
)
"""The options that a node of any driver has."""

_GUESSED = (
    "WARNING: Image format was not specified for '{}' and probing guessed raw.\n"
    "         Automatically detecting the format is dangerous for raw images, write operations on"
    " block 0 will be restricted.\n"
    "         Specify the 'raw' format explicitly to remove the restrictions."
)


class Blocks(Graph):
    """The commands; made of the same as a `Graph`."""

    async def add(self, args: JSONObject, *, owned: bool = True) -> Node:
        """`blockdev-add`; gives the node.

        Args:
            args: of the command; where no driver is named, the image's format is looked for.
            owned: whether it stays until it is deleted by name.

        Raises:
            QMPError: it can't be; nothing is left behind.
        """
        planned: dict[str, Node] = {}
        top = self._plan(args, planned)
        check_depth(top)
        named, made = [*planned], [*planned.values()]
        self.making.update(named)
        try:
            for node in made:
                node.counted = self.account.charge(
                    {"name": node.name, **node.options}, descriptors=int(node.driver in FILES)
                )
            take_given(made, self._sets)
            await Job(lambda: open_nodes(made, self._tree.host.roots), on=waits_for(made))
            for each in made:
                if each.wrong is not None:
                    raise each.wrong
        except Exception as error:
            refusal = await self._foreseen(made) if isinstance(error, QMPError) else None
            if any(node.fd >= 0 for node in made):
                await Job(lambda: close_files(made), on=waits_for(made), release=True)
            end_counting(made)
            raise refusal or error from None
        finally:
            self.making.difference_update(named)
        for node in made:
            self._nodes[node.name] = node
            node.join()
        try:
            await self.relock()
            self.check_open()
            for node in made:
                await self._keep(node)
        except QMPError:
            await self.collect(top)
            raise
        top.owned = owned
        top.tells_share = "force-share" in args
        if top.probed and not top.read_only:
            name = "" if top.child is None else top.child.filename
            # No name of a client's makes a line of its own.
            self._say(_GUESSED.format(printable(name)))
        return top

    async def _foreseen(self, made: list[Node]) -> QMPError | None:
        """Why nodes that are not there could not be used so; None where their files are missing.

        Who uses them is looked at, and they are locked, before what is in their files is.
        """
        if any(each.fd < 0 for each in made if each.driver in FILES):
            return None
        for node in made:
            self._nodes[node.name] = node
            node.join()
        try:
            await self.relock()
        except QMPError as error:
            return error
        finally:
            for node in made:
                del self._nodes[node.name]
                node.leave()
        return None

    def _plan(self, options: JSONObject, made: dict[str, Node]) -> Node:
        """A node that is to be; it is added to `made`, after those below that come with it."""
        driver = options["driver"]
        if driver not in (*DRIVERS, PROBED):
            raise QMPError(f"memd has no block driver '{driver}'")
        node = Node("", options)
        # What it has its bytes from is opened before it has a name.
        if driver not in (*FILES, *REMOTE) and not driver.startswith("null"):
            node.child = self._plan_below(options["file"], "file", node, node.read_only, made)
        if options.get("force-share") and not options.get("read-only"):
            raise QMPError("force-share=on can only be used with read-only images")
        check_options(options)
        name = node.name = self._take_name(options.get("node-name"))
        if name in made:
            raise QMPError(f"Duplicate nodes with node-name='{name}'")
        if driver == "throttle":
            node.group = self.group(options["throttle-group"])
        if driver.startswith("null"):
            node.size = round_up(options.get("size", _NULL_SIZE), SECTOR)
        elif driver in REMOTE:
            node.options = {k: v for k, v in options.items() if k not in _OF_ANY_NODE}
        elif node.child is not None:
            if driver == "copy-on-read" and node.child.read_only:
                raise QMPError("Block node is read-only")
            node.offset, node.length = options.get("offset", 0), options.get("size")
            told = options.get("backing")
            if told is not None:
                # What is wrong with a node that is named is told as it is.
                where = "Could not open backing file: " if told != name else ""
                try:
                    with prefixed(where):
                        node.backing = self._plan_below(told, "backing", node, True, made)
                except QMPError as error:
                    node.wrong = error
        if name in made:
            # One below has taken it.
            raise QMPError(f"Duplicate nodes with node-name='{name}'")
        made[name] = node
        return node

    def _plan_below(
        self, told: Any, role: str, above: Node, read_only: bool, made: dict[str, Node]
    ) -> Node:
        if type(told) is dict:
            cache = {**above.cache, **told.get("cache", {})}
            inherited = {
                "force-share": above.shared,
                "auto-read-only": above.auto,
                "discard": "unmap",
            }
            given = {"read-only": read_only, **inherited, **told, "cache": cache}
            below = self._plan(given, made)
            below.came_with = above
            below.follows = "read-only" not in told
            below.tells_share = "force-share" in told
            return below
        if told in made:
            return made[told]
        if role == "backing" and told == above.name and self.find(told) is None:
            raise QMPError(f"Making '{told}' a {role} child of '{told}' would create a cycle")
        return self.named(told)

    def group(self, name: str) -> ThrottleGroup:
        """The group of limits of that name; raises `QMPError` where there is none."""
        from memd.standin.tunable import ThrottleGroup

        found = self._tree.objects.get(name)
        if not isinstance(found, ThrottleGroup):
            raise QMPError(f"Throttle group '{name}' does not exist")
        return found

    async def delete(self, args: JSONObject) -> None:
        """`blockdev-del`.

        Raises:
            QMPError: there is none, or it is in use.
        """
        name = args["node-name"]
        node = self._nodes.get(name)
        if node is None:
            raise QMPError(f"Failed to find node with node-name='{name}'")
        if node.drives or node.holds:
            raise QMPError(f"{(*node.holds, 'Node')[0]} {name} is in use")
        self.check_free(node)
        if not node.owned:
            raise QMPError(f"Node {name} is not owned by the monitor")
        if node.parents:
            raise QMPError(f"Block device {name} is in use")
        node.owned = False
        await self.collect(node)

    def set_threshold(self, args: JSONObject) -> None:
        """`block-set-write-threshold`; raises `QMPError`."""
        node = self.find(args["node-name"])
        if node is None:
            raise QMPError(f"Device '{args['node-name']}' not found")
        node.threshold = args["write-threshold"]

    def change_child(self, args: JSONObject) -> None:
        """`x-blockdev-change`: raise `QMPError`, as no node of these drivers takes further ones."""
        parent = self.named(args["parent"])
        child, node = args.get("child"), args.get("node")
        if child is not None and node is not None:
            raise QMPError("The parameters child and node are in conflict")
        if child is None and node is None:
            raise QMPError("Either child or node must be specified")
        if child is not None and child not in dict(parent.roles):
            raise QMPError(f"Node '{parent.name}' does not have child '{child}'")
        if node is not None and self.find(node) is None:
            raise QMPError(f"Node '{node}' not found")
        what = "removing" if node is None else "adding"
        raise QMPError(f"The node {parent.name} does not support {what} a child")

    async def resize(self, args: JSONObject) -> None:
        """`block_resize`: the file behind a raw node has another size, or a qcow2 image is longer.

        Raises:
            QMPError: it can't have.
        """
        node, size = self.named(args.get("node-name", ""), args.get("device", "")), args["size"]
        if size < 0:
            raise QMPError("Parameter 'size' expects a >0 size")
        self.check_free(node)
        async with self.using(node, {RESIZE}):
            sizes = await self._resize(node, size)
        from memd.standin.block.dirty_bitmap import cut

        for each, its in sizes.items():
            each.size = round_up(its, SECTOR)
            for bitmap in each.bitmaps.values():
                bitmap.set_bits(cut(bitmap.bits, each.size, bitmap.granularity))
                bitmap.changed = True
        todo = [] if self.compat is Compat.V10_0 else [*sizes]
        while todo:
            at = todo.pop()
            for each in at.parents:
                follows = each.header is None and each.length is None and not each.offset
                if follows and each not in sizes:
                    each.size = at.size
                    todo.append(each)

    async def _resize(self, node: Node, size: int) -> dict[Node, int]:
        """The same, of a node that nobody keeps from it; gives the sizes of those below it."""
        file = node.file
        sizes: dict[Node, int] = {}
        for each in node.layers():
            if each.read_only:
                raise QMPError("Image is read-only")
            if each.driver.startswith("null"):
                raise QMPError("Image format driver does not support resize")
            if each.driver in REMOTE:
                raise QMPError(f"memd does not resize images of the format '{each.driver}'")
            if size > _LONGEST:
                raise QMPError(f"offset({size}) exceeds maximum({_LONGEST})")
            if each.length is not None:
                raise QMPError("Cannot resize fixed-size raw disks")
            sizes[each] = size
            size += each.offset
            if each.header is not None:
                break
        stored = {entry.text for entry in each.stored}
        for bitmap in each.bitmaps.values():
            if bitmap.name in stored:
                bitmap.check_free(changes=True)
        assert file is not None
        if file.read_only:
            raise QMPError("Image is read-only")

        def work() -> None:
            if each.header is not None:
                from memd.standin.block.qcow2_clusters import resize

                with each.changing(file.fd) as header:
                    resize(file.fd, header, size)
                return
            if file.driver == "file":
                os.ftruncate(file.fd, size)
            measure(file)
            if size > file.size:
                raise QMPError("Cannot grow device files")

        with refusing("Could not resize file"):
            await Job(work, on=waits_for([file]))
        return sizes

    async def nodes(self, args: JSONObject) -> Encoded:
        """The value of `query-named-block-nodes`, the youngest first.

        Raises:
            QMPError: it has too many bytes.
        """
        from memd.standin.block.node_info import device_info

        flat = args.get("flat", False)
        # Of each its whole chain is told, so that it grows with their square.
        rows = (device_info(node, self.compat, flat=flat) for node in self.all()[::-1])
        return await encode_rows(in_turns(rows))

    def graph(self, args: object = None) -> JSONObject:
        """The value of `x-debug-query-block-graph`."""
        return self.permissions().graph(self.drives)


def check_options(options: JSONObject) -> None:
    """Raise `QMPError` where options of a node are wrong whatever it is made of."""
    for each in ("offset", "size"):
        if options.get(each, 0) < 0:
            raise QMPError(f"Value '{options[each]}' is out of range for parameter '{each}'")
    if options.get("detect-zeroes") == "unmap" and options.get("discard") != "unmap":
        raise QMPError(
            "setting detect-zeroes to unmap is not allowed without setting discard operation"
            " to unmap"
        )
