"""`device_add`: from its arguments to a device in its place.

The order of complaints is that of QEMU 10.0.2 and 11.1.3: the bus, whether it
is too late for that, the id, the properties, then what the device itself needs.
"""

from __future__ import annotations

from memd.devices.arguments import Text
from memd.devices.bus import PciBus
from memd.devices.dimm import Nvdimm, PcDimm
from memd.devices.machine import Device, Machine, MemoryDevice, not_hotplugged
from memd.devices.placeholders import PLACEHOLDERS, Placeholder
from memd.devices.virtio_mem import VirtioMem
from memd.devices.virtio_pci import VirtioMemory, VirtioPci
from memd.devices.virtio_pmem import VirtioPmem
from memd.errors import QMPError, missing
from memd.json_types import JSON, JSONObject
from memd.qapi.hash_order import object_order
from memd.qom import Tree

_DIMMS: dict[str, type[PcDimm]] = {"pc-dimm": PcDimm, "nvdimm": Nvdimm}
_VIRTIO: dict[str, type[VirtioMemory]] = {
    "virtio-mem-pci": VirtioMem,
    "virtio-pmem-pci": VirtioPmem,
}

_NOT_PROPERTIES = ("driver", "bus", "id")


def is_device(driver: str) -> bool:
    """Whether there are devices of that type."""
    return driver in _DIMMS or driver in _VIRTIO or driver in PLACEHOLDERS


def is_anothers(machine: Machine, driver: str) -> bool:
    """Whether a stand-in's register has it, though there are such devices from the start."""
    return driver in PLACEHOLDERS and machine.started


def check_migrating(machine: Machine) -> None:
    """Raise `QMPError` while the machine is being sent."""
    if machine.migrating:
        raise QMPError("device_add not allowed while migrating")


async def add_device(machine: Machine, args: JSONObject) -> None:
    """Plug a device in, by `device_add`, or by `-device` before the start.

    Args:
        args: of the command, values having their types.

    Raises:
        QMPError: it can't be added; nothing is left behind.
    """
    driver = args.get("driver")
    # The command reads its arguments itself, and a number is not a driver at all.
    if type(driver) is not str:
        raise missing("driver")
    check_migrating(machine)
    if not is_device(driver) or (machine.add_other and is_anothers(machine, driver)):
        if machine.add_other is None:
            raise QMPError(f"'{driver}' is not a valid device model name")
        await machine.add_other(args)
        return
    bus = _find_bus(machine, driver, args.get("bus"))
    if driver in PLACEHOLDERS and machine.started:
        raise QMPError(f"memd takes a '{driver}' at the start only")
    id = id_of(args)
    name = machine.name_device(id)
    device = _make(machine.tree, driver, id, bus)
    container = machine.container(id)
    try:
        put(machine, device, name, args)
        realizing = device.realize(machine)
        if isinstance(device, Placeholder):
            return
        if realizing is not None:
            # It shows once it is real; until then nobody else gets its id.
            container.remove_child(name)
            with machine.making(device):
                await realizing
            container.add_child(name, device)
    except BaseException:
        device.leave_tree()
        raise
    if machine.started:
        device.found(machine)


def _find_bus(machine: Machine, driver: str, name: JSON) -> PciBus | None:
    """The bus for a device, None where it needs none; raises `QMPError`."""
    on_pci = driver not in _DIMMS
    bus = machine.buses.find(name, driver, on_pci=on_pci, virtio=machine.has_virtio)
    if machine.started:
        if bus is not None:
            bus.check_hotplug()
        elif not machine.config.takes_dimms:
            raise not_hotplugged(driver)
    return bus


def id_of(args: JSONObject) -> str | None:
    """The id that a device is given: one that is not text is none at all."""
    id = args.get("id")
    return id if type(id) is str else None


def _make(
    tree: Tree, driver: str, id: str | None, bus: PciBus | None
) -> MemoryDevice | Placeholder:
    qom_type = tree.types()[driver]
    if bus is None:
        return _DIMMS[driver](qom_type, tree, id)
    if driver in PLACEHOLDERS:
        return PLACEHOLDERS[driver](qom_type, tree, id, bus)
    return VirtioPci(qom_type, tree, id, bus, _VIRTIO[driver])


def put(machine: Machine, device: Device, name: str, args: JSONObject) -> None:
    """Put a device into the tree, and give it its properties.

    Paths lead to it from then on, those of its own properties too. The caller takes it
    out again (`Device.leave_tree`) where anything fails.

    Args:
        name: in its container.
        args: of `device_add`.

    Raises:
        QMPError: it has no such property, or the property can't be that.
    """
    device.counted = machine.tree.objects.account.charge(args)
    device.hotplugged = machine.started
    machine.container(device.id).add_child(name, device)
    machine.made(device)
    # Those of one bucket come in the order in which they were sent.
    for each in object_order(reversed(args)):
        if each not in _NOT_PROPERTIES:
            value = args[each]
            if isinstance(value, Text):
                value = value.of(device.qom_type, each)
            device.set_property(each, value)
