"""`virtio-mem-pci`: a backend's memory of which a machine has more or less, by blocks.

The guest follows `requested-size`; what it does not have is discarded, so that
the host gets it back. Names, defaults, texts and their order were observed on
QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from memd.backends.base import MemoryBackend
from memd.devices.area import ANYWHERE
from memd.devices.device import alignment, is_rom, memdev_property, stored
from memd.devices.machine import Machine
from memd.devices.pci import check_partners
from memd.devices.virtio_pci import VirtioMemory
from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.qapi.visit import visit_size
from memd.qom import Property
from memd.work import Command

if TYPE_CHECKING:
    from memd.hostmem.region import Region

DEFAULT_BLOCK = 2 << 20
"""Bytes of a block where none are given: those of a transparent huge page."""

MIN_BLOCK = 1 << 20
"""The least bytes of a block."""

STEP = 256 << 20
"""Bytes that are emptied or populated before it looks again what is requested."""


class VirtioMem(VirtioMemory):
    """The blocks that the machine has are the first ones.

    Attributes:
        requested: bytes that the machine is to have.
        size: bytes that it has.
    """

    requested = 0
    size = 0
    _block = 0
    # The machine that it is plugged into.
    _machine: Machine | None = None
    # Whether the guest was asked, and has not reacted yet.
    _asked = False
    # Whether a change of the size is going on in a thread.
    _changing = False

    @property
    def block(self) -> int:
        """Bytes of a block."""
        if self._block:
            return self._block
        memdev = self.memdev
        region = None if memdev is None else memdev.region
        return DEFAULT_BLOCK if region is None else max(DEFAULT_BLOCK, region.page_size)

    @property
    def plugged_size(self) -> int:
        return self.size

    def address_align(self, memdev: MemoryBackend) -> int:
        return max(self.block, alignment(memdev))

    def data(self) -> JSONObject:
        return {
            "memdev": self.get_property("memdev"),
            "memaddr": self.address,
            "block-size": self.block,
            "size": self.size,
            "node": self.values.get("node", 0),
            "max-size": self.front.memory_size,
            "requested-size": self.requested,
        }

    # Life

    def realize(self, machine: Machine, memdev: MemoryBackend) -> Command[None] | None:
        """See `VirtioMemory.realize`: the memory is emptied first, as QEMU does."""
        region = memdev.region
        assert region is not None
        self._check(machine, memdev, region)
        check_partners(self.front)
        if region.opened is not None and region.opened.read_only:
            raise QMPError("Unexpected error discarding RAM: Operation not permitted")
        machine.check_private_discard(memdev)
        self.front.ram_block = f"{self.front.pci_path}/{memdev.memory_name}"
        self._block = self.block
        self._machine = machine
        if memdev.outlived and not machine.started:
            # Its last daemon had it on this command line, too: nobody has asked for its end.
            return None
        return _discard(region, memdev.name, 0, region.length)

    def _check(self, machine: Machine, memdev: MemoryBackend, region: Region) -> None:
        if memdev.mapped_by is not None:
            raise QMPError(f"'memdev' property specifies a busy memdev: {memdev.name}")
        if is_rom(memdev):
            raise QMPError("'memdev' property specifies an unsupported memdev")
        if memdev.prealloc:
            # A space ends QEMU's text.
            raise QMPError(
                f"'memdev' property specifies a memdev with preallocation enabled: {memdev.name}."
                " Instead, specify 'prealloc=on' for the virtio-mem device. "
            )
        node, nodes = self.values.get("node", 0), machine.numa_nodes
        if node >= nodes:
            raise QMPError(
                f"'node' property has value '{node}', which exceedsthe number of numa nodes:"
                f" {nodes}"
            )
        if self._inaccessible() == "auto":
            # What is read of it costs nothing where the kernel has the zero page for it.
            anonymous = region.fd < 0 and not region.shared
            self.values["unplugged-inaccessible"] = "off" if anonymous else "on"
        if self.values.get("dynamic-memslots") and self._inaccessible() != "on":
            raise QMPError(
                "'dynamic-memslots' property set to 'on' requires 'unplugged-inaccessible' to be"
                " 'on'"
            )
        if self.block < region.page_size:
            raise QMPError(
                f"'block-size' property has to be at least the page size (0x{region.page_size:x})"
            )
        if self.requested % self.block:
            raise QMPError(
                f"'requested-size' property has to be multiples of 'block-size' (0x{self.block:x})"
            )
        if memdev.size % self.block:
            raise QMPError(
                "'memdev' property memdev size has to be multiples of'block-size'"
                f" (0x{self.block:x})"
            )

    def _inaccessible(self) -> str:
        return str(self.values.get("unplugged-inaccessible", "on"))

    def check_removal(self) -> None:
        if self._inaccessible() != "on":
            raise QMPError(
                "virtio-mem device cannot get unplugged while 'unplugged-inaccessible' != 'on'"
            )
        if self.size or self._changing:
            raise QMPError(
                "virtio-mem device cannot get unplugged while some of its memory is still plugged"
            )
        if self.requested:
            raise QMPError("virtio-mem device cannot get unplugged while 'requested-size' != '0'")

    # Its size

    def request(self, size: int) -> None:
        """Ask the guest for another size, once it is real; else note it.

        Raises:
            QMPError: it can't be asked for that.
        """
        machine = self._machine
        if not self.realized or machine is None:
            self.requested = size
            return
        if size % self.block:
            raise QMPError(
                f"'requested-size' has to be multiples of 'block-size' (0x{self.block:x})"
            )
        if size > self.front.memory_size:
            raise QMPError(
                "'requested-size' cannot exceed the memory backend size"
                f"(0x{self.front.memory_size:x})"
            )
        if size != self.requested:
            self.requested = size
            self._ask(machine)

    def found(self, machine: Machine) -> None:
        """The guest finds its PCI half, and is asked to take what is requested."""
        if self.requested:
            self._ask(machine)

    def _ask(self, machine: Machine) -> None:
        """Ask the guest to have as much as is requested when it reacts."""
        if not self._asked:
            self._asked = True
            machine.guest.ask(self._comply, self._refuse)

    def _refuse(self) -> None:
        self._asked = False

    def _comply(self) -> None:
        """The guest does what it was asked for, if it does not already."""
        self._asked = False
        machine, memdev = self._machine, self.memdev
        if machine is None or memdev is None or memdev.region is None or self._changing:
            return
        machine.spawn(self._change(machine, memdev, memdev.region), "a virtio-mem device")

    async def _change(self, machine: Machine, memdev: MemoryBackend, region: Region) -> None:
        """Empty what goes and populate what comes, until it has what is requested."""
        # Step by step, so that it soon follows what it is asked for meanwhile.
        step = max(STEP, self.block)
        self._changing = True
        try:
            while self.realized and (target := min(self.requested, memdev.size)) != self.size:
                size = self.size
                if target < size:
                    target = max(target, size - step)
                    discarding = _discard(region, memdev.name, target, size - target)
                    if discarding is not None:
                        await discarding
                elif self.values.get("prealloc"):
                    target = min(target, size + step)
                    work = partial(_populate, region, memdev.name, size, target)
                    await region.job(work, on=region.locks_on)
                self.size = target
                machine.size_changed(self.front, target)
        except QMPError as error:
            self.tree.host.warn(f"the size of a virtio-mem device can't be changed: {error}")
        finally:
            self._changing = False


def _discard(region: Region, name: str, start: int, length: int) -> Command[None] | None:
    """Discard memory at once, or give what does it where that may take long."""
    from memd.hostmem import discard

    def work() -> None:
        try:
            discard.discard(region, name, start, length)
        except QMPError as error:
            reason = error.desc.rpartition(": ")[2]
            raise QMPError(f"Unexpected error discarding RAM: {reason}") from None

    if discard.may_wait(region, length):
        return region.job(work, on=region.locks_on)
    work()
    return None


def _populate(region: Region, name: str, start: int, end: int) -> None:
    from memd.backends.allocation import cannot_populate
    from memd.hostmem.populate import populate_range

    try:
        populate_range(region, start, end)
    except OSError as failed:
        # What there is of it is taken back.
        _discard(region, name, start, end - start)
        raise cannot_populate(failed) from None


def _set_block(virtio: VirtioMem, size: int) -> None:
    if size < MIN_BLOCK:
        raise QMPError(f"'block-size' property has to be at least 0x{MIN_BLOCK:x}")
    if size & (size - 1):
        raise QMPError("'block-size' property has to be a power of two")
    virtio._block = size


def _guard_block(virtio: VirtioMem) -> None:
    if virtio.realized:
        raise QMPError("'block-size' cannot be changed")


def _guard_requested(virtio: VirtioMem) -> None:
    if virtio.front.leaving:
        raise QMPError(
            "'requested-size' cannot be changed if the device is in the process of unplug"
        )


def virtio_mem_properties() -> tuple[Property, ...]:
    """The properties of `virtio-mem` that other virtio devices do not have."""
    return (
        stored(("memaddr", "uint64", ANYWHERE)),
        stored(("node", "uint32", 0)),
        stored(("prealloc", "bool", False)),
        memdev_property(),
        stored(("unplugged-inaccessible", "OnOffAuto", "on")),
        stored(("x-early-migration", "bool", True)),
        stored(("dynamic-memslots", "bool", False)),
        Property("size", "size", get=lambda virtio: virtio.size),
        Property(
            "block-size",
            "size",
            visit=visit_size,
            guard=_guard_block,
            get=lambda virtio: virtio.block,
            set=_set_block,
        ),
        Property(
            "requested-size",
            "size",
            visit=visit_size,
            guard=_guard_requested,
            get=lambda virtio: virtio.requested,
            set=VirtioMem.request,
        ),
    )
