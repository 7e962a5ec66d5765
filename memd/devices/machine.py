"""The memory side of a machine: devices come, are asked for, and go.

There are no CPUs and there is no guest; what one would do is `memd.devices.guest`'s.
Texts and their order were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from memd.compat import Compat
from memd.config import MachineConfig
from memd.errors import QMPError, check_length, device_not_found, is_identifier
from memd.json_types import JSON, JSONObject
from memd.named_tuple import NamedTuple
from memd.qom import MemoryRegion, ObjectType, QObject, Tree
from memd.work import Command, Emit, Event, Events, run_here

if TYPE_CHECKING:
    # What devices are made of is imported with the first one: nearly every
    # daemon gets by without.
    from memd.backends.base import MemoryBackend
    from memd.devices.area import Area
    from memd.devices.bus import Buses
    from memd.devices.guest import Guest
    from memd.devices.throttle import Later, Throttle
    from memd.places import Share
    from memd.qom.builtin_objects import Bus


class Device(QObject):
    """A device, or a part of one.

    Attributes:
        id: the one that it was given, or None.
        leaving: whether the guest was asked to release it.
        realized: whether it is real.
        hotplugged: whether it came after the machine had started.
        values: what the properties that are only stored were set to, by name.
        counted: what it counts as; None where the machine has it by itself.
    """

    tree: Tree
    leaving = False
    realized = False
    hotplugged = False
    counted: Share | None = None

    def __init__(self, qom_type: ObjectType, tree: Tree, id: str | None) -> None:
        super().__init__(qom_type, tree)
        self.id = id
        self.values: JSONObject = {}

    def leave_tree(self) -> None:
        """It is there no more, or could not be made."""
        if self.parent is not None:
            self.parent.remove_child(self.name)
        if self.counted is not None:
            self.counted.end()

    @property
    def bus(self) -> Bus | None:
        """The bus that it is on, if any."""
        return None

    def part_with(self, name: str) -> str:
        """The type of the part of it that has a property: that of a virtio device's inner half."""
        return self.qom_type.name

    @property
    def hotpluggable(self) -> bool:
        """Whether it can be removed while the machine runs."""
        return True

    def check_bus(self) -> None:
        """Raise `QMPError` where nothing can be removed from the bus that it is on."""
        if self.bus is not None:
            self.bus.check_hotplug()

    def removal(self, machine: Machine) -> None:
        """Ask the guest to release it.

        Raises:
            QMPError: that can't be.
        """
        raise QMPError(f"Device '{self.qom_type.name}' does not support hotplugging")


class MemoryDevice(Device, ABC):
    """A device that puts a backend's memory into the machine.

    Attributes:
        kind: what `query-memory-devices` calls it.
        ram_block: the name of its memory's RAM block; empty where it gives it none.
    """

    kind: str
    ram_block = ""

    @property
    @abstractmethod
    def address(self) -> int:
        """Where in the machine its memory begins."""

    @property
    @abstractmethod
    def memdev(self) -> MemoryBackend | None:
        """The backend whose memory it is, or None."""

    @property
    def memory_size(self) -> int:
        """Bytes of addresses that it takes."""
        return 0 if self.memdev is None else self.memdev.size

    @property
    def plugged_size(self) -> int:
        """Bytes that the machine has of it."""
        return self.memory_size

    @abstractmethod
    def data(self) -> JSONObject:
        """Its members in `query-memory-devices`, the id excepted."""

    def info(self) -> JSON:
        """Its row in `query-memory-devices` (QAPI `MemoryDeviceInfo`)."""
        id = {} if self.id is None else {"id": self.id}
        return {"type": self.kind, "data": self.data() | id}

    @abstractmethod
    def realize(self, machine: Machine) -> Command[None] | None:
        """Make it real: it takes its place and its backend.

        Returns:
            None, or a `Job` where the kernel may take long over the rest.

        Raises:
            QMPError: it can't be; nothing is taken.
        """

    def found(self, machine: Machine) -> None:
        """The guest finds it: when it is plugged in, or when the machine starts."""

    @abstractmethod
    def removed(self) -> Events:
        """It is gone from the machine; gives the events that tell of it."""


