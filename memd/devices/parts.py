"""What a machine has besides memory and tells of at `/machine`: names and links.

There is nothing behind them. Names, types and places were observed on QEMU 10.0.2
and 11.1.3.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from memd.compat import Compat
from memd.devices.bus import ANY_PLACE, PciBus
from memd.devices.machine import Device, Machine, SystemDevice
from memd.devices.pci import PciDevice
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.qom import LinkProperty, MemoryRegion, ObjectType, Property, QObject, Tree
from memd.qom.builtin_objects import Bus
from memd.qom.machine import MachineObject, extend, machine_link

_SMRAM = 1 << 32
"""Bytes of the region of a bridge that system management mode has."""

OWN_FLOPPIES = "floppy-bus.0"
"""The bus of a machine's own floppies."""

PCI_HALF = "AMDVI-PCI"
"""The device that an `amd-iommu` brings along."""

_NVDIMM_IO = (0xA18, 4)
"""The address and the bytes of the ports by which a guest asks for its NVDIMMs' methods."""

_PORTS = (("ioport80[0]", 0x80), ("ioportF0[0]", 0xF0))
"""Ports that QEMU 11.1 tells of at `/machine`, and their addresses."""


def parts_of(holder: QObject) -> Iterator[Device]:
    """The devices below an object, each before those below it."""
    for child in holder.children.values():
        if isinstance(child, Device):
            yield child
        yield from parts_of(child)


class Part(Device):
    """A device on a bus of the machine, where it stays.

    Attributes:
        bus: the bus that it is on.
    """

    # An attribute of its own, in place of a property.
    __slots__ = ("bus",)

    bus: Bus

    def __init__(self, qom_type: ObjectType, tree: Tree, bus: Bus) -> None:
        super().__init__(qom_type, tree, None)
        self.bus = bus
        self.realized = True

    @property
    def hotpluggable(self) -> bool:
        """It stays."""
        return False


class PciPart(PciDevice):
    """A part on the machine's own PCI bus.

    Args:
        place: where it stands; `ANY_PLACE` for one that the command line asks for.
        stays: whether it can't be removed where its bus lets others go.
    """

    def __init__(
        self,
        qom_type: ObjectType,
        tree: Tree,
        bus: PciBus,
        *,
        place: int = ANY_PLACE,
        stays: bool = True,
    ) -> None:
        super().__init__(qom_type, tree, None, bus)
        self._stays = stays
        kind = qom_type.name
        self.place = bus.place(place, kind, None, hotplugged=False, multifunction=place > 0)
        self.realized = True

    @property
    def hotpluggable(self) -> bool:
        return not self._stays and super().hotpluggable


def settled(kind: str, values: JSONObject) -> JSONObject:
    """The properties of a machine that have another value once it is made.

    Args:
        kind: which machine it is, such as "q35".
        values: those that it has before.
    """
    if kind not in ("q35", "pc", "isapc"):
        return {}
    found: JSONObject = {}
    if not values["max-ram-below-4g"]:
        found["max-ram-below-4g"] = 1 << 32 if kind == "q35" else 0xE000_0000
    if values["vmport"] == "auto":
        found["vmport"] = "on" if values["i8042"] else "off"
    if kind == "isapc":
        found["hpet"] = False
    return found


def of_cpus(count: int, cpu_type: str) -> int:
    """How many devices without a name so many CPUs are, with what they bring along."""
    # All but a single 486 have an interrupt controller.
    return count + (count > 1 or not cpu_type.startswith("486-"))


