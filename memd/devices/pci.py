"""PCI devices: their place on a bus, and what they may be given beside it.

Most of that means nothing here: it is checked as QEMU does, so that what would
not start there does not start here. Texts, limits and the order of complaints
were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

from collections.abc import Callable

from memd.devices.bus import ANY_PLACE, PciBus
from memd.devices.device import deleted, peripherals
from memd.devices.machine import Device, Machine
from memd.errors import QMPError
from memd.json_types import JSON
from memd.qom import ObjectType, Tree
from memd.work import Event, Events

ANY_VECTORS = 0xFFFFFFFF
"""The number of interrupt vectors that asks for what the device needs."""

_STANDARD = ("pci-bridge", "pcie-pci-bridge")
"""Bridges that plug devices in themselves, unless they are told not to."""

PORT = "pcie-slot"
"""The type of the ports for devices, each of which has a number."""

_ANY_SIZE = 0xFFFFFFFF
_MAX_ACPI_INDEX = 16383
_MAX_VECTORS = 2048
_VECTORS = 2
_SMALLEST = 4096


class PciDevice(Device):
    """A device on a PCI bus.

    Attributes:
        bus: the bus that it is on.
        place: eight times its slot on its bus, plus its function; `ANY_PLACE` until
            it has one, or is given one to take.
        placed: whether it has taken it.
    """

    # An attribute of its own, in place of a property.
    __slots__ = ("bus",)

    bus: PciBus
    place = ANY_PLACE
    placed = False

    def __init__(self, qom_type: ObjectType, tree: Tree, id: str | None, bus: PciBus) -> None:
        super().__init__(qom_type, tree, id)
        self.bus = bus

    @property
    def hotpluggable(self) -> bool:
        """Whether its bus lets it go."""
        return self.bus.hotplug

    @property
    def pci_path(self) -> str:
        """Slot and function, after those of the bridges that it is behind."""
        above = self.bus.parent
        before = above.pci_path if isinstance(above, PciDevice) else "0000:00"
        return f"{before}:{self.place // 8:02x}.{self.place % 8}"

    @property
    def on_port(self) -> bool:
        """Whether it is behind a port of PCI Express."""
        return self.bus.express and isinstance(self.bus.parent, PciDevice)

    @property
    def port_number(self) -> tuple[JSON, JSON]:
        """Chassis and slot of a port."""
        return self.values.get("chassis", 0), self.values.get("slot", 0)

    def take_place(self, machine: Machine) -> None:
        """Have a place on its bus.

        Raises:
            QMPError: its `acpi-index` or `romsize` can't be, or there is no such place.
        """
        self._check_index(machine)
        size = self.values.get("romsize", _ANY_SIZE)
        if size != _ANY_SIZE and size.bit_count() != 1:
            raise QMPError(f"ROM size {size} is not a power of two")
        self.place = self.bus.place(
            self.place,
            self.qom_type.name,
            self.id,
            hotplugged=machine.started,
            multifunction=self.values.get("multifunction", False),
        )
        self.placed = True

    def _check_index(self, machine: Machine) -> None:
        """Raise `QMPError` where its `acpi-index` is too large, or another device has it."""
        index = self.values.get("acpi-index", 0)
        if index > _MAX_ACPI_INDEX:
            raise QMPError(f"acpi-index should be less or equal to {_MAX_ACPI_INDEX}")
        if not index:
            return
        # One that takes long to be real is not in the tree.
        for other in (*peripherals(machine.tree), *machine.plugged):
            if isinstance(other, PciDevice) and other.placed:
                if other.values.get("acpi-index") == index:
                    raise QMPError(f"a PCI device with acpi-index = {index} already exist")

    def take_port_number(self, machine: Machine) -> None:
        """Have a port take its chassis and slot; raises `QMPError` where another has them."""
        numbers = machine.buses.port_numbers
        if self.port_number in numbers:
            raise QMPError("Can't add chassis slot, error -16")
        numbers.add(self.port_number)

    def ask_guest(self, machine: Machine, leave: Callable[[], None]) -> None:
        """Ask the guest to release it, unless it was asked; clients are told where it refuses.

        Args:
            leave: what happens once it is released.
        """
        if not self.leaving:
            self.leaving = True
            machine.guest.ask(leave, lambda: self._keep(machine))

    def _keep(self, machine: Machine) -> None:
        self.leaving = False
        event = deleted(self, self.tree.path_of(self))
        machine.emit((Event("DEVICE_UNPLUG_GUEST_ERROR", event.data),))


class GuestsPciDevice(PciDevice):
    """One that goes when the guest has released it, and that memory is not in."""

    def removal(self, machine: Machine) -> None:
        self.ask_guest(machine, lambda: self.leave(machine))

    def leave(self, machine: Machine) -> None:
        """It has gone: its place is free."""
        path = self.tree.path_of(self)
        self.bus.vacate(self.place)
        if self.qom_type.is_a(PORT):
            machine.buses.port_numbers.discard(self.port_number)
        events = [Event("DEVICE_DELETED", {"path": f"{path}/virtio-backend"}), deleted(self, path)]
        self.leave_tree()
        told = tuple(events if self.qom_type.is_a("virtio-pci") else events[1:])
        self.release(machine, path, told)

    def release(self, machine: Machine, path: str, events: Events) -> None:
        """Free what it referred to; clients are told after that.

        Args:
            path: where it was.
            events: that tell them.
        """
        machine.emit(events)


def open_bus(device: PciDevice, machine: Machine) -> None:
    """Put the bus of a port or a bridge into it.

    What the firmware tells of from the start takes devices by ACPI; a bridge that comes
    later has to do so itself.
    """
    kind, given, types = device.qom_type, device.values, machine.tree.types()
    port = kind.is_a(PORT)
    has_acpi = machine.config.type in ("pc", "q35") and machine.config.acpi
    by_acpi = has_acpi and not machine.started
    standard = not (port or by_acpi) and given.get("shpc", kind.name in _STANDARD)
    bus = PciBus(
        types["PCIE" if kind.is_a("pcie-port") else "PCI"],
        device.tree,
        hotplug=given.get("hotplug", True) if port else by_acpi or standard,
        one_slot=port,
        standard=standard,
    )
    machine.buses.open(device, device.id, bus)


def check_modes(device: PciDevice) -> None:
    """Check that a virtio device may be modern or legacy.

    In a port of PCI Express none is legacy unless it is told to be.

    Raises:
        QMPError: it may be neither.
    """
    legacy = device.values.get("disable-legacy", "auto")
    if device.values.get("disable-modern") and (
        legacy == "on" or (legacy == "auto" and device.on_port)
    ):
        raise QMPError(
            "device cannot work as neither modern nor legacy mode is enabled",
            hint="Set either disable-modern or disable-legacy to off",
        )


def check_partners(device: PciDevice) -> None:
    """Check that it belongs to no other device: memory never does.

    Raises:
        QMPError: it was told to.
    """
    if "sriov-pf" in device.values:
        raise QMPError("user cannot create SR-IOV VF with this device type")
    if "failover_pair_id" in device.values:
        if device.bus.express:
            raise QMPError("failover primary device is not an Ethernet device")
        raise QMPError("failover primary device must be on PCIExpress bus")


def vectors(asked: int) -> int:
    """How many interrupt vectors a device gets of those that it asks for."""
    if asked == ANY_VECTORS:
        return _VECTORS
    return asked if asked <= _MAX_VECTORS else 0


Regions = tuple[tuple[str, int, int, str], ...]
"""Regions of a device: name, bytes, address in the container, and that one's name."""


def interrupt_regions(count: int) -> Regions:
    """The regions for interrupt vectors."""
    if not count:
        return ()
    table = 16 * count
    pending = 8 * -(-count // 64)
    pending_at = max(_SMALLEST // 2, table)
    whole = max(_SMALLEST, 1 << (pending_at + pending - 1).bit_length())
    return (
        ("{half}-pci-msix", whole, 0, ""),
        ("msix-table", table, 0, "{half}-pci-msix"),
        ("msix-pba", pending, pending_at, "{half}-pci-msix"),
    )
