"""The register of devices: every type of the catalogue can be plugged in, and none does anything.

Names, types and defaults of properties are the catalogue's, and so is what a
device says that lacks what it needs. Buses, places, hot-plug and what refers to
what follow QEMU's rules, whose texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count, repeat
from typing import TYPE_CHECKING, Any

from memd.devices.adding import id_of, put
from memd.devices.bus import PciBus
from memd.devices.device import VISITS, attempt, deleted, kept, peripherals
from memd.devices.kinds import find_kind
from memd.devices.machine import Device, add_unattached, not_hotplugged
from memd.devices.machine_object import CPU
from memd.devices.parts import PCI_HALF, PciPart, parts_of
from memd.devices.pci import PORT, GuestsPciDevice, PciDevice, open_bus
from memd.devices.placeholders import BALLOON, has_balloon
from memd.errors import QMPError, prefixed
from memd.json_types import JSON, JSONObject
from memd.qapi.numbers import parse_uuid
from memd.qapi.visit import Visit, visit_bool, visit_int32, visit_str
from memd.qom import LinkProperty, ObjectType, Property, QObject, Tree
from memd.qom.builtin_objects import Bus
from memd.standin.inputs import Inputs
from memd.standin.netdevs import MAC
from memd.standin.objects import value_unset
from memd.standin.types import inner_names, type_of_alias
from memd.standin.usb import USB_DEVICE, WAITING, UsbPorts, is_attached
from memd.standin.virtual_functions import (
    VirtualFunction,
    add_functions,
    function_type,
    remove_functions,
)
from memd.work import Event, Turn

if TYPE_CHECKING:
    from memd.config import Global
    from memd.devices.kinds import MachineKind
    from memd.devices.machine import Machine
    from memd.standin.audiodevs import Audiodevs
    from memd.standin.block.blocks import Blocks
    from memd.standin.block.drives import Drives
    from memd.standin.block.nodes import Drive, Node
    from memd.standin.catalogue import Catalogue
    from memd.standin.chardevs import Chardevs
    from memd.standin.fsdevs import Fsdevs
    from memd.standin.netdevs import Netdevs, Nic
    from memd.standin.tpms import Tpms
    from memd.work import Command, Events

_OF_A_PLACE = frozenset({"addr", "multifunction", "romfile", "rombar", "port"})

_RECORDED_ID = r"\bplugged\d+"
_WORD = r"[A-Za-z][\w-]*"

_USB = "usb-bus"

_QUEUES = "IOThreadVirtQueueMappingList"
"""The type of a property with the threads of a device's queues."""

_STICK = "usb-storage"

_SECTOR = 512
_CYLINDERS = 2, 16383
"""The fewest and the most cylinders that a disk is said to have."""

_ANY_UNIT = (1 << 32) - 1
"""The place of a floppy that asks for any."""

_GUESTS_PORT = "virtserialport"
"""A device that opens its character device when the guest opens it."""

_SERIAL = "serial"
"""The type of a serial port, which is inside those devices that have one."""

_SERIAL_PORTS = ("pci-serial-2x", "pci-serial-4x", _SERIAL)
_GENERATION_ID = "vmgenid"
_ALONE = (_GENERATION_ID, "vmclock", "vmcoreinfo")
_OF_FIRMWARE = {
    _GENERATION_ID: (
        "requires DMA write support in fw_cfg, which this machine type does not provide"
    ),
    "vmcoreinfo": "device requires fw_cfg with DMA",
}
"""What devices that need the machine's firmware say of one that has nothing at all."""

_AMD_IOMMU = "amd-iommu"
_IOMMUS = (_AMD_IOMMU, "intel-iommu", "virtio-iommu-pci")
_FRAME_BUFFER = ("ramfb", "uefi-vars-x64")
_DYNAMIC = {
    "q35": (_AMD_IOMMU, "intel-iommu", *_FRAME_BUFFER, "vmbus-bridge"),
    "pc": (*_FRAME_BUFFER, "vmbus-bridge"),
    "microvm": ("ramfb",),
}
"""The devices on the system bus that can be had, by the machine."""

_DISK = "virtio-blk-device"
"""A device that was recorded where no bus is for it: it did not come to say what it needs."""

_HARMLESS = (
    *("slot/function", "bus found", "maxmem", "Only one", "bus was found", "chassis slot"),
    *("audio driver", "dynamic sysbus", "support hotplugging"),
)
"""Words of complaints that a recorded device had on its machine, and need not have on this one."""


class _Catalogued(Device):
    """A device of the catalogue's, whatever it is on."""

    _register: Devices

    def check_bus(self) -> None:
        self._register.check_hotplug(self.qom_type.name, self.bus)

    def part_with(self, name: str) -> str:
        return _owner(self.qom_type.name, inner_type(self.tree, self.qom_type.name), name)