def add_parts(machine: Machine, cpu_type: str, accelerator: str) -> None:
    """Put the parts of a machine into the tree; its CPUs are there.

    Args:
        machine: the machine; the devices that the command line asks it for are among them.
        cpu_type: the class of its CPUs.
        accelerator: what would run it.
    """
    kind, root = machine.config.type, machine.tree.machine
    if kind not in ("q35", "pc", "isapc", "microvm"):
        return
    more: list[Property] = []
    has_clock = {"on": True, "off": False, "auto": accelerator != "kvm"}
    clock = has_clock[root.values.get("rtc", "on")]
    parts = _Parts(machine, cpu_type)
    if kind == "q35":
        more += parts.add_q35()
    elif kind == "pc":
        more += parts.add_i440fx()
    elif kind == "isapc":
        parts.add_isapc()
    else:
        parts.add_microvm(clock=clock)
    parts.add_usb_devices()
    root.add_child("fw_cfg", parts.on_system_bus("fw_cfg_io"))
    if clock:
        offset = machine.config.rtc_offset
        told = Property("rtc-time", "struct tm", get=lambda root: _now(offset), set=_no_time)
        more.append(told)
    extend(root, *more)
    if root.values.get("nvdimm"):
        address, size = _NVDIMM_IO
        region = MemoryRegion(machine.tree, size)
        region.place(machine.tree.resolve("/machine/unattached/io[0]"), address)
        root.add_child("nvdimm-acpi-io[0]", region)
    if kind != "microvm" and machine.tree.compat is not Compat.V10_0:
        ports = machine.tree.resolve("/machine/unattached/io[0]")
        for name, address in _PORTS:
            region = MemoryRegion(machine.tree, 1)
            region.place(ports, address)
            root.add_child(name, region)


