"""Where in a machine memory devices go: the range of addresses for them, and its slots.

All numbers and texts were observed on QEMU 10.0.2 and 11.1.3, which agree.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from memd.config import MachineConfig
from memd.errors import QMPError
from memd.named_tuple import NamedTuple

GIB = 1 << 30

_LOW = {
    # Bytes from which on memory is split, and how many stay below 4 GiB then.
    "q35": (0xB000_0000, 0x8000_0000),
    "pc": (0xE000_0000, 0xC000_0000),
    "isapc": (0xE000_0000, 0xC000_0000),
    "microvm": (0xC000_0000, 0xC000_0000),
}

ANYWHERE = 0
"""The address that asks for any."""

ANY_SLOT = -1
"""The slot that asks for any."""


class Placed(Protocol):
    """A device with a place in the area."""

    @property
    def id(self) -> str | None:
        """The device's id."""

    @property
    def address(self) -> int:
        """Where its memory begins."""

    @property
    def memory_size(self) -> int:
        """How many bytes of addresses it takes."""


class Area(NamedTuple):
    """The range of addresses for memory devices.

    Attributes:
        base: its first address.
        size: bytes of addresses: a GiB for each slot is added, so that devices
            can be aligned.
        total: bytes of memory that all devices together may have.
    """

    base: int
    size: int
    total: int

    def find(self, placed: Iterable[Placed], size: int, align: int, page: int, hint: int) -> int:
        """The address for a device.

        Args:
            placed: the devices that are there.
            size: bytes that it takes.
            align: of its address, a power of two, in bytes.
            page: its size has to be a multiple of this, in bytes.
            hint: the address that is asked for, or `ANYWHERE`.

        Raises:
            QMPError: there is no gap. The order of complaints is QEMU's.
        """
        there = sorted(placed, key=lambda device: device.address)
        used = sum(device.memory_size for device in there)
        if used + size > self.total:
            raise QMPError(
                f"not enough space, currently 0x{used:x} in use of total space for"
                f" memory devices 0x{self.total:x}"
            )
        if size % page:
            raise QMPError(f"backend memory size must be multiple of 0x{page:x}")
        if hint != ANYWHERE:
            return self._check(there, size, align, hint)
        address = self.base + -self.base % align
        for device in there:
            end = device.address + device.memory_size
            if address + size <= device.address:
                break
            if end > address:
                address = end + -end % align
        if address + size > self.base + self.size:
            raise QMPError(
                "could not find position in guest address space for memory device"
                " - memory fragmented due to alignments"
            )
        return address

    def _check(self, there: Iterable[Placed], size: int, align: int, hint: int) -> int:
        if hint % align:
            raise QMPError(f"address must be aligned to 0x{align:x} bytes")
        if hint < self.base or hint + size > self.base + self.size:
            raise QMPError(
                f"can't add memory device [0x{hint:x}:0x{size:x}], usable range for"
                f" memory devices [0x{self.base:x}:0x{self.size:x}]"
            )
        for device in there:
            if hint < device.address + device.memory_size and device.address < hint + size:
                name = "(unnamed)" if device.id is None else device.id
                raise QMPError(f"address range conflicts with memory device id='{name}'")
        return hint


def area_of(config: MachineConfig) -> Area | None:
    """The area of a machine; None where it has none."""
    total = config.maxmem - config.ram_size
    if not config.takes_dimms or total <= 0:
        return None
    base, size = ram_ranges(config)[-1]
    end = base + size
    if config.type != "virt":
        end = max(end, 4 * GIB)
    return Area(end + -end % GIB, total + config.slots * GIB, total)


def ram_ranges(config: MachineConfig) -> list[tuple[int, int]]:
    """Where in a machine the memory is that it starts with: addresses and sizes."""
    if config.type in ("none", "x-remote"):
        return []
    if config.type == "virt":
        return [(GIB, config.ram_size)]
    limit, below = _LOW[config.type]
    if config.ram_size < limit:
        return [(0, config.ram_size)]
    return [(0, below), (4 * GIB, config.ram_size - below)]


def choose_slot(slots: int, taken: Collection[int], hint: int) -> int:
    """The slot for a DIMM.

    Args:
        slots: how many there are.
        taken: those that are in use.
        hint: the one that is asked for, or `ANY_SLOT`.

    Raises:
        QMPError: there is none.
    """
    if slots == 0:
        raise QMPError("no slots where allocated, please specify the 'slots' option")
    if hint != ANY_SLOT:
        if not 0 <= hint < slots:
            raise QMPError(f"invalid slot number {hint}, valid range is [0-{slots - 1}]")
        if hint in taken:
            raise QMPError(f"slot {hint} is busy")
        return hint
    for slot in range(slots):
        if slot not in taken:
            return slot
    raise QMPError("no free slots available")