class OtherDevice(_Catalogued):
    """A device on another bus than PCI's, or on none.

    Attributes:
        bus: the bus that it is on, if any.
    """

    # An attribute of its own, in place of a property.
    __slots__ = ("bus",)

    bus: Bus | None

    def __init__(
        self, qom_type: ObjectType, tree: Tree, id: str | None, bus: Bus | None, register: Devices
    ) -> None:
        super().__init__(qom_type, tree, id)
        self.bus = bus
        self._register = register

    @property
    def hotpluggable(self) -> bool:
        """Whether it can be removed while the machine runs."""
        comes = self._register.comes(self.qom_type.name)
        return comes and (self.bus is None or self.bus.hotplug)

    def removal(self, machine: Any) -> None:
        """It goes at once: no guest is asked."""
        if not self.leaving:
            self.leave(machine)

    def leave(self, machine: Any) -> None:
        """It has gone, after what was on its buses."""
        self._register.clear_buses(self, machine)
        path = self.tree.path_of(self)
        events = [deleted(self, path)]
        if self.qom_type.name == _STICK:
            events.insert(0, Event("DEVICE_DELETED", {"path": _user_of_drive(self, path)}))
        self.leave_tree()
        self._register.forget(self, machine, path, tuple(events))


class OtherPciDevice(_Catalogued, GuestsPciDevice):
    """A PCI device, or a virtio one behind it.

    Attributes:
        functions: its virtual functions.
    """

    def __init__(
        self, qom_type: ObjectType, tree: Tree, id: str | None, bus: PciBus, register: Devices
    ) -> None:
        super().__init__(qom_type, tree, id, bus)
        self.functions: Sequence[VirtualFunction] = ()
        self._register = register

    @property
    def hotpluggable(self) -> bool:
        """Whether it can be removed while the machine runs."""
        return self._register.comes(self.qom_type.name) and super().hotpluggable

    def leave(self, machine: Any) -> None:
        self._register.clear_buses(self, machine)
        super().leave(machine)

    def removal(self, machine: Any) -> None:
        if self.bus.standard and not machine.guest.started:
            # Nobody has switched it on.
            self.leave(machine)
        else:
            super().removal(machine)

    def release(self, machine: Any, path: str, events: Events) -> None:
        remove_functions(self.functions)
        self._register.forget(self, machine, path, events)


AnyDevice = OtherDevice | OtherPciDevice


