"""The flash chips of a PC, which hold its firmware: `-drive if=pflash`, `-machine pflash0=`.

Nothing is read from them. Rules and texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.devices.kinds import FLASH
from memd.devices.machine import SystemDevice
from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.qapi.visit import visit_str
from memd.qom import MemoryRegion, ObjectType, Property

if TYPE_CHECKING:
    from memd.devices.machine import Machine
    from memd.standin.devices import Devices
    from memd.standin.drives import Drives

_KIND = "cfi.pflash01"
_SECTOR = 4096
_TOP = 1 << 32
"""The address behind the first chip; the second one ends where the first begins."""


def plug_flash(
    machine: Machine, devices: Devices, drives: Drives, given: JSONObject, program: str
) -> None:
    """Give a machine the chips that drives are for, or that its properties name.

    Args:
        given: the properties of `-machine`.
        program: its name begins a line of a refusal.

    Raises:
        QMPError: there is no such drive or node, or it has not the size of a chip.
    """
    names = {name: given.get(name) or drives.flash.get(name) for name in FLASH}
    if not any(names.values()):
        return
    for each in filter(None, names.values()):
        drives.check(_KIND, each)
    if names["pflash1"] and not names["pflash0"]:
        raise QMPError("pflash1 requires pflash0")
    tree, left, address = machine.tree, given.get("max-fw-size", 8 << 20), _TOP
    chips: dict[str, SystemDevice] = {}
    for number, (name, drive) in enumerate(names.items()):
        if not drive:
            continue
        label, size = drives.measured(drive)
        if size == 0 or size % _SECTOR:
            raise QMPError(
                f"system firmware block device {label} has invalid size {size}",
                hint=f"{program}: info: its size must be a non-zero multiple of {_SECTOR:#x}",
            )
        address -= size
        if _TOP - address > left:
            raise QMPError(f"combined size of system firmware exceeds {left} bytes")
        chip = chips[name] = SystemDevice(devices.type_of(_KIND), tree, None)
        own = f"system.flash{number}"
        tree.machine.add_child(own, chip)
        count = size // _SECTOR
        chip.values |= {"name": own, "width": 1, "sector-length": _SECTOR, "num-blocks": count}
        chip.set_property("drive", drive)
        drives.attach(drive, _KIND, f"/machine/{own}", {})
        region = MemoryRegion(tree, size)
        region.place(tree.resolve("/machine/unattached/system[0]"), address)
        chip.add_child(f"{own}[0]", region)
        chip.realized = True
    kind = tree.machine.qom_type
    # They are this machine's and not of its type: without a drive they are not there.
    tree.machine.qom_type = ObjectType(
        kind.name,
        kind.parent,
        interfaces=kind.interfaces,
        properties=(*kind.properties, *(_alias(name, chip) for name, chip in chips.items())),
    )


def _alias(name: str, chip: SystemDevice) -> Property:
    """A machine's property that is the drive of a chip."""
    return Property(
        name,
        "str",
        visit=visit_str,
        get=lambda machine: chip.get_property("drive"),
        set=lambda machine, value: chip.set_property("drive", value),
    )
