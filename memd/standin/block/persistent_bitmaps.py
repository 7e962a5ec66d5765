"""Persistent bitmaps: dirty bitmaps of nodes, and the same in their qcow2 images.

They are read as an image is opened. One that is written to says that its bitmaps are in
use, since they may be others now; they are put there as it is closed, is not written to any
more, or is left to another machine.
"""

from __future__ import annotations

from collections.abc import Callable

from memd.errors import QMPError, printable, refusing
from memd.places import Account
from memd.standin.block.dirty_bitmap import Bitmap
from memd.standin.block.nodes import Node, held, waits_for
from memd.standin.block.opening import read_header
from memd.standin.block.qcow2_bitmaps import AUTO, IN_USE, Entry, Kept, mark_in_use, read, store
from memd.work import Job

Say = Callable[[str], None]
"""Takes lines for standard error."""

_STALE = (
    "warning: a program lacking bitmap support modified this file, so all bitmaps are now"
    " considered inconsistent\n"
    "Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix."
)


class Storing:
    """The bitmaps of a node that are put into its image.

    Attributes:
        node: the node.
        bitmaps: those, the youngest first.
        error: why they can't be there, or None.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self._fd = node.file_fd
        self.bitmaps = node.unstored
        self._kept = [
            Kept(each.raw, each.granularity, each.recording, each.bits if each.changed else None)
            for each in self.bitmaps
        ]
        self.error = "No write access" if node.has_lost_bitmaps else None

    @property
    def todo(self) -> bool:
        """Whether there is something to be done."""
        return bool(self._kept) and self.error is None

    def run(self) -> None:
        """Do it; in a thread."""
        try:
            with self.node.changing(self._fd), refusing("Failed to write bitmap directory"):
                self.node.stored = store(self._fd, self._kept)
        except QMPError as error:
            self.error = error.desc

    def say_lost(self, say: Say) -> None:
        """Tell of bitmaps that could not be put into their image."""
        if self.error is not None:
            say(
                "Lost persistent bitmaps during inactivation of node"
                f" '{printable(self.node.name)}': {printable(self.error)}"
            )


async def keep(node: Node, wanted: str, account: Account, say: Say, *, again: bool = False) -> None:
    """Do what is to be done about the bitmaps of an image.

    Args:
        wanted: that; see `Node.keeps`.
        account: counts those that are read.
        again: whether another process may have changed the image meanwhile.

    Raises:
        QMPError: it can't be done.
    """
    before = node.keeps
    storing = Storing(node) if before == "in use" != wanted else None
    node.keeps = wanted
    try:
        with held([node]):
            if storing is not None:
                for bitmap in node.bitmaps.values():
                    bitmap.readonly = bitmap.persistent
                await _store(storing, say)
            if not wanted:
                for bitmap in [*node.bitmaps.values()]:
                    if bitmap.persistent:
                        node.drop(bitmap)
            elif not before:
                await _load(node, account, say, again=again)
            if wanted == "in use" != before and node.stored:
                with refusing("Can't update bitmap directory"):
                    await Job(_marking(node), on=waits_for([node]))
                for bitmap in node.bitmaps.values():
                    bitmap.readonly = False
    except QMPError:
        node.keeps = before
        raise


async def _store(storing: Storing, say: Say) -> None:
    if storing.todo:
        await Job(storing.run, on=waits_for([storing.node]), release=True)
        for bitmap in storing.bitmaps:
            bitmap.readonly = storing.error is None
            bitmap.changed = storing.error is not None
    storing.say_lost(say)


def _marking(node: Node) -> Callable[[], None]:
    """What has an image say that its bitmaps may be others now; in a thread."""
    fd = node.file_fd

    def work() -> None:
        with node.changing(fd):
            node.stored = mark_in_use(fd)

    return work


async def _load(node: Node, account: Account, say: Say, *, again: bool) -> None:
    """Read the bitmaps of an image; raises `QMPError`, and there are none of them then."""
    fd, header = node.file_fd, node.header
    assert header is not None
    if header.stale:
        say(_STALE)
    node.stored = []
    if not (header.directory.bitmaps or again):
        return

    def work() -> list[tuple[Entry, int]]:
        if again:
            read_header(node)
        return read(fd)

    made: list[Bitmap] = []
    found = await Job(work, on=waits_for([node]), heavy=True)
    try:
        for entry, bits in found:
            if entry.text in node.bitmaps:
                raise QMPError(f"Bitmap already exists: {entry.text}")
            share = account.charge(entry.text)
            bitmap = Bitmap(
                *(entry.text, entry.granularity, bool(entry.flags & AUTO), share),
                persistent=True,
                raw=entry.name,
            )
            made.append(bitmap)
            node.bitmaps[bitmap.name] = bitmap
            bitmap.set_bits(bits)
            bitmap.readonly, bitmap.changed = True, False
            bitmap.inconsistent = bool(entry.flags & IN_USE)
    except QMPError:
        for bitmap in made:
            node.drop(bitmap)
        raise
    node.stored = [entry for entry, _bits in found]
