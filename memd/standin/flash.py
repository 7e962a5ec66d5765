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
from memd.qom import MemoryRegion, Property
from memd.qom.machine import extend, withdraw

if TYPE_CHECKING:
    from memd.devices.machine import Machine
    from memd.standin.standin import StandIn

_KIND = "cfi.pflash01"
_SECTOR = 4096
_SHOWN = {name: f"system.flash{number}" for number, name in enumerate(FLASH)}
"""The names of the chips at `/machine`, by those of the properties."""

_TOP = 1 << 32
"""The address behind the first chip; the second one ends where the first begins."""


def add_chips(machine: Machine, standin: StandIn) -> None:
    """Show the chips that a machine that is not made yet could have."""
    for name in FLASH:
        _add_chip(machine, standin, name)


def _add_chip(machine: Machine, standin: StandIn, name: str) -> SystemDevice:
    chip = SystemDevice(standin.devices.type_of(_KIND), machine.tree, None)
    own = _SHOWN[name]
    machine.tree.machine.add_child(own, chip)
    chip.values |= {"name": own, "width": 1, "sector-length": _SECTOR}
    # It is this machine's and not of its type: without a drive it is not there.
    extend(machine.tree.machine, _alias(name, chip))
    return chip


def plug_flash(machine: Machine, standin: StandIn, given: JSONObject, program: str) -> None:
    """Give a machine the chips that drives are for, or that its properties name; no others.

    Args:
        given: the properties of `-machine`.
        program: its name begins a line of a refusal.

    Raises:
        QMPError: there is no such drive or node, or it has not the size of a chip.
    """
    tree, drives, names = machine.tree, standin.drives, {}
    for name, own in _SHOWN.items():
        names[name] = given.get(name) or drives.flash.get(name)
        if own in tree.machine.children:
            # A client may have named one since.
            names[name] = tree.machine.get_property(name) or names[name]
            tree.machine.remove_child(own)
            withdraw(tree.machine, name)
    for each in filter(None, names.values()):
        drives.check(_KIND, each)
    if names["pflash1"] and not names["pflash0"]:
        raise QMPError("pflash1 requires pflash0")
    left, address = given.get("max-fw-size", 8 << 20), _TOP
    for name, drive in names.items():
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
        chip, own = _add_chip(machine, standin, name), _SHOWN[name]
        machine.made(chip)
        chip.values["num-blocks"] = size // _SECTOR
        chip.set_property("drive", drive)
        drives.attach(drive, _KIND, f"/machine/{own}", {})
        region = MemoryRegion(tree, size)
        region.place(tree.resolve("/machine/unattached/system[0]"), address)
        chip.add_child(f"{own}[0]", region)
        chip.realized = True


def _alias(name: str, chip: SystemDevice) -> Property:
    """A machine's property that is the drive of a chip."""
    return Property(
        name,
        "str",
        visit=visit_str,
        get=lambda machine: chip.get_property("drive"),
        set=lambda machine, value: chip.set_property("drive", value),
    )