class SystemDevice(Device):
    """A part of a machine that is on its system bus, where nothing comes or goes."""

    @property
    def bus(self) -> Any:
        """The machine's own bus, which nothing leaves."""
        return self.tree.resolve("/machine/unattached/sysbus")

    @property
    def hotpluggable(self) -> bool:
        """It stays."""
        return False


def add_unattached(tree: Tree, device: Device) -> None:
    """Put a device into the tree that the machine makes by itself once it is whole."""
    unattached = tree.resolve("/machine/unattached")
    number = sum(name.startswith("device[") for name in unattached.children)
    unattached.add_child(f"device[{number}]", device)


def not_hotplugged(kind: str) -> QMPError:
    """The error for a device on no bus, of a type that can't come and go on the machine."""
    return QMPError(f"Device '{kind}' can not be hotplugged on this machine")


class Asked(NamedTuple):
    """A device that the command line has the machine make.

    Attributes:
        slot: where it goes: "ide", "floppy", "serial", "parallel", "vga",
            "ISA nic", "PCI nic" or "usb".
        kind: its type.
        bus: the number of its bus, for a drive.
        made: is told the device once it is in the tree.
    """

    slot: str
    kind: str
    bus: int = 0
    made: Callable[[Device], None] = lambda device: None


_HOSTS = {
    # The machine's bridge and its bus: name and type of both, and whether
    # devices may come and go.
    "q35": ("q35", "q35-pcihost", "pcie.0", "PCIE", False),
    "pc": ("i440fx", "i440FX-pcihost", "pci.0", "PCI", True),
    "virt": ("gpex", "gpex-pcihost", "pcie.0", "PCIE", False),
    "microvm": ("gpex", "gpex-pcihost", "pcie.0", "PCIE", False),
    "x-remote": ("remote-pcihost", "remote-pcihost", "remote-pci", "PCIE", True),
}