class Devices:
    """The devices of a stand-in that are not memory's.

    Args:
        tree: where they are seen.
        catalogue: says which there are.
        chardevs, netdevs, drives: what a `chardev`, a `netdev` and a `drive` refer to.
        blocks: what closes a node that nothing uses.
        fsdevs: what an `fsdev` refers to.
        tpms: what a `tpmdev` refers to.
        audiodevs: what an `audiodev` refers to.
        globals: the values of `-global`.
        only_migratable: whether devices with which the machine can't be migrated are refused.
    """

    def __init__(
        self,
        tree: Tree,
        catalogue: Catalogue,
        chardevs: Chardevs,
        netdevs: Netdevs,
        drives: Drives,
        blocks: Blocks,
        fsdevs: Fsdevs,
        tpms: Tpms,
        audiodevs: Audiodevs,
        globals: Sequence[Global],
        *,
        only_migratable: bool,
    ) -> None:
        self._tree = tree
        self._catalogue = catalogue
        self._chardevs = chardevs
        self._netdevs = netdevs
        self._drives = drives
        self._blocks = blocks
        self._fsdevs = fsdevs
        self._tpms = tpms
        self._audiodevs = audiodevs
        self._globals = globals
        self._only_migratable = only_migratable
        self._types: dict[str, ObjectType] = {}
        # Those that are there, in their order.
        self._present: dict[AnyDevice, None] = {}
        self._nics: dict[Device, Nic] = {}
        self._usb: dict[Bus, UsbPorts] = {}
        self.inputs = Inputs(tree)
        """Keyboards and pointing devices."""

    def resolve(self, driver: str) -> str:
        """The type that a name stands for, which may be an alias."""
        return type_of_alias(self._catalogue, driver)

    def comes(self, driver: str) -> bool:
        """Whether devices of a type come and go while the machine runs, where their bus allows."""
        return bool(self._told(driver)["hotplug"])

    def check_hotplug(self, driver: str, bus: Bus | None) -> None:
        """Raise `QMPError` where a device of a type can't come to a bus now, or leave it."""
        if not self.comes(driver):
            raise QMPError(f"Device '{driver}' does not support hotplugging")
        if bus is None:
            raise not_hotplugged(driver)
        bus.check_hotplug()

    async def add(self, machine: Machine, args: JSONObject) -> None:
        """`device_add` of a type that memd has no part for.

        Args:
            machine: what it is plugged into.
            args: of the command; `driver` is a text, and no alias.

        Raises:
            QMPError: it can't be; nothing is left behind.
        """
        driver = args["driver"]
        told = self._admit(driver, machine.config.type)
        socket = self._cpu_socket(machine, driver, args.get("bus"))
        if socket is not None:
            self._add_cpu(machine, socket, args)
            return
        bus = self._find_bus(machine, driver, told["bus"], args.get("bus"))
        if machine.started or (bus is None and told["says"] is None):
            self.check_hotplug(driver, bus)
        id = id_of(args)
        name = machine.name_device(id)
        kind = self.type_of(driver)
        device: AnyDevice
        if isinstance(bus, PciBus):
            device = OtherPciDevice(kind, self._tree, id, bus, self)
        else:
            device = OtherDevice(kind, self._tree, id, bus, self)
        try:
            put(machine, device, name, args)
            await self._prepare(machine, device, told)
        except BaseException:
            if isinstance(device, OtherPciDevice) and device.placed:
                remove_functions(device.functions)
                device.bus.vacate(device.place)
            path = self._tree.path_of(device)
            used = self._blocks.collect(self._release(device, path, gone=False))
            device.leave_tree()
            machine.spawn(used, "unlocking the image of a device")
            raise
        device.realized = True
        self._present[device] = None
        self.inputs.take(device)
        self._add_buses(device, id, machine)
        if "netdev" in kind.all_properties:
            given = device.values.get("mac", "")
            device.values["mac"] = self._netdevs.add_device(self._nic(device), id, given)

    def _add_cpu(self, machine: Machine, socket: MachineKind, args: JSONObject) -> None:
        from memd.standin.cpu_features import cpu_values
        from memd.standin.cpus import place_cpu

        driver, id = args["driver"], id_of(args)
        name = machine.name_device(id)
        cpu = CPU(self.type_of(driver), self._tree, {}, -1, id)
        try:
            put(machine, cpu, name, args)
            values = cpu_values(self._catalogue, self._tree, machine.config, driver)
            values.pop("memory", None)
            cpu.values = values | cpu.values
            place_cpu(machine, socket, cpu)
        except BaseException:
            cpu.leave_tree()
            raise

    async def _prepare(self, machine: Machine, device: AnyDevice, told: JSONObject) -> None:
        """Give a device its place and what it refers to, after all checks; raises `QMPError`.

        Args:
            told: what the catalogue says of its type.
        """
        kind, values = device.qom_type, device.values
        driver, known = kind.name, kind.all_properties
        if self._only_migratable and told["state"]:
            inner = inner_type(self._tree, driver) or kind
            raise QMPError(
                f"Device {inner.name} is not migratable, but --only-migratable was specified"
            )
        ports = self._ports_for(device)
        if isinstance(device, OtherPciDevice):
            device.take_place(machine)
        if ports is not None:
            ports.claim(device)
        self._check(device, told["says"] or "", machine)
        if device.bus is None:
            self._check_alone(device, machine)
        if "audiodev" in known and "audiodev" not in values:
            self._audiodevs.check_default()
        if "tpmdev" in known and "tpmdev" not in values:
            raise QMPError("'tpmdev' property is required")
        if "fsdev" in known:
            await self._fsdevs.check(values.get("fsdev"), values.get("mount_tag"))
        if driver in _IOMMUS:
            self._prepare_iommu(device, machine)
        if kind.is_a(BALLOON) and has_balloon(self._tree, device.name):
            raise QMPError("Only one balloon device is supported")
        if driver == "floppy":
            self._take_unit(device)
        if kind.is_a("scsi-device"):
            self._take_address(device)
        if "drive" in known:
            self._take_drive(device)
        if isinstance(device, OtherPciDevice):
            if kind.is_a(PORT):
                device.take_port_number(machine)
            functions = function_type(device)
            if functions:
                device.functions = add_functions(device, self.type_of(functions), machine)
        if values.get("masterbus"):
            self._add_companion(device, machine)
        if ports is not None and (driver not in WAITING or not device.hotplugged):
            ports.check(device)
        self._settle(device, told.get("values", {}))
        blocker = self._blocker(device)
        if self._only_migratable and blocker:
            raise QMPError(f"disallowing migration blocker (--only-migratable) for: {blocker}")
        if "drive" in device.values:
            # Nobody may take it out while its image is being locked.
            device.leaving = True
            await self._blocks.relock()
            device.leaving = False

    def _prepare_iommu(self, device: AnyDevice, machine: Machine) -> None:
        """Decide what an IOMMU leaves open; raises `QMPError` where there can't be such a one."""
        if any(each.qom_type.name in _IOMMUS for each in self._present):
            raise QMPError("QEMU does not support multiple vIOMMUs for x86 yet.")
        values = device.values
        if device.qom_type.name == "intel-iommu":
            _settle_iommu(values)
        elif device.qom_type.name == _AMD_IOMMU:
            if values.get("intremap", "auto") == "auto":
                values["intremap"] = "on"
            # The device by which a guest finds it; every machine that it is for has a PCI bus.
            bus = machine.buses.pci
            assert bus is not None
            add_unattached(self._tree, PciPart(self.type_of(PCI_HALF), self._tree, bus))

    def _admit(self, driver: str, machine: str) -> JSONObject:
        kind = self._tree.type_by_name(driver)
        if kind is None or not kind.is_a("device"):
            raise QMPError(f"'{driver}' is not a valid device model name")
        if kind.abstract:
            raise QMPError("Parameter 'driver' expects a non-abstract device type")
        told = self._told(driver)
        if not told or not told["user"]:
            raise QMPError("Parameter 'driver' expects a pluggable device type")
        if kind.is_a("sys-bus-device") and driver not in _DYNAMIC.get(machine, ()):
            raise QMPError(
                "Parameter 'driver' expects a dynamic sysbus device type for the machine"
            )
        return told

    def _cpu_socket(self, machine: Machine, driver: str, bus: JSON) -> MachineKind | None:
        """The kind of the machine, where this is a CPU for it."""
        kind = find_kind(machine.config.type, self._tree.compat)
        if kind is None or "x86_64" not in kind.cpu_type or not driver.endswith("-cpu"):
            return None
        if type(bus) is str:
            # No bus is for CPUs, and it says so.
            machine.buses.find(bus, driver, on_pci=False, virtio=machine.has_virtio)
        return kind

    def _find_bus(self, machine: Machine, driver: str, kind: str | None, name: JSON) -> Bus | None:
        self._find_buses(machine)
        find = partial(machine.buses.find, name, driver, virtio=machine.has_virtio)
        if kind is None:
            return find(on_pci=False)
        if kind == "PCI":
            return find(on_pci=True)
        # What came last is looked at first.
        own = {
            name: bus
            for name, bus in reversed(machine.buses.others.items())
            if self._need(bus.qom_type.name).is_a(kind)
        }
        if type(name) is str:
            if name not in own:
                # Says what is wrong with it.
                find(on_pci=False)
            if self._is_full(own[name]):
                raise QMPError(f"Bus '{name}' is full")
            return own[name]
        for bus in own.values():
            if not self._is_full(bus):
                return bus
        raise QMPError(f"No '{kind}' bus found for device '{driver}'")

    def _is_full(self, bus: Bus) -> bool:
        """Whether a bus of the machine takes one device and has it."""
        takes_one = self._need(bus.qom_type.name).is_a("virtio-bus")
        return takes_one and any(each.bus is bus for each in self._present)

    def _find_buses(self, machine: Machine) -> None:
        """The buses of devices that memd has a part for."""
        for device in peripherals(self._tree):
            if isinstance(device, PciDevice) and device.qom_type.name == "qemu-xhci":
                if not device.children:
                    self._add_buses(device, device.id, machine)

    def _check(self, device: AnyDevice, says: str, machine: Machine) -> None:
        """Raise `QMPError` where it lacks what it needs, as the recorded QEMU said."""
        if device.qom_type.name == _DISK and not device.values.get("drive"):
            raise QMPError("drive property not set")
        if not says or any(each in says for each in _HARMLESS):
            return
        if "PCIe bus" in says and isinstance(device.bus, PciBus) and not device.bus.express:
            return
        # It had an id of its own.
        says = re.sub(_RECORDED_ID, device.id or "(null)", says)
        given = {name for name, value in device.values.items() if value != ""} - _OF_A_PLACE
        named = set(re.findall(_WORD, says)) & set(device.qom_type.all_properties)
        if not given or (named and not named & given):
            raise QMPError(says)

    def _settle(self, device: AnyDevice, recorded: JSONObject) -> None:
        """Give a device the values that it decides by itself.

        Args:
            recorded: those of such a device that was plugged in with nothing given.
        """
        given = device.values
        values = dict(recorded)
        if "romfile" in given:
            values.pop("romsize", None)
        legacy = "disable-legacy"
        if isinstance(device, OtherPciDevice) and legacy in device.qom_type.all_properties:
            modern = device.on_port or values.get(legacy) == "on"
            values[legacy] = "on" if modern else "off"
        if "cyls" in values:
            drive = self._drive_of(device)
            size = 0 if drive is None or drive.node is None else drive.node.size
            fewest, most = _CYLINDERS
            whole = size // (_SECTOR * values["heads"] * values["secs"])
            values["cyls"] = min(max(whole, fewest), most)
        if (
            given.get("rombar") == 0
            and device.hotplugged
            and given.get("romfile", values.get("romfile"))
        ):
            raise QMPError("Hot-plugged device without ROM bar can't have an option ROM")
        left_open = {name for name, value in given.items() if value == "auto" and name in values}
        device.values = values | {name: given[name] for name in given if name not in left_open}

    def _take_unit(self, floppy: AnyDevice) -> None:
        """Give a floppy its place at its controller; raises `QMPError` where it can't have it."""
        from memd.devices.parts import OWN_FLOPPIES
        from memd.standin.block.drives import FLOPPIES

        bus = "" if floppy.bus is None else floppy.bus.name
        taken = {*self._drives.floppies} if bus == OWN_FLOPPIES else set()
        taken |= {
            each.values["unit"]
            for each in self._present
            if each.qom_type.name == "floppy" and each.bus is not None and each.bus.name == bus
        }
        unit = floppy.values.get("unit", _ANY_UNIT)
        if unit == _ANY_UNIT:
            unit = next(number for number in range(FLOPPIES + 1) if number not in taken)
        if unit >= FLOPPIES:
            raise QMPError(f"Can't create floppy unit {unit}, bus supports only {FLOPPIES} units")
        if unit in taken:
            raise QMPError(f"Floppy unit {unit} is in use")
        floppy.values["unit"] = unit

    def _take_address(self, disk: AnyDevice) -> None:
        """Give a SCSI device its target and unit; raises `QMPError` where another has them."""
        taken = {
            (each.values["scsi-id"], each.values["lun"]): each.id
            for each in self._present
            if each.bus is disk.bus and each.qom_type.is_a("scsi-device")
        }
        target, unit = (
            None if each == _ANY_UNIT else each
            for each in map(disk.values.get, ("scsi-id", "lun"), repeat(_ANY_UNIT))
        )
        above = None if disk.bus is None else disk.bus.parent
        alone = above is not None and above.qom_type.name in WAITING
        if alone and target:
            raise QMPError(f"bad scsi device id: {target}")
        if target is None:
            unit = unit or 0
            target = next(each for each in count() if (each, unit) not in taken)
            if alone and target:
                raise QMPError("no free target")
        elif unit is None:
            unit = next(each for each in count() if (target, each) not in taken)
        elif (target, unit) in taken:
            raise QMPError(f"lun already used by '{taken[target, unit] or '(null)'}'")
        disk.values |= {"scsi-id": target, "lun": unit}

    def _check_alone(self, device: AnyDevice, machine: Machine) -> None:
        """Raise `QMPError` where a device that is on no bus can't be on the machine."""
        driver = device.qom_type.name
        if machine.config.type == "none" and driver in _OF_FIRMWARE:
            raise QMPError(f"{driver} {_OF_FIRMWARE[driver]}")
        if driver in _ALONE and any(each.qom_type.name == driver for each in self._present):
            raise QMPError(f"at most one {driver} device is permitted")
        if driver == _GENERATION_ID:
            device.values.setdefault("guid", _new_uuid())

    def generation_id(self, args: object = None) -> JSON:
        """The value of `query-vm-generation-id`; raises `QMPError` where there is none."""
        for each in self._present:
            if each.qom_type.name == _GENERATION_ID:
                return {"guid": each.values["guid"]}
        raise QMPError("VM Generation ID device not found")

    def _add_buses(self, device: Device, id: str | None, machine: Machine) -> None:
        kind = device.qom_type
        told = () if device.values.get("masterbus") else self._told(kind.name)["buses"]
        for name, bus_kind, comes in told:
            bus, buses = Bus(self._need(bus_kind), self._tree, hotplug=comes), machine.buses
            # Others are called the same in each device.
            named = name.startswith("@")
            if named and id is None:
                name = buses.name_bus(bus.qom_type)
            elif named:
                name = id + name[1:]
            device.add_child(name, bus)
            if named:
                buses.others.setdefault(name, bus)
        if isinstance(device, PciDevice) and kind.is_a("base-pci-bridge"):
            open_bus(device, machine)

    def _told(self, driver: str) -> JSONObject:
        """What the catalogue says of a type."""
        told: JSONObject = self._catalogue.section("devices").get(driver, {})
        return told

    def _blocker(self, device: Device) -> str | None:
        """Why the machine can't be migrated with a device as it was plugged in."""
        blocker: str | None = self._told(device.qom_type.name)["blocker"]
        # One that is master has nobody's memory.
        return None if device.values.get("master") == "on" else blocker

    def blockers(self) -> Sequence[tuple[str, str]]:
        """Why the machine can't be migrated; see `Migration`."""
        found = [(each, each) for each in map(self._blocker, self._present) if each]
        for each in reversed(self._present):
            state = self._told(each.qom_type.name)["state"]
            if state is not None:
                state = "/".join((*self._path(each), state))
                error = f"State blocked by non-migratable device '{state}'"
                found.append((f"non-migratable device: {state}", error))
        return found

    def _path(self, device: QObject | None) -> Iterator[str]:
        """Where a device is in streams of migration."""
        ports = self._ports_for(device) if isinstance(device, Device) else None
        if ports is not None and isinstance(device, OtherDevice):
            yield from self._path(ports.controller)
            yield ports.path(device)
        elif isinstance(device, PciDevice):
            yield device.pci_path

    def _ports_of(self, bus: Bus) -> UsbPorts:
        if bus not in self._usb:
            self._usb[bus] = UsbPorts(bus, self._tree.machine)
        return self._usb[bus]

    def _ports_for(self, device: Device) -> UsbPorts | None:
        """The ports of the bus that a USB device is on, None for another device."""
        if isinstance(device, OtherDevice) and device.bus is not None:
            if device.qom_type.is_a(USB_DEVICE):
                return self._ports_of(device.bus)
        return None

    def _attach(self, device: Device, value: bool) -> None:
        ports = self._ports_for(device)
        if value and ports is not None:
            ports.check(device)
        device.values["attached"] = value

    def _add_companion(self, controller: Device, machine: Machine) -> None:
        name, first = (controller.values.get(each, 0) for each in ("masterbus", "firstport"))
        bus = machine.buses.others.get(name)
        if bus is None or bus.qom_type.name != _USB:
            raise QMPError(f"USB bus '{name}' not found")
        self._ports_of(bus).add_companion(first)

    def usb_lines(self, machine: Machine) -> list[str]:
        """The lines of `info usb`; raises `QMPError` where there is no bus."""
        self._find_buses(machine)
        buses = [each for each in machine.buses.others.values() if each.qom_type.name == _USB]
        if not buses:
            raise QMPError("USB support not enabled")
        return [
            line for number, bus in enumerate(buses) for line in self._ports_of(bus).lines(number)
        ]

    def clear_buses(self, device: Device, machine: Machine) -> None:
        """What is on the buses of a device goes with it, before it."""
        for each in [*self._present]:
            if each.bus is not None and each.bus.parent is device:
                each.leave(machine)

    def forget(self, device: AnyDevice, machine: Machine, path: str, events: Events) -> None:
        """A device is gone: what it referred to is free, and so are its buses.

        Args:
            path: where it was.
            events: that tell clients, once its image is unlocked.
        """
        machine.buses.close(device)
        node = self._release(device, path)
        self._present.pop(device, None)
        self.inputs.release(device)
        machine.spawn(self._close(node, machine, events), "closing the block node of a device")

    async def _close(self, node: Node | None, machine: Machine, events: Events) -> None:
        # The answer goes first.
        await Turn()
        try:
            # A node that blockdev-snapshot-sync made goes with the device.
            await self._blocks.collect(node)
        finally:
            machine.emit(events)

    async def close(self) -> None:
        """Drop what all devices refer to; their machine is gone."""
        for device in self._present:
            self._release(device, self._tree.path_of(device))

    def _release(self, device: Device, path: str, *, gone: bool = True) -> Node | None:
        """Free what a device referred to; gives the block node that it used.

        Args:
            path: where the device is or was.
            gone: whether it was there.
        """
        node = None
        if "drive" in device.qom_type.all_properties:
            node = self._drives.release(_user_of_drive(device, path), gone=gone)
        nic = self._nics.pop(device, None)
        if nic is not None:
            self._netdevs.remove_device(nic)
        self._tpms.release(device)
        ports = self._ports_for(device)
        if ports is not None:
            ports.release(device)
        for name, value in device.values.items():
            chardev = self._chardevs.find(value) if _names_chardev(name) else None
            if chardev is not None:
                chardev.users, chardev.opened = chardev.users - 1, True
                self._chardevs.changeable.discard(chardev)
        return node

    # Properties

    def _need(self, name: str) -> ObjectType:
        found = self._tree.type_by_name(name)
        if found is None:
            raise QMPError(f"the catalogue has no type '{name}'")
        return found

    def type_of(self, driver: str) -> ObjectType:
        """A type whose properties can be set, made once from what the catalogue has."""
        found = self._types.get(driver)
        if found is None:
            told = self.catalogued(driver) or self._need(driver)
            inner = inner_type(self._tree, driver)
            found = self._types[driver] = ObjectType(
                driver,
                told.parent,
                interfaces=told.interfaces,
                properties=[
                    each if each.getter is not None else self._property(driver, inner, each)
                    for each in told.all_properties.values()
                ],
            )
        return found

    def catalogued(self, driver: str) -> ObjectType | None:
        """A type, as the catalogue has it where it has one of that name; None for none such."""
        more = self._tree.more_types
        return (more and more.find(driver)) or self._tree.type_by_name(driver)

    def _property(self, driver: str, inner: ObjectType | None, told: Property) -> Property:
        name, kind = told.name, told.type
        if kind.startswith("link<"):
            return _link(name, kind[5:-1])
        if kind.startswith("child<"):
            return told
        owner = _owner(driver, inner, name)
        if name.startswith("legacy-") and name != "legacy-addr" and kind == "str":
            return _unreadable(owner, name, kind)
        if name == "netdev":
            return _reference(name, lambda device, value: self._take_netdev(owner, device, value))
        if _names_chardev(name):
            return _reference(name, partial(self._take_chardev, owner, name))
        if name == "tpmdev":
            return _reference(name, lambda device, value: self._tpms.take(owner, device, value))
        if name == "audiodev":
            return _reference(name, lambda device, value: self._audiodevs.take(value))
        if name == "drive":
            return self._drive_property(owner)
        if name.startswith("bootindex"):
            return self._boot_property(name)
        if name == "attached":
            setter = self._attach if driver in WAITING else None
            return Property(name, kind, visit=visit_bool, get=is_attached, set=setter)
        if kind == _QUEUES:
            return kept(name, kind, [], _visit_queues, self._check_queues)
        if name == "mac":
            return kept(name, kind, "", _visit_mac(owner))
        if driver == _GENERATION_ID and name == "guid":
            return kept(name, kind, "", _visit_guid)
        default = value_unset(told) if kind in VISITS or told.default is not None else ""
        return kept(name, kind, default, VISITS.get(kind, visit_str))

    def _drive_property(self, owner: str) -> Property:
        """The drive or node that a device has; once it is real it may get another node."""

        def get(device: Device) -> JSON:
            if not device.realized:
                return device.values.get("drive", "")
            drive = self._drive_of(device)
            if device.qom_type.name == _STICK:
                # It has given it to the disk that it has inside.
                return ""
            if drive is None or drive.node is None:
                return "" if drive is None else drive.name
            return drive.name or drive.node.name

        def set(device: Device, value: JSON) -> Command[None] | None:
            if device.realized:
                return self._drives.replace(self._drive_of(device), value)
            other = device.values.get("drive")
            self._check_unset(owner, "drive", device, value, replaced=True)
            if other:
                self._blocks.named(value, "")
            if value:
                self._drives.check(owner, value)
            device.values["drive"] = value
            return None

        return Property("drive", "str", visit=visit_str, get=get, set=set)

    def _boot_property(self, name: str) -> Property:
        """The place of a device among those that are booted from, which no two have."""

        def set(device: Device, value: int) -> None:
            if value >= 0 and value in self._boot_indexes():
                raise QMPError(f"The bootindex {value} has already been used")
            device.values[name] = value

        return Property(
            name,
            "int32",
            visit=visit_int32,
            get=lambda device: device.values.get(name, -1),
            set=set,
        )

    def _boot_indexes(self) -> Iterator[JSON]:
        for each in parts_of(self._tree.machine):
            yield from (each.values[name] for name in each.values if name.startswith("bootindex"))

    def _check_unset(
        self, owner: str, name: str, device: Device, value: str, *, replaced: bool = False
    ) -> None:
        """Raise `QMPError` where a property has a value that `-global` has given it.

        Args:
            owner: the type that has the property.
            replaced: whether a value that a type around it was given is replaced.
        """
        if not device.values.get(name):
            return
        kind = self._need(owner)
        for each in self._globals:
            if each.property == name and kind.is_a(each.driver):
                raise QMPError(f"-global {each.driver}.{name}=... conflicts with {name}={value}")
        if not replaced:
            raise QMPError(f"{name}={value} conflicts, and override is not implemented")

    def _check_queues(self, device: Device, queues: list[JSONObject]) -> None:
        """Raise `QMPError` where a device's queues can't have these threads."""
        seen = set()
        for each in queues:
            name = each["iothread"]
            thread = self._tree.objects.get(name)
            if thread is None or thread.qom_type.name != "iothread":
                raise QMPError(f'IOThread "{name}" object does not exist')
            if name in seen:
                raise QMPError(f'duplicate IOThread name "{name}" in iothread-vq-mapping')
            seen.add(name)

    def _take_netdev(self, owner: str, device: Device, id: str) -> None:
        self._check_unset(owner, "netdev", device, id)
        netdev = self._netdevs.find(id)
        if netdev is None:
            raise QMPError(f"Property '{owner}.netdev' can't find value '{id}'")
        if netdev.peer is not None:
            raise QMPError(f"Property '{owner}.netdev' can't take value '{id}', it's in use")
        self._nic(device).connect(netdev)

    def _nic(self, device: Device) -> Nic:
        """What a device is among networks."""
        from memd.standin.netdevs import Nic

        return self._nics.setdefault(device, Nic(device.id or "", device.qom_type.name))

    def _drive_of(self, device: Device) -> Drive | None:
        return self._drives.used_by(_user_of_drive(device, self._tree.path_of(device)))

    def _take_drive(self, device: AnyDevice) -> None:
        user = _user_of_drive(device, self._tree.path_of(device))
        given = device.values
        self._drives.attach(given.get("drive", ""), device.qom_type.name, user, given)

    def _take_chardev(self, owner: str, name: str, device: Device, id: str) -> None:
        self._check_unset(owner, name, device, id)
        if not id:
            return
        chardev = self._chardevs.find(id)
        if chardev is None:
            raise QMPError(f"Property '{owner}.{name}' can't find value '{id}'")
        with prefixed(f"Property '{owner}.{name}' can't take value '{id}': "):
            chardev.use()
        chardev.opened = device.qom_type.name != _GUESTS_PORT
        if owner in _SERIAL_PORTS:
            self._chardevs.changeable.add(chardev)


