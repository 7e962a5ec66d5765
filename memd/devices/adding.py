"""`device_add`: from its arguments to a device in its place.

The order of complaints is that of QEMU 10.0.2 and 11.1.3: the bus, whether it
is too late for that, the id, the properties, then what the device itself needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memd.devices.dimm import Nvdimm, PcDimm
from memd.devices.placeholders import PLACEHOLDERS, add_placeholder
from memd.devices.virtio_mem import VirtioMem
from memd.devices.virtio_pci import VirtioMemory, VirtioPci
from memd.devices.virtio_pmem import VirtioPmem
from memd.errors import QMPError
from memd.qapi.leftover import object_order

if TYPE_CHECKING:
    from memd.devices.device import MemoryDevice
    from memd.devices.machine import Machine
    from memd.qom.tree import Tree

_DIMMS: dict[str, type[PcDimm]] = {"pc-dimm": PcDimm, "nvdimm": Nvdimm}
_VIRTIO: dict[str, type[VirtioMemory]] = {
    "virtio-mem-pci": VirtioMem,
    "virtio-pmem-pci": VirtioPmem,
}

_NOT_PROPERTIES = ("driver", "bus", "id")


def is_device(driver: str) -> bool:
    """Whether there are devices of that type."""
    return driver in _DIMMS or driver in _VIRTIO or driver in PLACEHOLDERS


async def add(machine: Machine, tree: Tree, driver: str, args: dict[str, Any]) -> None:
    """See `Machine.add_device`.

    Args:
        driver: a type that there are devices of.
    """
    virtio = _VIRTIO.get(driver)
    bus = machine.buses.find(
        args.get("bus"), driver, on_pci=driver not in _DIMMS, virtio=machine.has_virtio
    )
    if machine.started:
        if bus is not None:
            bus.check_hotplug()
        elif machine.config.type == "none":
            raise QMPError(f"Device '{driver}' can not be hotplugged on this machine")
    id = args.get("id")
    # An id that is no text is none at all.
    if type(id) is not str:
        id = None
    # Those of one bucket come in the order in which they were sent.
    properties = {
        each: args[each] for each in object_order(reversed(args)) if each not in _NOT_PROPERTIES
    }
    if driver in PLACEHOLDERS and bus is not None:
        add_placeholder(machine, tree, driver, bus, id, properties)
        return
    name = machine.name_device(id)
    qom_type = tree.types()[driver]
    device: MemoryDevice
    if virtio is None or bus is None:
        device = _DIMMS[driver](qom_type, tree, id)
    else:
        device = VirtioPci(qom_type, tree, id, bus, virtio)
    device.hotplugged = machine.started
    # Paths lead to it from now on, those of its own properties too.
    container = machine.container(id)
    container.add_child(name, device)
    try:
        for each, value in properties.items():
            device.set_property(each, value)
        realizing = device.realize(machine)
    except BaseException:
        container.remove_child(name)
        raise
    if realizing is not None:
        # It shows once it is real; until then nobody else gets its id.
        container.remove_child(name)
        machine.reserve(device, name)
        try:
            await realizing
        except BaseException:
            machine.drop(device)
            raise
        finally:
            machine.release(device, name)
        container.add_child(name, device)
    machine.plug(device)
