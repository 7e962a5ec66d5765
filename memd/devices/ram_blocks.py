"""The RAM blocks of a QEMU: one for each backend, as `x-query-ramblock` and `info ramblock` list.

Observed on QEMU 10.0.2. Its blocks of firmware and of tables are not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from memd.backends.base import MemoryBackend
from memd.devices.machine import MemoryDevice
from memd.hostmem.spec import round_up

_APART = 64 * 4096
"""Each block begins at a multiple of this."""


def ram_block_lines(backends: Iterable[MemoryBackend]) -> Iterator[str]:
    """A heading, and a line for each block, from the largest to the smallest.

    Args:
        backends: in the order in which they came. They are given offsets as if none had
            gone before, which nothing in memd depends on.
    """
    names = f"{'Offset':>18} {'Used':>18} {'Total':>18} {'HVA':>18}"
    yield f"{'Block Name':>24} {'PSize':>8}  {names}  RO"
    end = 0
    rows = []
    for backend in backends:
        region = backend.region
        if region is not None:
            rows.append((region, _name(backend), end))
            end = round_up(end + region.length, _APART)
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