def inner_type(tree: Tree, driver: str) -> ObjectType | None:
    """The type of the inner half of a virtio device, None for a device of one part."""
    found = next(filter(None, map(tree.type_by_name, inner_names(driver))), None)
    return found if found is not None and found.is_a("virtio-device") else None


def _owner(driver: str, inner: ObjectType | None, name: str) -> str:
    """The type that complaints about a property name: that of a part of the device's."""
    if name == "chardev" and driver in ("isa-serial", "pci-serial"):
        return _SERIAL
    return driver if inner is None or name not in inner.all_properties else inner.name


def _settle_iommu(values: JSONObject) -> None:
    """Decide what an `intel-iommu` leaves open, as under TCG; raises `QMPError`."""
    remaps, extended = (values.get(name, "auto") for name in ("intremap", "eim"))
    if remaps == "off" and extended == "on":
        raise QMPError("eim=on cannot be selected without intremap=on")
    scalable, first_stage = map(values.get, ("x-scalable-mode", "x-flts"))
    width = values.get("aw-bits", 48)
    if first_stage and not scalable:
        raise QMPError("x-flts is only available in scalable mode")
    if first_stage and width != 48:
        raise QMPError("Scalable mode(flts=on): supported value for aw-bits is: 48")
    if width not in (39, 48):
        mode = "Scalable mode(flts=off)" if scalable else "Legacy mode"
        raise QMPError(f"{mode}: supported values for aw-bits are: 39, 48")
    if scalable and values.get("dma-drain") is False:
        raise QMPError("Need to set dma_drain for scalable mode")
    if values.get("x-pasid-mode") and not scalable:
        raise QMPError("Need to set scalable mode for PASID")
    values["intremap"] = "on" if remaps == "auto" else remaps
    values["eim"] = "off" if extended == "auto" else extended


