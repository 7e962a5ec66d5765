"""The register of dirty bitmaps: rules, and who uses which.

Nothing is written by a guest, so none of them has a bit set. Observed on QEMU 10.0.2.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from memd.errors import QMPError
from memd.standin.blocks import Bitmap, Blocks

if TYPE_CHECKING:
    from memd.standin.blocks import Node

Args = dict[str, Any]

_LONGEST_NAME = 1023
"""Bytes of a bitmap's name."""

_FINEST = 512
_USUAL = range(4096, (64 << 10) + 1)
"""The granularity of a bitmap that is told none: the size of clusters, but for very small and
very large ones, and where there are none the last."""


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

    def free(self, args: Args) -> tuple[Node, Bitmap]:
        """The same, of a bitmap that nothing uses, as a command names both."""
        node, bitmap = self.find(args["node"], args["name"])
        bitmap.check_free()
        return node, bitmap

    def add(self, args: Args) -> None:
        """`block-dirty-bitmap-add`; raises `QMPError`."""
        name = args["name"]
        if not name:
            raise QMPError("Bitmap name cannot be empty")
        node = self._blocks.named(args["node"])
        usual = node.facts.get("cluster-size", _USUAL[-1])
        granularity = args.get("granularity", min(max(usual, _USUAL[0]), _USUAL[-1]))
        if granularity < _FINEST or granularity & (granularity - 1):
            raise QMPError("Granularity must be power of 2 and at least 512")
        if args.get("persistent"):
            _refuse_persistent(node, name)
        if name in node.bitmaps:
            raise QMPError(f"Bitmap already exists: {name}")
        if len(name.encode(errors="surrogatepass")) > _LONGEST_NAME:
            raise QMPError(f"Bitmap name too long: {name}")
        share = self._blocks.account.charge(args)
        recording = not args.get("disabled", False)
        node.bitmaps[name] = Bitmap(name, granularity, recording, share)

    def remove(self, args: Args) -> None:
        """`block-dirty-bitmap-remove`; raises `QMPError`."""
        node, bitmap = self.free(args)
        del node.bitmaps[bitmap.name]
        bitmap.counted.end()

    def clear(self, args: Args) -> None:
        """`block-dirty-bitmap-clear`, of one without bits; raises `QMPError`."""
        self.free(args)

    def enable(self, args: Args) -> None:
        """`block-dirty-bitmap-enable`; raises `QMPError`."""
        self.free(args)[1].recording = True

    def disable(self, args: Args) -> None:
        """`block-dirty-bitmap-disable`; raises `QMPError`."""
        self.free(args)[1].recording = False

    def change(self, verb: str, data: Args) -> Callable[[], None]:
        """The same as an action of a transaction; gives what takes it back.

        Args:
            verb: add, clear, enable, disable or merge.
            data: the action's.

        Raises:
            QMPError: it can't be done.
        """
        if verb in ("enable", "disable"):
            _node, bitmap = self.free(data)
            before = bitmap.recording

            def undo() -> None:
                bitmap.recording = before
        else:

            def undo() -> None:
                with suppress(QMPError):
                    # Another client may have removed it meanwhile.
                    if verb == "add":
                        self.remove(data)

        getattr(self, verb)(data)
        return undo

    def merge(self, args: Args) -> None:
        """`block-dirty-bitmap-merge`, of bitmaps without bits; raises `QMPError`."""
        node, target = self.find(args["node"], args["target"])
        for each in args["bitmaps"]:
            if type(each) is str:
                source, bitmap = node, bitmap_of(node, each)
            else:
                source, bitmap = self.find(each["node"], each["name"])
            bitmap.check_free()
            if source.size != node.size:
                raise QMPError(
                    f"Bitmaps are of different sizes (destination size is {node.size}, source"
                    f" size is {source.size}) and can't be merged"
                )
        target.check_free()


def bitmap_of(node: Node, name: str, complaint: str = "Dirty bitmap '{}' not found") -> Bitmap:
    """The bitmap of a node that has that name; raises `QMPError` with the complaint."""
    if name not in node.bitmaps:
        raise QMPError(complaint.format(name))
    return node.bitmaps[name]


def _refuse_persistent(node: Node, name: str) -> None:
    if node.driver == "qcow2":
        raise QMPError("memd stores no bitmaps in images, and this one would be stored")
    what = f"Can't store persistent bitmaps to {node.name}"
    raise QMPError(f"{what}: Operation not supported")
