"""The register of dirty bitmaps: rules, and who uses which.

Nothing is written by a guest: those bits are set that an image had. Observed on QEMU 10.0.2.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from memd.compat import Compat
from memd.errors import QMPError, refusing
from memd.json_types import JSONObject
from memd.standin.block.blocks import Blocks
from memd.standin.block.dirty_bitmap import Bitmap, cut, regrained
from memd.standin.block.nodes import Node, held, waits_for
from memd.work import MEMORY, Job

_LONGEST_NAME = 1023
"""Bytes of a bitmap's name."""

_FINEST = 512
_USUAL = range(4096, (64 << 10) + 1)
"""The granularity of a bitmap that is told none: the size of clusters, but for very small and
very large ones, and where there are none the last."""

_QUICK = 64 << 10
"""Bytes of bits that are gone through at once."""


class Bitmaps:
    """Commands about dirty bitmaps.

    Args:
        blocks: the nodes that have them.
    """

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    def find(self, node_name: str, name: str) -> tuple[Node, Bitmap]:
        """A node and its bitmap; raises `QMPError` where there is none such."""
        node = self._blocks.find(node_name)
        if node is None:
            raise QMPError(f"Node '{node_name}' not found")
        return node, bitmap_of(node, name)

    def free(
        self, args: JSONObject, *, changes: bool = True, lost: bool = False
    ) -> tuple[Node, Bitmap]:
        """The same, of a bitmap that can be used, as a command names both.

        Args:
            changes: see `Bitmap.check_free`, as `lost`.
        """
        node, bitmap = self.find(args["node"], args["name"])
        bitmap.check_free(changes=changes, lost=lost)
        return node, bitmap

    def add(self, args: JSONObject) -> None:
        """`block-dirty-bitmap-add`; raises `QMPError`."""
        name, persistent = args["name"], args.get("persistent", False)
        if not name:
            raise QMPError("Bitmap name cannot be empty")
        node = self._blocks.named(args["node"])
        granularity = args.get("granularity", default_granularity(node))
        if granularity < _FINEST or granularity & (granularity - 1):
            raise QMPError("Granularity must be power of 2 and at least 512")
        kept = self._blocks.inactive or node.read_only
        if persistent and kept and self._blocks.compat is not Compat.V10_0:
            raise QMPError(
                f"Cannot add a persistent bitmap to read-only or inactive node '{node.name}'"
            )
        if persistent:
            _check_storable(node, name, granularity)
        if name in node.bitmaps:
            raise QMPError(f"Bitmap already exists: {name}")
        if _length(name) > _LONGEST_NAME:
            raise QMPError(f"Bitmap name too long: {name}")
        share = self._blocks.account.charge(args)
        recording = not args.get("disabled", False)
        node.bitmaps[name] = Bitmap(name, granularity, recording, share, persistent=persistent)

    def removable(self, args: JSONObject) -> tuple[Node, Bitmap]:
        """The same as `free`, of one that can be removed."""
        if self._blocks.compat is Compat.V10_0:
            return self.free(args, lost=True)
        node, bitmap = self.free(args, changes=False, lost=True)
        if bitmap.readonly:
            raise QMPError(
                f"Cannot remove persistent bitmap '{bitmap.name}': no write access to node"
                f" '{node.name}'"
            )
        return node, bitmap

    async def remove(self, args: JSONObject) -> None:
        """`block-dirty-bitmap-remove`; raises `QMPError`."""
        node, bitmap = self.removable(args)
        if node.keeps and any(each.name == bitmap.raw for each in node.stored):
            bitmap.busy = True
            try:
                await self._remove_stored(node, bitmap)
            finally:
                bitmap.busy = False
        if node.bitmaps.get(bitmap.name) is bitmap:
            node.drop(bitmap)

    async def _remove_stored(self, node: Node, bitmap: Bitmap) -> None:
        """Remove a bitmap from its image; raises `QMPError`."""
        from memd.standin.block.qcow2_bitmaps import remove

        fd = node.file_fd

        def work() -> None:
            what = f"Failed to remove persistent bitmap '{bitmap.name}' from node '{node.name}'"
            with node.changing(fd), refusing(what):
                node.stored = remove(fd, bitmap.raw)

        with held([node]):
            await Job(work, on=waits_for([node]))

    def clear(self, args: JSONObject) -> None:
        """`block-dirty-bitmap-clear`; raises `QMPError`."""
        self.free(args)[1].set_bits(0)

    def enable(self, args: JSONObject) -> None:
        """`block-dirty-bitmap-enable`; raises `QMPError`."""
        self.free(args, changes=False)[1].recording = True

    def disable(self, args: JSONObject) -> None:
        """`block-dirty-bitmap-disable`; raises `QMPError`."""
        self.free(args, changes=False)[1].recording = False

    async def change(self, verb: str, data: JSONObject) -> Callable[[], Awaitable[None]]:
        """The same as an action of a transaction; gives what takes it back.

        Args:
            verb: add, clear, enable, disable or merge.
            data: the action's.

        Raises:
            QMPError: it can't be done.
        """
        if verb == "add":
            self.add(data)

            async def remove() -> None:
                with suppress(QMPError):
                    # Another client may have removed it meanwhile.
                    await self.remove(data)

            return remove
        _node, bitmap = self.find(data["node"], data["target" if verb == "merge" else "name"])
        recording, bits, changed = bitmap.recording, bitmap.bits, bitmap.changed

        async def undo() -> None:
            bitmap.recording = recording
            with suppress(QMPError):
                bitmap.set_bits(bits)
            bitmap.changed = changed

        if verb == "merge":
            await self.merge(data)
        else:
            getattr(self, verb)(data)
        return undo

    async def merge(self, args: JSONObject) -> None:
        """`block-dirty-bitmap-merge`; raises `QMPError`."""
        node, target = self.find(args["node"], args["target"])
        sources = []
        for each in args["bitmaps"]:
            if type(each) is str:
                source, bitmap = node, bitmap_of(node, each)
            else:
                source, bitmap = self.find(each["node"], each["name"])
            target.check_free(changes=True)
            bitmap.check_free()
            if source.size != node.size:
                raise QMPError(
                    f"Bitmaps are of different sizes (destination size is {node.size}, source"
                    f" size is {source.size}) and can't be merged"
                )
            if bitmap.bits:
                sources.append((bitmap.bits, bitmap.granularity))
        if not sources:
            return
        wanted, size, before = target.granularity, node.size, target.bits

        def merged() -> int:
            found = before
            for bits, granularity in sources:
                found |= regrained(bits, granularity, wanted)
            return cut(found, size, wanted)

        target.busy = True
        try:
            finest = min(wanted, *(granularity for _bits, granularity in sources))
            quick = size // finest < _QUICK * 8
            target.set_bits(merged() if quick else await Job(merged, on=MEMORY, heavy=True))
        finally:
            target.busy = False