class _Parts:
    """Makes the parts of a machine, in the order in which a QEMU numbers them."""

    def __init__(self, machine: Machine, cpu_type: str) -> None:
        self._machine = machine
        self._tree = machine.tree
        self._root = machine.tree.machine
        self._device = machine.tree.basics()["device"]
        self._unattached = machine.tree.resolve("/machine/unattached")
        count = machine.config.smp.get("cpus", 1)
        self._usb: Bus | None = None
        self._next = of_cpus(count, cpu_type)
        if self._next > count:
            self._unattached.add_child("device[1]", self.on_system_bus("kvmvapic"))

    def _has(self, name: str) -> bool:
        """Whether a property of the machine that is on, off or left to it is not off."""
        return self._root.values[name] not in ("off", False)

    def on_system_bus(self, kind: str) -> Device:
        """A part on the system bus."""
        part = SystemDevice(ObjectType(kind, self._device), self._tree, None)
        part.realized = True
        return part

    def _on_bus(self, kind: str, bus: Bus) -> Part:
        return Part(ObjectType(kind, self._device), self._tree, bus)

    def _on_pci(self, kind: str, slot: int, function: int = 0, *interfaces: str) -> PciPart:
        kind_of = ObjectType(kind, self._device, interfaces=interfaces)
        return PciPart(kind_of, self._tree, self._pci(), place=8 * slot + function)

    def _add(self, part: Device) -> Device:
        """Give a part the next place among those that are nobody's."""
        self._unattached.add_child(f"device[{self._next}]", part)
        self._next += 1
        return part

    def _add_bus(self, owner: QObject, name: str, kind: str) -> Bus:
        bus_type, comes = ObjectType(kind, self._tree.basics()["bus"]), kind == "usb-bus"
        bus = Bus(bus_type, self._tree, hotplug=comes)
        owner.add_child(name, bus)
        self._machine.buses.add_other(bus)
        return bus

    def _add_asked(self, slot: str, bus: Bus, number: int = 0) -> None:
        """Add the devices of a slot that the command line asks for."""
        for each in self._machine.asked:
            if (each.slot, each.bus) != (slot, number):
                continue
            part: Device
            if isinstance(bus, PciBus):
                kind = ObjectType(each.kind, self._device)
                part = PciPart(kind, self._tree, bus, stays=slot == "vga")
            else:
                part = self._on_bus(each.kind, bus)
            each.made(self._add(part))

    def _add_isa(self, bridge: QObject, *, own: bool = True) -> Bus:
        """Add the ISA bus of a bridge, and with it the parts that are the bridge's own."""
        isa = self._add_bus(bridge, "isa.0", "ISA")
        if own:
            bridge.add_child("rtc", self._on_bus("mc146818rtc", isa))
        holder = bridge if own else self._root
        for number in range(2):
            holder.add_child(f"dma[{number}]", self._on_bus("i8257", isa))
        return isa

    def _add_interrupts(self, isa: Bus) -> None:
        if self._has("pic"):
            for _ in range(2):
                self._add(self._on_bus("isa-i8259", isa))

    def _add_timers(self, isa: Bus, *, speaker: bool = True) -> None:
        if self._has("pit"):
            self._add(self._on_bus("isa-pit", isa))
            if speaker:
                self._add(self._on_bus("isa-pcspk", isa))

    def _add_super_io(self, isa: Bus, *, floppies: bool) -> None:
        """Add ports, floppies, keyboard and mouse.

        Args:
            floppies: whether their controller is there without one.
        """
        for slot in ("serial", "parallel"):
            self._add_asked(slot, isa)
        if floppies or any(each.slot == "floppy" for each in self._machine.asked):
            controller = self._add(self._on_bus("isa-fdc", isa))
            self._add_asked("floppy", self._add_bus(controller, OWN_FLOPPIES, "floppy-bus"))
        if self._has("i8042"):
            of_port = ("vmport", "vmmouse") if self._has("vmport") else ()
            for kind in ("i8042", *of_port, "port92"):
                self._add(self._on_bus(kind, isa))

    def _add_drives(self, owners: Iterable[QObject]) -> None:
        """Add IDE drives, each bus with its own in its owner."""
        for number, owner in enumerate(owners):
            self._add_asked("ide", self._add_bus(owner, f"ide.{number}", "IDE"), number)

    def _add_nics(self, *buses: Bus) -> None:
        for bus in buses:
            self._add_asked("PCI nic" if isinstance(bus, PciBus) else "ISA nic", bus)

    def add_usb_devices(self) -> None:
        """Add the devices that the command line asks for on the machine's own USB bus."""
        if self._usb is not None:
            self._add_asked("usb", self._usb)

    def _add_usb_bus(self, controller: QObject) -> None:
        """Add the bus of all of the machine's own USB controllers."""
        self._usb = self._add_bus(controller, "usb-bus.0", "usb-bus")

    def _add_eeproms(self, controller: QObject) -> None:
        bus = self._add_bus(controller, "i2c", "i2c-bus")
        for _ in range(8):
            self._add(self._on_bus("smbus-eeprom", bus))

    def _pci(self) -> PciBus:
        pci = self._machine.buses.pci
        assert pci is not None
        return pci

    def _links(self, north: QObject, power: QObject | None, *, smm: bool) -> Iterator[Property]:
        """The properties of a PC that lead to its bridges."""
        smram = MemoryRegion(self._tree, _SMRAM)
        north.add_child("smram[0]", smram)
        if smm:
            yield LinkProperty("smram", "memory-region", follow=lambda machine: smram)
        if power is not None:
            self._root.links["acpi-device"] = power
            yield machine_link("acpi-device", "hotplug-handler")

    def add_q35(self) -> Iterable[Property]:
        """Add the parts of a PC of PCI Express; gives the properties that lead to its bridges."""
        pci = self._pci()
        north = self._on_pci("mch", 0)
        self._tree.resolve("/machine/q35").add_child("mch", north)
        power = self._add(self._on_pci("ICH9-LPC", 31, 0, "hotplug-handler"))
        isa = self._add_isa(power)
        self._add_interrupts(isa)
        if self._has("hpet"):
            self._add(self.on_system_bus("hpet"))
        self._add_timers(isa)
        self._add_super_io(isa, floppies=False)
        if self._has("sata"):
            controller = self._add(self._on_pci("ich9-ahci", 31, 2))
            self._add_drives([controller] * 6)
        if self._has("usb"):
            for function, kind in ((7, "ehci1"), (0, "uhci1"), (1, "uhci2"), (2, "uhci3")):
                controller = self._add(self._on_pci(f"ich9-usb-{kind}", 29, function))
                if kind == "ehci1":
                    self._add_usb_bus(controller)
        if self._has("smbus"):
            self._add_eeproms(self._add(self._on_pci("ICH9-SMB", 31, 3)))
        self._add_asked("vga", pci)
        self._add_nics(isa, pci)
        return self._links(north, power, smm=self._has("smm"))

    def add_i440fx(self) -> Iterable[Property]:
        """The same of a PC of PCI."""
        pci = self._pci()
        north = self._add(self._on_pci("i440FX", 0))
        south = self._add(self._on_pci(self._root.values["x-south-bridge"], 1))
        power = None
        if self._machine.config.acpi:
            power = self._on_pci("PIIX4_PM", 1, 3, "hotplug-handler")
            south.add_child("pm", power)
        isa = self._add_isa(south)
        is_piix4 = south.qom_type.name == "piix4-isa"
        ide = self._on_pci("piix4-ide" if is_piix4 else "piix3-ide", 1, 1)
        south.add_child("ide", ide)
        if self._has("usb"):
            uhci = "piix4-usb-uhci" if is_piix4 else "piix3-usb-uhci"
            controller = self._on_pci(uhci, 1, 2)
            south.add_child("uhci", controller)
            self._add_usb_bus(controller)
        self._add_drives([ide] * 2)
        self._add_interrupts(isa)
        self._add_asked("vga", pci)
        if self._has("hpet"):
            self._add(self.on_system_bus("hpet"))
        self._add_timers(isa)
        self._add_super_io(isa, floppies=True)
        self._add_nics(isa, pci)
        if power is not None:
            self._add_eeproms(power)
        return self._links(north, power, smm=True)

    def add_isapc(self) -> None:
        """Add the parts of a PC without PCI."""
        bridge = self._add(self.on_system_bus("isabus-bridge"))
        isa = self._add_isa(bridge, own=False)
        self._add(self._on_bus("mc146818rtc", isa))
        self._add_interrupts(isa)
        self._add_asked("vga", isa)
        self._add_timers(isa)
        self._add_super_io(isa, floppies=True)
        self._add_nics(isa)
        # Each IDE bus is a device of its own.
        self._add_drives(self._add(self._on_bus("isa-ide", isa)) for _ in range(2))

    def add_microvm(self, *, clock: bool) -> None:
        """Add the parts of a `microvm`.

        Args:
            clock: whether it has one.
        """
        acpi = self._machine.config.acpi
        bridge = self._add(self.on_system_bus("isabus-bridge"))
        isa = self._add_bus(bridge, "isa.0", "ISA")
        second = {"on": True, "off": False, "auto": acpi}[self._root.values["ioapic2"]]
        self._root.add_child("ioapic", self.on_system_bus("ioapic"))
        if second:
            self._add(self.on_system_bus("ioapic"))
        for number in range(24 if second else 8):
            mmio = self._add(self.on_system_bus("virtio-mmio"))
            self._add_bus(mmio, f"virtio-mmio-bus.{number}", "virtio-mmio-bus")
        if acpi:
            self._add(self.on_system_bus("acpi-ged"))
        if self._has("usb"):
            self._add_usb_bus(self._add(self.on_system_bus("sysbus-xhci")))
        host = None if self._machine.buses.pci is None else self._machine.buses.pci.parent
        if isinstance(host, Device):
            self._add(host)
        self._add_interrupts(isa)
        self._add_timers(isa, speaker=False)
        if clock:
            self._add(self._on_bus("mc146818rtc", isa))
        if self._has("isa-serial"):
            self._add_asked("serial", isa)


def _now(offset: float) -> JSON:
    """The time of a clock that is so many seconds ahead of UTC."""
    now = time.gmtime(time.time() + offset)
    return {
        "tm_year": now.tm_year - 1900,
        "tm_mon": now.tm_mon - 1,
        "tm_mday": now.tm_mday,
        "tm_hour": now.tm_hour,
        "tm_min": now.tm_min,
        "tm_sec": now.tm_sec,
    }


def _no_time(machine: MachineObject, value: JSON) -> None:
    raise QMPError("Property 'mc146818rtc.date' is not writable")
