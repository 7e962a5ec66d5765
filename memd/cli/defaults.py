"""What a machine has that is not told otherwise: ports, drives without a medium, a display
adapter and a network.

Observed on QEMU 10.0.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from memd.cli.reading import Given
from memd.config import StartCommand

_PCS = ("pc", "q35", "isapc")
_PORTS = (*_PCS, "microvm", "x-remote")
"""The machines with a serial and a parallel port, whether or not they have devices for them."""

_DRIVES = {
    "cdrom": {
        **{name: {"if": "ide", "index": "2", "media": "cdrom"} for name in _PCS},
        **{
            name: {"if": "none", "index": "2", "media": "cdrom"} for name in ("microvm", "x-remote")
        },
    },
    "floppy": {name: {"if": "floppy", "index": "0"} for name in ("pc", "isapc", "x-remote")},
}
"""The place of each drive, by the machines that have it."""

_DISPLAYS = {"pc": "std", "q35": "std", "isapc": "cirrus"}
"""The display adapter of each machine."""

_NETWORK = ("nic", "user")
"""What is on the first hub: a device, where the machine makes it one, and a backend."""

_INSTEAD = {
    "isa-serial": "serial",
    "isa-parallel": "parallel",
    **dict.fromkeys(("floppy", "isa-fdc"), "floppy"),
    **dict.fromkeys(("ide-cd", "ide-hd", "scsi-cd", "scsi-hd"), "cdrom"),
    **dict.fromkeys(("VGA", "isa-vga", "cirrus-vga", "isa-cirrus-vga", "vmware-svga"), "vga"),
    **dict.fromkeys(("qxl-vga", "virtio-vga", "ati-vga", "vhost-user-vga"), "vga"),
    **dict.fromkeys(("virtio-vga-gl", "virtio-vga-rutabaga"), "vga"),
}
"""The devices that a command line has instead of something."""


def default_ports(
    given: Sequence[Given], machine: str, drivers: Iterable[str], *, monitor: bool
) -> list[Given]:
    """The options for the ports of a machine whose command line names none.

    Args:
        given: the options of the command line.
        machine: the machine.
        drivers: the types of the devices of the command line.
        monitor: whether it has a monitor.
    """
    names = _named(given, drivers)
    if "nodefaults" in names or machine not in _PORTS:
        return []
    serial, parallel = "vc", "vc"
    if "nographic" in names:
        serial, parallel = "stdio" if monitor else "mon:stdio", "null"
    ports = {"serial": serial, "parallel": parallel}
    return [Given(name, value, "") for name, value in ports.items() if name not in names]


def default_parts(
    given: Sequence[Given], machine: str, drivers: Iterable[str]
) -> Iterator[StartCommand]:
    """The commands that add the rest of what a machine has; see `default_ports`."""
    names = _named(given, drivers)
    if "nodefaults" in names or machine == "virt":
        return
    for name, places in _DRIVES.items():
        if name not in names and machine in places:
            yield StartCommand("default-drive", places[machine])
    if "vga" not in names and machine in _DISPLAYS:
        yield StartCommand("vga", {"type": _DISPLAYS[machine]})
    if names.isdisjoint(("net", "netdev", "nic")):
        for kind in _NETWORK:
            yield StartCommand("default-net", {"pairs": [("type", kind)]})


def _named(given: Iterable[Given], drivers: Iterable[str]) -> set[str]:
    """The names of the options, and what the command line has its own devices for."""
    return {each.name for each in given} | {_INSTEAD.get(each, "") for each in drivers}
