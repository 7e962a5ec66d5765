"""What a machine has besides memory and tells of at `/machine`: names and links.

There is nothing behind them. Names, types and places were observed on QEMU 10.0.2
and 11.1.3.
"""

from __future__ import annotations

import time

from memd.compat import Compat
from memd.devices.bus import Bus
from memd.devices.machine import Device, Machine, SystemDevice
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.qom import LinkProperty, MemoryRegion, ObjectType, Property, QObject, Tree
from memd.qom.machine import MachineObject, extend, machine_link

_SMRAM = 1 << 32
"""Bytes of the region of a bridge that system management mode has."""

_PORTS = (("ioport80[0]", 0x80), ("ioportF0[0]", 0xF0))
"""Ports that QEMU 11.1 tells of at `/machine`, and their addresses."""


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

    def check_bus(self) -> None:
        """See `Device.check_bus`."""
        self.bus.check_hotplug()


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
        machine: the machine.
        cpu_type: the class of its CPUs.
        accelerator: what would run it.
    """
    kind, root = machine.config.type, machine.tree.machine
    if kind not in ("q35", "pc", "isapc", "microvm"):
        return
    parts = _Parts(machine, cpu_type)
    more: list[Property] = []
    if kind in ("q35", "pc"):
        more += parts.add_bridges(kind)
    else:
        parts.add_isa(kind)
    root.add_child("fw_cfg", parts.on_system_bus("fw_cfg_io"))
    has_clock = {"on": True, "off": False, "auto": accelerator != "kvm"}
    if has_clock[root.values.get("rtc", "on")]:
        more.append(Property("rtc-time", "struct tm", get=_now, set=_no_time))
    extend(root, *more)
    if kind != "microvm" and machine.tree.compat is not Compat.V10_0:
        ports = machine.tree.resolve("/machine/unattached/io[0]")
        for name, address in _PORTS:
            region = MemoryRegion(machine.tree, 1)
            region.place(ports, address)
            root.add_child(name, region)


class _Parts:
    """Makes the parts of a machine."""

    def __init__(self, machine: Machine, cpu_type: str) -> None:
        self._machine = machine
        self._tree = machine.tree
        self._device = machine.tree.types()["device"]
        self._unattached = machine.tree.resolve("/machine/unattached")
        count = machine.config.smp.get("cpus", 1)
        self._next = of_cpus(count, cpu_type)
        if self._next > count:
            self._unattached.add_child("device[1]", self.on_system_bus("kvmvapic"))

    def on_system_bus(self, kind: str) -> Device:
        """A part on the system bus."""
        part = SystemDevice(ObjectType(kind, self._device), self._tree, None)
        part.realized = True
        return part

    def _on_bus(self, kind: str, bus: Bus, *interfaces: str) -> Part:
        return Part(ObjectType(kind, self._device, interfaces=interfaces), self._tree, bus)

    def _add(self, part: Device) -> Device:
        """Give a part the next place among those that are nobody's."""
        self._unattached.add_child(f"device[{self._next}]", part)
        self._next += 1
        return part

    def add_bridges(self, kind: str) -> list[Property]:
        """Add the bridges of a PC; gives the properties that lead to them."""
        root, pci = self._tree.machine, self._machine.buses.pci
        assert pci is not None
        power: QObject | None
        if kind == "q35":
            north = self._on_bus("mch", pci)
            self._tree.resolve("/machine/q35").add_child("mch", north)
            power = self._add(self._on_bus("ICH9-LPC", pci, "hotplug-handler"))
        else:
            north = self._on_bus("i440FX", pci)
            self._add(north)
            south = self._add(self._on_bus(root.values["x-south-bridge"], pci))
            power = None
            if self._machine.config.acpi:
                power = self._on_bus("PIIX4_PM", pci, "hotplug-handler")
                south.add_child("pm", power)
        smram = MemoryRegion(self._tree, _SMRAM)
        north.add_child("smram[0]", smram)
        found: list[Property] = []
        if kind == "pc" or root.values["smm"] != "off":
            found.append(LinkProperty("smram", "memory-region", follow=lambda machine: smram))
        if power is not None:
            root.links["acpi-device"] = power
            found.append(machine_link("acpi-device", "hotplug-handler"))
        return found

    def add_isa(self, kind: str) -> None:
        """Add what a machine without a PCI bus of its own has: its ISA bus, and what is there."""
        root = self._tree.machine
        bridge = self._add(self.on_system_bus("isabus-bridge"))
        isa = Bus(ObjectType("ISA", self._tree.types()["bus"]), self._tree, hotplug=False)
        bridge.add_child("isa.0", isa)
        if kind == "microvm":
            root.add_child("ioapic", self.on_system_bus("ioapic"))
            return
        self._add(self._on_bus("mc146818rtc", isa))
        for number in range(2):
            root.add_child(f"dma[{number}]", self._on_bus("i8257", isa))


def _now(machine: MachineObject) -> JSON:
    """The time of the machine's clock."""
    now = time.gmtime()
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
