"""Virtio devices with memory, and the PCI devices that carry them.

A client sees two objects: the PCI device, which has an id, and below it, as
`virtio-backend`, the virtio device, whose properties the first one has, too.
Names, defaults, texts and their order were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from memd.backends.base import MemoryBackend
from memd.devices.area import ANYWHERE
from memd.devices.bus import PciBus
from memd.devices.device import alignment, deleted, need_memdev
from memd.devices.machine import Device, Machine, MemoryDevice
from memd.devices.pci import (
    ANY_VECTORS,
    PciDevice,
    Regions,
    check_modes,
    interrupt_regions,
    vectors,
)
from memd.json_types import JSON, JSONObject
from memd.qom import MemoryRegion, ObjectType, Tree
from memd.qom.builtin_objects import Bus
from memd.qom.object import Property
from memd.work import Command, Events

_ALL = (1 << 64) - 1

# Those of the PCI half.
_REGIONS: Regions = (
    ("bus master container", _ALL, 0, ""),
    ("bus master", _ALL, 0, "bus master container"),
    ("virtio-pci", 16384, 0, ""),
    ("virtio-pci-common-{half}", 4096, 0, "virtio-pci"),
    ("virtio-pci-isr-{half}", 4096, 4096, "virtio-pci"),
    ("virtio-pci-device-{half}", 4096, 8192, "virtio-pci"),
    ("virtio-pci-notify-{half}", 4096, 12288, "virtio-pci"),
    ("virtio-pci-notify-pio-{half}", 4, 0, ""),
)


class VirtioMemory(Device, ABC):
    """The virtio half of a device with memory.

    Attributes:
        memdev: the backend, or None.
        front: the PCI half.
    """

    memdev: MemoryBackend | None = None

    def __init__(self, qom_type: ObjectType, tree: Tree, front: VirtioPci) -> None:
        super().__init__(qom_type, tree, None)
        self.front = front

    @property
    def address(self) -> int:
        """Where in the machine its memory begins."""
        return int(self.values.get("memaddr", ANYWHERE))

    @property
    def bus(self) -> Bus | None:
        """The bus between the two halves."""
        return self.front.virtio_bus

    @property
    def hotpluggable(self) -> bool:
        """It comes and goes with its other half."""
        return False

    @property
    def plugged_size(self) -> int:
        """Bytes that the machine has of its memory."""
        return 0 if self.memdev is None else self.memdev.size

    def address_align(self, memdev: MemoryBackend) -> int:
        """The alignment of its address, in bytes."""
        return alignment(memdev)

    @abstractmethod
    def data(self) -> JSONObject:
        """Its members in `query-memory-devices`, the id excepted."""

    @abstractmethod
    def realize(self, machine: Machine, memdev: MemoryBackend) -> Command[None] | None:
        """Its half of `MemoryDevice.realize`; the backend is not taken yet.

        What is wrong with the PCI half is complained of after what is wrong here,
        and before anything is done (`check_partners`).
        """

    def found(self, machine: Machine) -> None:
        """The guest finds its PCI half."""

    @abstractmethod
    def check_removal(self) -> None:
        """Raise `QMPError` where it can't be removed as it is."""


class VirtioPci(PciDevice, MemoryDevice):
    """The PCI half, which has the id.

    Attributes:
        virtio: the other half.
        virtio_bus: what is between them; None until they are real.
    """

    virtio_bus: Bus | None = None

    def __init__(
        self,
        qom_type: ObjectType,
        tree: Tree,
        id: str | None,
        bus: PciBus,
        virtio: type[VirtioMemory],
    ) -> None:
        super().__init__(qom_type, tree, id, bus)
        half = tree.types()[qom_type.name.removesuffix("-pci")]
        self.kind = half.name
        self.virtio = virtio(half, tree, self)
        # A child that shows as a property of the type, too.
        self.virtio.parent = self
        self.virtio.name = "virtio-backend"
        self.children = {self.virtio.name: self.virtio}

    @property
    def address(self) -> int:
        return self.virtio.address

    @property
    def memdev(self) -> MemoryBackend | None:
        return self.virtio.memdev

    @property
    def plugged_size(self) -> int:
        return self.virtio.plugged_size

    def data(self) -> JSONObject:
        return self.virtio.data()

    # Life

    def realize(self, machine: Machine) -> Command[None] | None:
        virtio = self.virtio
        area = machine.need_area()
        memdev = need_memdev(virtio)
        address = area.find(
            machine.plugged,
            memdev.size,
            virtio.address_align(memdev),
            alignment(memdev),
            virtio.address,
        )
        self.take_place(machine)
        try:
            check_modes(self)
            realizing = virtio.realize(machine, memdev)
        except BaseException:
            self.bus.vacate(self.place)
            raise
        virtio.values["memaddr"] = address
        machine.take(self, memdev)
        self._be_real()
        return realizing

    def _be_real(self) -> None:
        virtio_bus = Bus(self.tree.types()["virtio-pci-bus"], self.tree, hotplug=False)
        self.add_child("virtio-bus", virtio_bus)
        self.virtio_bus = virtio_bus
        self._add_regions(_REGIONS)
        self.values["disable-legacy"] = "on"
        self.values["disable-modern"] = False
        if "vectors" in self.qom_type.all_properties:
            count = self.values["vectors"] = vectors(self.values.get("vectors", ANY_VECTORS))
            self._add_regions(interrupt_regions(count))
        self.realized = self.virtio.realized = True
        self.virtio.hotplugged = self.hotplugged

    def _add_regions(self, rows: Regions) -> None:
        half = self.virtio.qom_type.name
        for name, size, addr, container in rows:
            region = MemoryRegion(self.tree, size)
            region.place(self.children.get(f"{container.format(half=half)}[0]"), addr)
            self.add_child(f"{name.format(half=half)}[0]", region)

    def found(self, machine: Machine) -> None:
        self.virtio.found(machine)

    def removal(self, machine: Machine) -> None:
        self.virtio.check_removal()
        self.ask_guest(machine, lambda: machine.remove(self))

    def removed(self) -> Events:
        self.bus.vacate(self.place)
        self.realized = self.virtio.realized = False
        path = self.tree.path_of(self)
        return deleted(self.virtio, f"{path}/virtio-backend"), deleted(self, path)


class ChildProperty(Property):
    """The virtio half, as a property of the PCI half's type."""

    def target(self, obj: Any) -> VirtioMemory:
        half: VirtioMemory = obj.virtio
        return half


class AliasProperty(Property):
    """A property of the virtio half that the PCI half has, too.

    Args:
        origin: the virtio half's.
    """

    def __init__(self, origin: Property) -> None:
        super().__init__(
            origin.name,
            origin.type,
            get=None if origin.getter is None else self.get,
            set=None if origin.setter is None else self.set,
            default=origin.default,
            description=origin.description,
        )
        self._origin = origin

    def get(self, obj: Any) -> JSON:
        """See `Property.get`; a refusal names the virtio half."""
        return self._origin.get(obj.virtio)

    def set(self, obj: Any, value: JSON) -> Command[None] | None:
        """See `Property.set`; a refusal names the virtio half."""
        return self._origin.set(obj.virtio, value)

    def target(self, obj: Any) -> Any:
        return self._origin.target(obj.virtio)
