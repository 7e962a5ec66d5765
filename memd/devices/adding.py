"""`device_add`: from its arguments to a device in its place.

The order of complaints is that of QEMU 10.0.2 and 11.1.3: the bus, whether it
is too late for that, the id, the properties, then what the device itself needs.
"""

from __future__ import annotations

from memd.devices.dimm import Nvdimm, PcDimm
from memd.devices.machine import Machine, MemoryDevice
from memd.devices.placeholders import PLACEHOLDERS, Placeholder
from memd.devices.virtio_mem import VirtioMem
from memd.devices.virtio_pci import VirtioMemory, VirtioPci
from memd.devices.virtio_pmem import VirtioPmem
from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.qapi.hash_order import object_order

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
        raise QMPError("Parameter 'driver' is missing")
    check_migrating(machine)
    if not is_device(driver) or (machine.add_other and is_anothers(machine, driver)):
        if machine.add_other is None:
            raise QMPError(f"'{driver}' is not a valid device model name")
        await machine.add_other(args)
        return
    virtio = _VIRTIO.get(driver)
    bus = machine.buses.find(
        args.get("bus"),
        driver,
        on_pci=driver not in _DIMMS,
        virtio=machine.has_virtio,
    )
    if machine.started:
        if bus is not None:
            bus.check_hotplug()
        elif not machine.config.takes_dimms:
            raise QMPError(f"Device '{driver}' can not be hotplugged on this machine")
    id = args.get("id")
    # An id that is not text is none at all.
    if type(id) is not str:
        id = None
    # Those of one bucket come in the order in which they were sent.
    properties = {
        each: args[each] for each in object_order(reversed(args)) if each not in _NOT_PROPERTIES
    }
    if driver in PLACEHOLDERS and machine.started:
        raise QMPError(f"memd takes a '{driver}' at the start only")
    name = machine.name_device(id)
    tree = machine.tree
    qom_type = tree.types()[driver]
    device: MemoryDevice | Placeholder
    if bus is None:
        device = _DIMMS[driver](qom_type, tree, id)
    elif virtio is None:
        device = PLACEHOLDERS[driver](qom_type, tree, id, bus)
    else:
        device = VirtioPci(qom_type, tree, id, bus, virtio)
    device.counted = tree.objects.account.charge(args)
    device.hotplugged = machine.started
    # Paths lead to it from now on, those of its own properties too.
    container = machine.container(id)
    container.add_child(name, device)
    try:
        machine.made(device)
        for each, value in properties.items():
            device.set_property(each, value)
        realizing = device.realize(machine)
    except BaseException:
        device.leave_tree()
        raise
    if isinstance(device, Placeholder):
        return
    if realizing is not None:
        # It shows once it is real; until then nobody else gets its id.
        container.remove_child(name)
        try:
            with machine.making(device):
                await realizing
        except BaseException:
            device.leave_tree()
            raise
        container.add_child(name, device)
    if machine.started:
        device.found(machine)