def default_granularity(node: Node) -> int:
    """The bytes of which each bit of a node's bitmaps tells, where nothing else is said."""
    usual: int = node.facts.get("cluster-size", _USUAL[-1])
    return min(max(usual, _USUAL[0]), _USUAL[-1])


def bitmap_of(node: Node, name: str, complaint: str = "Dirty bitmap '{}' not found") -> Bitmap:
    """The bitmap of a node that has that name; raises `QMPError` with the complaint."""
    if name not in node.bitmaps:
        raise QMPError(complaint.format(name))
    return node.bitmaps[name]


def _length(name: str) -> int:
    return len(name.encode(errors="surrogatepass"))


def _check_storable(node: Node, name: str, granularity: int) -> None:
    """Raise `QMPError` where a bitmap can't be kept in the image of a node."""
    header = node.header
    if node.driver != "qcow2" or header is None:
        what = f"Can't store persistent bitmaps to {node.name}"
        raise QMPError(f"{what}: Operation not supported")
    if name in node.bitmaps:
        raise QMPError(f"Bitmap already exists: {name}")
    from memd.standin.block.qcow2_bitmaps import LONGEST, MOST, MOST_ENTRIES, entries_needed

    stored = [each for each in node.bitmaps.values() if each.persistent]
    entries = entries_needed(node.size, granularity, header.cluster)
    why = None
    if header.version < 3:
        why = "Cannot store dirty bitmaps in qcow2 v2 files"
    elif _length(name) > _LONGEST_NAME:
        why = f"Name length exceeds maximum ({_LONGEST_NAME} characters)"
    elif entries > MOST_ENTRIES or node.size > LONGEST * 8 * granularity:
        why = "Too much space will be occupied by the bitmap. Use larger granularity"
    elif len(stored) >= MOST:
        why = "Maximum number of persistent bitmaps is already reached"
    elif not node.read_only:
        why = header.unwritable
    if why is not None:
        raise QMPError(f"Can't make bitmap '{name}' persistent in '{node.name}': {why}")