class Machine:
    """The machine that memory devices are plugged into.

    Attributes:
        tree: the tree that it is in.
        config: what the command line says of it.
        started: whether devices that come now are hot-plugged.
        plugged: the devices that have a place in it.
        emit: sends events to all clients.
        later: has something called after so many seconds.
        spawn: runs a command that no client waits for; the text says what it does.
        migrating: whether it is on its way elsewhere: nothing is plugged in or out.
        deny_private_discard: whether discarding memory of a private mapping of
            a file is refused.
        asked: the devices that the machine makes for options of the command line, in the
            order of their places.
        made: is told each new device before that is given its properties, and may raise
            `QMPError`.
        add_other: `device_add` of a type that is not memory's; None where there
            are none.
    """

    deny_private_discard = False
    add_other: Callable[[JSONObject], Command[None]] | None = None
    _area_region: MemoryRegion | None = None
    # How many devices without an id there have been.
    _anonymous = 0
    _warned = False

    def __init__(self, tree: Tree, config: MachineConfig) -> None:
        self.config = config
        self.started = self.migrating = False
        self.plugged: list[MemoryDevice] = []
        self.asked: list[Asked] = []
        self.emit: Emit = lambda events: None
        self.later: Later = lambda _delay, act: act()
        self.spawn: Callable[[Command[None], str], None] = lambda command, _what: run_here(command)
        self.made: Callable[[Device], None] = lambda device: None
        self.tree = tree
        # Those that take long to be real, whose ids are taken.
        self._making: list[MemoryDevice] = []

    def set_up(self) -> None:
        """Put into the tree what devices refer to."""
        tree = self.tree
        if self._area is not None:
            region = MemoryRegion(tree, self._area.size)
            region.place(tree.resolve("/machine/unattached/system[0]"), self._area.base)
            tree.machine.add_child("device-memory[0]", region)
            self._area_region = region
        # They are in the tree from the start.
        _ = self.buses

    def renewed(self) -> Machine:
        """A new one of the same kind in its place in the tree; what was plugged in is gone."""
        for id in ("", None):
            for each in self.container(id).children.values():
                if isinstance(each, Device) and each.counted is not None:
                    each.counted.end()
        self.tree.replace_machine()
        new = Machine(self.tree, self.config)
        new.deny_private_discard = self.deny_private_discard
        new.emit, new.later, new.spawn = self.emit, self.later, self.spawn
        # What the old guest was asked for is not told any more.
        self.emit = lambda events: None
        return new

    # What devices ask of it

    @cached_property
    def _area(self) -> Area | None:
        """The addresses for memory devices."""
        if self.config.type == "none":
            return None
        from memd.devices.area import area_of

        return area_of(self.config)

    @cached_property
    def buses(self) -> Buses:
        """Its buses."""
        return _add_buses(self.tree, self.config)

    @property
    def has_virtio(self) -> bool:
        """Whether a virtio device is plugged in."""
        return any(each.qom_type.is_a("virtio-pci") for each in self.plugged)

    @property
    def numa_nodes(self) -> int:
        """How many NUMA nodes it has."""
        return max(1, len(self.config.numa_nodes))

    @cached_property
    def guest(self) -> Guest:
        """Who runs in it."""
        from memd.devices.guest import Guest

        return Guest(self.config, self.later)

    @cached_property
    def _sizes(self) -> Throttle:
        from memd.devices.throttle import Throttle

        return Throttle(lambda event: self.emit((event,)), self.later)

    def need_area(self) -> Area:
        """The addresses for devices; raises `QMPError` where there are none."""
        if self._area is None:
            raise QMPError(
                "the configuration is not prepared for memory devices (e.g., for memory"
                " hotplug), consider specifying the maxmem option"
            )
        return self._area

    def take(self, device: MemoryDevice, memdev: MemoryBackend) -> None:
        """A device takes its place, and a backend."""
        memdev.mapped_by = device
        self.plugged.append(device)
        if memdev.shown is not None and device.qom_type.name != "nvdimm":
            self.show_region(memdev.shown, device.address)

    def show_region(self, region: MemoryRegion, address: int) -> None:
        """Have a region show where it is."""
        region.place(self._area_region, address - (0 if self._area is None else self._area.base))

    def check_private_discard(self, memdev: MemoryBackend) -> None:
        """Warn, once, where memory is to be discarded that is a private mapping of a file.

        Raises:
            QMPError: it is refused.
        """
        if memdev.file_path is None or memdev.share:
            return
        if self.deny_private_discard:
            raise QMPError(
                f"cannot discard memory of '{memdev.name}': it is a private mapping of a file,"
                " and --deny-private-discard is given"
            )
        if not self._warned:
            self._warned = True
            memdev.tree.host.warn(
                f"discarding memory of '{memdev.name}', a private mapping of a file, changes the"
                " file for everybody else"
            )

    def size_changed(self, device: MemoryDevice, size: int) -> None:
        """Tell that a virtio-mem device has another size; at most once a second."""
        path = self.tree.path_of(device)
        data: JSONObject = {"size": size, "qom-path": path}
        if device.id is not None:
            data["id"] = device.id
        self._sizes.send(path, Event("MEMORY_DEVICE_SIZE_CHANGE", data))

    def remove(self, device: MemoryDevice) -> None:
        """The guest has released a device: it is gone."""
        events = device.removed()
        device.leave_tree()
        self._free(device)
        self.emit(events)

    def _free(self, device: MemoryDevice) -> None:
        self.plugged.remove(device)
        memdev = device.memdev
        if memdev is None:
            return
        memdev.mapped_by = None
        if memdev.shown is not None:
            memdev.shown.place(None)

    # What happens to it

    def set_running(self, running: bool) -> None:
        """It goes on, or stands still."""
        if self.config.type == "none" or not self.started:
            return
        if running and not self.guest.started:
            # It finds what was there before it.
            for device in self.plugged:
                if not device.hotplugged:
                    device.found(self)
        self.guest.set_running(running)

    # What clients ask of it

    def del_device(self, id: str) -> JSON:
        """`device_del`: the guest is asked to release a device.

        Raises:
            QMPError: there is no such device, or it has to stay.
        """
        device = self._find(id)
        if device.leaving and device.bus is not None and self.guest.stands_still:
            raise QMPError(f"Device {id} is already in the process of unplug")
        device.check_bus()
        if device.bus is None and not self.config.takes_dimms:
            raise not_hotplugged(device.qom_type.name)
        if self.migrating:
            raise QMPError("device_del not allowed while migrating")
        device.removal(self)
        return {}

    def name_device(self, id: str | None) -> str:
        """The name that a device is going to have in the tree.

        Args:
            id: its id, or None.

        Raises:
            QMPError: the id is taken, or none.
        """
        if id is None:
            self._anonymous += 1
            return f"device[{self._anonymous - 1}]"
        # QEMU 10.0 takes any text.
        if self.tree.compat is not Compat.V10_0 and not is_identifier(id):
            raise QMPError(f"Invalid qdev ID '{id}'")
        check_length(id)
        there = self.container(id)
        taken = id in there.children or id in there.qom_type.all_properties
        if taken or any(each.id == id for each in self._making):
            raise QMPError(f"Duplicate device ID '{id}'")
        return id

    @contextmanager
    def making(self, device: MemoryDevice) -> Iterator[None]:
        """A context in which a device becomes real that has its place: its id is taken.

        Where that fails its place and its backend are free again.
        """
        self._making.append(device)
        try:
            yield
        except BaseException:
            device.removed()
            self._free(device)
            raise
        finally:
            self._making.remove(device)

    def container(self, id: str | None) -> QObject:
        """The container of a device with that id, or without one."""
        return self.tree.resolve(f"/machine/peripheral{'-anon' if id is None else ''}")

    def _find(self, id: str) -> Device:
        path = id if id.startswith("/") else f"/machine/peripheral/{id}"
        found, _ambiguous = self.tree.lookup(path)
        if found is None:
            raise device_not_found(id)
        if not found.qom_type.is_a("device"):
            raise QMPError(f"{id} is not a device")
        if not isinstance(found, Device):
            raise QMPError("Bus 'main-system-bus' does not support hotplugging")
        return found

    def devices(self) -> list[JSON]:
        """The value of `query-memory-devices`."""
        # What is not in the tree yet is still being made.
        there = [each for each in self.plugged if each.parent is not None]
        return [each.info() for each in sorted(there, key=lambda each: each.address)]

    def memory_summary(self) -> JSON:
        """The value of `query-memory-size-summary`, in bytes."""
        plugged = sum(each.plugged_size for each in self.plugged if each.parent is not None)
        return {"base-memory": self.config.ram_size, "plugged-memory": plugged}


def _add_buses(tree: Tree, config: MachineConfig) -> Buses:
    """Put the buses of a machine into its tree."""
    from memd.devices.bus import Buses, PciBus
    from memd.qom.builtin_objects import SystemBus

    system = tree.resolve("/machine/unattached/sysbus")
    assert isinstance(system, SystemBus)
    if config.type not in _HOSTS or not config.pcie:
        return Buses(None, system)
    name, kind, bus_name, bus_kind, hotplug = _HOSTS[config.type]
    types = tree.basics()
    host = SystemDevice(ObjectType(kind, types["device"]), tree, None)
    host.realized = True
    if config.type != "microvm":
        # There it has a number among the machine's parts.
        tree.machine.add_child(name, host)
    if config.type == "pc":
        # Its devices come and go by ACPI.
        hotplug = config.acpi
    pci = PciBus(types[bus_kind], tree, hotplug=hotplug)
    host.add_child(bus_name, pci)
    if kind == "gpex-pcihost":
        # It is not in the tree.
        pci.occupy(0, "gpex-root", multifunction=False)
    return Buses(pci, system)
