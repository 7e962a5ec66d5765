"""The RAM blocks of a QEMU: one for each backend, as `x-query-ramblock` and `info ramblock` list.

Observed on QEMU 10.0.2. Its blocks of firmware and of tables are not here.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator

from memd.backends.base import MemoryBackend
from memd.devices.machine import MemoryDevice
from memd.hostmem.spec import round_up
from memd.named_tuple import NamedTuple
from memd.qom.user_creatable import UserCreatable

_APART = 64 * 4096
"""Each block begins at a multiple of this."""


class _Block(NamedTuple):
    """A block: where it begins, its bytes, and the order in which it came."""

    offset: int
    length: int
    number: int

    @property
    def end(self) -> int:
        """Where another one may begin."""
        return round_up(self.offset + self.length, _APART)


class RamBlocks:
    """The offsets of backends' blocks, which depend on the blocks that have gone.

    A block goes into the smallest gap that it fits into, of gaps of one size into that
    after the largest block, of these after the oldest; else behind the last block. What
    is before the first block is no gap.
    """

    def __init__(self) -> None:
        # By offset.
        self._blocks: list[_Block] = []
        # Bytes; those of the block before, negated; its number; the offset.
        self._gaps: list[tuple[int, int, int, int]] = []
        self._of: dict[MemoryBackend, _Block] = {}
        self._count = 0

    def take(self, obj: UserCreatable, listed: bool) -> None:
        """Give a backend a block as it is listed, and take that back; `Objects.on_listed`."""
        if not isinstance(obj, MemoryBackend):
            return
        if listed:
            self._add(obj)
        elif (block := self._of.pop(obj, None)) is not None:
            at = bisect_left(self._blocks, block)
            self._remove_gap(at - 1)
            self._remove_gap(at)
            del self._blocks[at]
            self._add_gap(at - 1)

    def _add(self, backend: MemoryBackend) -> None:
        region = backend.region
        if region is None:
            return
        offset = self._blocks[-1].end if self._blocks else 0
        fitting = bisect_left(self._gaps, (region.length,))
        if fitting < len(self._gaps):
            offset = self._gaps[fitting][-1]
        self._count += 1
        block = self._of[backend] = _Block(offset, region.length, self._count)
        at = bisect_left(self._blocks, block)
        self._remove_gap(at - 1)
        self._blocks.insert(at, block)
        self._add_gap(at)

    def _gap(self, at: int) -> tuple[int, int, int, int] | None:
        """The gap behind a block, None where there is none, or no such block."""
        if not 0 <= at < len(self._blocks) - 1:
            return None
        block, size = self._blocks[at], self._blocks[at + 1].offset - self._blocks[at].end
        return (size, -block.length, block.number, block.end) if size else None

    def _add_gap(self, at: int) -> None:
        if (gap := self._gap(at)) is not None:
            insort(self._gaps, gap)

    def _remove_gap(self, at: int) -> None:
        if (gap := self._gap(at)) is not None:
            self._gaps.remove(gap)

    def lines(self) -> Iterator[str]:
        """A heading, and a line for each block, from the largest to the smallest."""
        names = f"{'Offset':>18} {'Used':>18} {'Total':>18} {'HVA':>18}"
        yield f"{'Block Name':>24} {'PSize':>8}  {names}  RO"
        rows = []
        for backend, block in self._of.items():
            if backend.region is not None:
                rows.append((backend.region, _name(backend), block.offset))
        for region, name, offset in sorted(rows, key=lambda row: -row[0].length):
            unit = (region.page_size.bit_length() - 1) // 10
            size = f"{region.page_size >> 10 * unit} {' KMG'[unit]}iB"
            numbers = (offset, region.length, region.length, region.address)
            told = " ".join(f"0x{number:016x}" for number in numbers)
            yield f"{name:>24} {size:>8}  {told}  {'rw' if region.writable else 'ro'}"


def _name(backend: MemoryBackend) -> str:
    user = backend.mapped_by
    if isinstance(user, MemoryDevice):
        return user.ram_block
    return "" if user is None else backend.memory_name
