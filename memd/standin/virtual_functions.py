"""The virtual functions of PCI devices that have some by themselves (SR-IOV).

They are there from the start, behind the device on its bus. Places, numbers and texts
were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

from collections.abc import Iterable

from memd.devices.machine import Machine, add_unattached
from memd.devices.pci import GuestsPciDevice, PciDevice
from memd.errors import QMPError
from memd.named_tuple import NamedTuple
from memd.qom import ObjectType

_PLACES = 256


class _Kind(NamedTuple):
    """What virtual functions of a device are.

    Attributes:
        type: theirs.
        number: how many there are, or the property that says it.
        first: how far behind the device the first one is.
        stride: how far apart they are.
        regions: number and bytes of each region, and whether it can be prefetched.
    """

    type: str
    number: int | str
    first: int
    stride: int
    regions: tuple[tuple[int, int, bool], ...]


_KINDS = {
    "igb": _Kind("igbvf", 8, 128, 2, ((0, 16384, True), (3, 16384, True))),
    "nvme": _Kind("nvme", "sriov_max_vfs", 1, 1, ((0, 16384, False),)),
}


class VirtualFunction(GuestsPciDevice):
    """A virtual function.

    Attributes:
        of: the type of the device that has it.
        regions: as of its kind.
    """

    of: str
    regions: tuple[tuple[int, int, bool], ...]


def function_type(device: PciDevice) -> str:
    """The type of the virtual functions of a device, "" for one that has none.

    Raises:
        QMPError: it lacks what it needs to have some.
    """
    kind = _KINDS.get(device.qom_type.name)
    if kind is None or not _number(kind, device):
        return ""
    if kind.type == "nvme":
        if device.values.get("subsys") is None:
            raise QMPError("subsystem is required for the use of SR-IOV")
        if not all(map(device.values.get, ("sriov_vq_flexible", "sriov_vi_flexible"))):
            raise QMPError(
                "both sriov_vq_flexible and sriov_vi_flexible must be set for the use of SR-IOV"
            )
    return kind.type


def add_functions(
    device: PciDevice, qom_type: ObjectType, machine: Machine
) -> list[VirtualFunction]:
    """Put the virtual functions of a device on its bus; gives them.

    Args:
        device: it has its place.
        qom_type: theirs.

    Raises:
        QMPError: there is no room; none is there.
    """
    kind = _KINDS[device.qom_type.name]
    first = device.place + kind.first
    last = first + (_number(kind, device) - 1) * kind.stride
    if last >= _PLACES:
        raise QMPError("VF addr overflows")
    added: list[VirtualFunction] = []
    try:
        for place in range(first, last + 1, kind.stride):
            function = VirtualFunction(qom_type, machine.tree, None, device.bus)
            function.of, function.regions = device.qom_type.name, kind.regions
            function.hotplugged = machine.started
            device.bus.occupy(place, qom_type.name, multifunction=True)
            function.place = place
            function.realized = True
            add_unattached(machine.tree, function)
            added.append(function)
    except QMPError:
        remove_functions(added)
        raise
    return added


def remove_functions(functions: Iterable[VirtualFunction]) -> None:
    """The virtual functions of a device are gone with it."""
    for function in functions:
        function.bus.vacate(function.place)
        function.leave_tree()


def _number(kind: _Kind, device: PciDevice) -> int:
    if isinstance(kind.number, int):
        return kind.number
    number: int = device.values.get(kind.number, 0)
    return number
