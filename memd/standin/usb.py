"""The ports of USB buses, and which device is at which.

Ports, speeds and texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from memd.devices.parts import Part, PciPart, parts_of
from memd.errors import QMPError
from memd.qom import QObject

if TYPE_CHECKING:
    from memd.devices.machine import Device
    from memd.qom.builtin_objects import Bus

USB_DEVICE = "usb-device"
"""The type of what is at a port."""

_ELSEWHERE = ("usb-host", "usb-redir", "usb-serial", "usb-braille")
"""Devices that are as far as the other end is, which is not looked for."""

WAITING = ("usb-bot", "usb-uas")
"""Devices with disks: one that comes later waits until it is told that it has them."""

_HUB = "usb-hub"
_FULL, _HIGH, _SUPER = "full", "high", "super"
_RATES = {_FULL: "12", _HIGH: "480", _SUPER: "5000"}
"""Mb/s of each speed, the slowest first."""

_HUB_PORTS, _OWN_XHCI_PORTS = 8, 8
_CHAIN = 5
"""How many hubs one behind the other there are at most."""

_COMPANION_PORTS = 2

_PRODUCTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "usb-kbd": ("QEMU USB Keyboard", (_FULL, _HIGH)),
    "usb-mouse": ("QEMU USB Mouse", (_FULL, _HIGH)),
    "usb-tablet": ("QEMU USB Tablet", (_FULL, _HIGH)),
    "usb-wacom-tablet": ("QEMU PenPartner Tablet", (_FULL,)),
    _HUB: ("QEMU USB Hub", (_FULL,)),
    "usb-storage": ("QEMU USB MSD", (_FULL, _HIGH, _SUPER)),
    "usb-bot": ("QEMU USB MSD", (_FULL, _HIGH, _SUPER)),
    "usb-uas": ("USB Attached SCSI HBA", (_HIGH, _SUPER)),
    "usb-ccid": ("QEMU USB CCID", (_FULL,)),
    "usb-serial": ("QEMU USB Serial", (_FULL,)),
    "usb-braille": ("QEMU USB Braille", (_FULL,)),
    "usb-net": ("QEMU USB Network Interface", (_FULL,)),
    "usb-audio": ("QEMU USB Audio Interface", (_FULL,)),
    "usb-mtp": ("QEMU USB MTP", (_FULL, _HIGH)),
    "usb-host": ("USB Host Device", ()),
    "usb-redir": ("USB Redirection Device", ()),
}
"""What devices call themselves, and their speeds; those of a host's device, or of one that is
elsewhere, are not known."""


class _Port:
    """A port.

    Attributes:
        path: its number, after those of the hubs that it is behind.
        speeds: those that it has.
    """

    def __init__(self, path: str, speeds: tuple[str, ...]) -> None:
        self.path = path
        self.speeds = speeds


class UsbPorts:
    """The ports of a bus.

    Args:
        bus: the bus; its controller is its parent.
        machine: the machine, which may have devices by itself.

    Attributes:
        controller: what the bus is in.
    """

    def __init__(self, bus: Bus, machine: QObject) -> None:
        self._bus = bus
        controller = self.controller = bus.parent
        assert controller is not None
        values = getattr(controller, "values", {})
        speeds: tuple[str, ...] = (_FULL,)
        match controller.qom_type.name:
            case "sysbus-xhci":
                number, speeds = _OWN_XHCI_PORTS, (_FULL, _HIGH, _SUPER)
            case kind if "xhci" in kind:
                number = max(values.get(each, 4) for each in ("p2", "p3"))
                speeds = (_FULL, _HIGH, _SUPER)
            case kind if "ehci" in kind:
                # A machine's own has companions.
                number, speeds = 6, (_FULL, _HIGH) if isinstance(controller, PciPart) else (_HIGH,)
            case kind if "ohci" in kind:
                number = values.get("num-ports", 3)
            case _:
                number = 2
        self._roots = [_Port(str(each + 1), speeds) for each in range(number)]
        self._free = [*self._roots]
        # In the order in which they came; a hub that comes by itself is no device, but its port.
        self._taken: dict[Device | _Port, _Port] = {}
        for part in parts_of(machine):
            if isinstance(part, Part) and part.bus is bus:
                self.claim(part)

    def add_companion(self, first: int) -> None:
        """A controller for slower devices shares two ports of this one's.

        Args:
            first: which ones.

        Raises:
            QMPError: it can't.
        """
        if _HIGH not in self._roots[0].speeds or _SUPER in self._roots[0].speeds:
            raise QMPError(
                f"Can't use USB bus '{self._bus.name}' as masterbus, it doesn't support companion"
                " controllers"
            )
        last = len(self._roots) - _COMPANION_PORTS
        if first > last:
            raise QMPError(f"firstport must be between 0 and {last}")
        for each in self._roots[first : first + _COMPANION_PORTS]:
            each.speeds = (_FULL, _HIGH)

    def claim(self, device: Device) -> None:
        """Have a device take the port that it names, or the next one; raises `QMPError`."""
        free, kind, path = self._free, device.qom_type.name, device.values.get("port")
        if not path and len(free) == 1 and kind != _HUB and _FULL in free[0].speeds:
            self._taken[free[0]] = free[0]
            self._open_hub(free.pop(), _HUB_PORTS)
        port = next((each for each in free if path in (None, "", each.path)), None)
        if port is None and path:
            raise QMPError(f"usb port {path} (bus {self._bus.name}) not found (in use?)")
        if port is None:
            raise QMPError(
                f"tried to attach usb device {_product(device)[0]} to a bus with no free ports"
            )
        free.remove(port)
        self._taken[device] = port
        if kind == _HUB:
            if port.path.count(".") == _CHAIN:
                raise QMPError("usb hub chain too deep")
            self._open_hub(port, device.values.get("ports", _HUB_PORTS))

    def _open_hub(self, at: _Port, number: int) -> None:
        self._free += [_Port(f"{at.path}.{each + 1}", (_FULL,)) for each in range(number)]

    def path(self, device: Device) -> str:
        """The number of a device's port, after those of the hubs that it is behind."""
        return self._taken[device].path

    def check(self, device: Device) -> None:
        """Raise `QMPError` where a device and its port have no speed in common."""
        version = device.values.get("usb_version")
        if version not in (None, 1, 2):
            raise QMPError(f"Invalid usb version {version} for usb hid device")
        (name, speeds), port = _product(device), self._taken[device]
        if speeds and not set(speeds) & set(port.speeds):
            raise QMPError(
                f'Warning: speed mismatch trying to attach usb device "{name}"'
                f' ({"+".join(speeds)} speed) to bus "{self._bus.name}", port "{port.path}"'
                f" ({'+'.join(port.speeds)} speed)"
            )

    def release(self, device: Device) -> None:
        """The port of a device is free again, and a hub's are gone."""
        port = self._taken.pop(device, None)
        if port is not None:
            behind = f"{port.path}."
            self._free = [each for each in self._free if not each.path.startswith(behind)]
            self._free.append(port)

    def lines(self, number: int) -> Iterator[str]:
        """The lines of `info usb`, of a bus of that number."""
        for key, port in self._taken.items():
            device = None if isinstance(key, _Port) else key
            name, speeds = _PRODUCTS[_HUB] if device is None else _product(device)
            rate = "12" if speeds else "1.5"
            if device is None or is_attached(device):
                rate = next(
                    (_RATES[each] for each in reversed(speeds) if each in port.speeds), rate
                )
            id = "" if device is None or device.id is None else f", ID: {device.id}"
            yield f"  Device {number}.0, Port {port.path}, Speed {rate} Mb/s, Product {name}{id}"


def is_attached(device: Device) -> bool:
    """Whether a device is at its port; one with disks that are plugged in later waits."""
    kind = device.qom_type.name
    waits = kind in _ELSEWHERE and not device.values.get("always-plugged")
    waits = waits or (device.hotplugged and kind in WAITING)
    return device.realized and bool(device.values.get("attached", not waits))


def _product(device: Device) -> tuple[str, tuple[str, ...]]:
    """What a device calls itself, and its speeds."""
    kind = device.qom_type.name
    name, speeds = _PRODUCTS.get(kind, (kind, ()))
    return name, speeds[:1] if device.values.get("usb_version") == 1 else speeds