def _user_of_drive(device: Device, path: str) -> str:
    """What the drive of a device at a path calls it."""
    if device.qom_type.is_a("virtio-pci"):
        return f"{path}/virtio-backend"
    if device.qom_type.name == _STICK:
        return f"{path}/{device.id or 'scsi'}.0/legacy[0]"
    return device.id or path


def _names_chardev(name: str) -> bool:
    """Whether a property of that name names a character device; some devices have several."""
    return name.rstrip("0123456789") == "chardev"


def _visit_mac(owner: str) -> Visit:
    """An address of a network card's, which is told in small letters."""

    def visit(value: JSON, path: str) -> JSON:
        visit_str(value, path)
        if not re.fullmatch(MAC, value):
            raise QMPError(f"Property '{owner}.mac' doesn't take value '{value}'")
        return value.replace("-", ":").lower()

    return visit


def _new_uuid() -> str:
    from uuid import uuid4

    return str(uuid4())


def _visit_guid(value: JSON, path: str) -> JSON:
    """The id of a state of the machine, or "auto" for one that nobody else has."""
    visit_str(value, path)
    guid = _new_uuid() if value == "auto" else parse_uuid(value)
    if guid is None:
        raise QMPError(f"Property '{_GENERATION_ID}.guid' doesn't take value '{value}'")
    return guid


def _unreadable(owner: str, name: str, kind: str) -> Property:
    """A property that is there to be listed."""

    def get(device: Device) -> JSON:
        raise QMPError(f"Property '{owner}.{name}' is not readable")

    return Property(name, kind, get=get)


def _reference(name: str, take: Callable[[Device, JSON], None]) -> Property:
    """A property that names something, which it takes."""
    return kept(name, "str", "", visit_str, take)


def _visit_queues(value: JSON, path: str) -> JSON:
    """The threads of a device's queues."""
    from memd.qapi import types
    from memd.qapi.check import Visits

    mapping = types.ObjectType("IOThreadVirtQueueMapping", [])
    mapping.members = [
        types.Member("iothread", types.BuiltinType("str"), False, []),
        types.Member("vqs", types.ArrayType(types.BuiltinType("uint16")), True, []),
    ]
    return Visits().of(types.ArrayType(mapping))(value, path)


def _link(name: str, kind: str) -> Property:
    """A property that points at an object."""

    def set_link(device: Any, target: QObject | None) -> None:
        if device.realized:
            raise attempt(device, "link property", name)
        device.values[name] = target

    return LinkProperty(name, kind, follow=lambda device: device.values.get(name), set=set_link)
