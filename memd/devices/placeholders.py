"""Devices that management software puts into every machine, and that are but names here.

A `pcie-root-port` and a `pci-bridge` are buses that devices can be plugged into
while the machine runs; a `qemu-xhci` and a `virtio-balloon-pci` do nothing at all. What they are
given is kept and means nothing. All come from the command line, and stay.
Names, defaults and texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from memd.devices.device import Row, peripherals, stored, switches
from memd.devices.machine import Device, Machine
from memd.devices.pci import ANY_VECTORS, GuestsPciDevice, open_bus, vectors
from memd.errors import QMPError
from memd.qapi.visit import visit_int64
from memd.qom import ObjectType, Property, Tree

ROOT_PORT = "pcie-root-port"

_UNLIMITED = (1 << 64) - 1

_ANY_PCI = ("conventional-pci-device", "pci-express-device")

# What a port derives from: name, interfaces and properties.
_ABOVE: tuple[tuple[str, tuple[str, ...], tuple[Row, ...]], ...] = (
    (
        "base-pci-bridge",
        ("acpi-dev-aml-interface",),
        (("x-pci-express-writeable-slt-bug", "bool", False),),
    ),
    ("pcie-port", (), (("port", "uint8", 0), ("aer_log_max", "uint16", 8))),
    (
        "pcie-slot",
        ("hotplug-handler",),
        (
            ("x-do-not-expose-native-hotplug-cap", "bool", False),
            ("hotplug", "bool", True),
            ("slot", "uint16", 0),
            ("chassis", "uint8", 0),
        ),
    ),
    (
        "pcie-root-port-base",
        ("pci-express-device",),
        (("power_controller_present", "bool", True), ("disable-acs", "bool", False)),
    ),
)
_RESERVES: tuple[Row, ...] = (
    ("mem-reserve", "size", _UNLIMITED),
    ("pref64-reserve", "size", _UNLIMITED),
    ("bus-reserve", "uint32", (1 << 32) - 1),
    ("io-reserve", "size", _UNLIMITED),
    ("pref32-reserve", "size", _UNLIMITED),
)
_ROOT_PORT: tuple[Row, ...] = (
    *_RESERVES,
    ("x-width", "PCIELinkWidth", "32"),
    ("x-migrate-msix", "bool", True),
    ("x-speed", "PCIELinkSpeed", "16"),
)
_BRIDGE: tuple[Row, ...] = (
    *_RESERVES,
    ("chassis_nr", "uint8", 0),
    ("msi", "OnOffAuto", "auto"),
    ("shpc", "bool", True),
)
# What QEMU 11.1 no longer has.
_GONE = ("disable-acs", "qemu-4-0-config-size", "x-migrate-msix")

_ANY_XHCI: tuple[Row, ...] = (
    ("msi", "OnOffAuto", "auto"),
    ("msix", "OnOffAuto", "auto"),
    ("conditional-intr-mapping", "bool", False),
)
_XHCI: tuple[Row, ...] = (
    ("p2", "uint32", 4),
    ("p3", "uint32", 4),
    ("streams", "bool", True),
)
_ANY_BALLOON: tuple[Row, ...] = (
    ("vectors", "uint32", (1 << 32) - 1),
    ("ioeventfd", "bool", True),
)
_BALLOON: tuple[Row, ...] = (
    *switches(
        {
            "free-page-reporting": False,
            "deflate-on-oom": False,
            "page-poison": True,
            "qemu-4-0-config-size": False,
            "free-page-hint": False,
        }
    ),
    ("disable-legacy", "OnOffAuto", "auto"),
    ("disable-modern", "bool", False),
)

_STATISTICS = (
    *("swap-in", "swap-out", "major-faults", "minor-faults", "free-memory", "total-memory"),
    *("available-memory", "disk-caches", "htlb-pgalloc", "htlb-pgfail", "oom-kills"),
    *("alloc-stalls", "async-scans", "direct-scans", "async-reclaims", "direct-reclaims"),
)


BALLOON = "virtio-balloon-pci-base"
"""The type of balloon devices."""


class Placeholder(GuestsPciDevice):
    """A PCI device that does nothing."""

    def realize(self, machine: Machine) -> None:
        """Take its place; raises `QMPError` where it can't have it."""
        self.take_place(machine)
        self.realized = True


class Usb(Placeholder):
    """A USB controller: of MSI and MSI-X it has the latter, where it may choose."""

    def realize(self, machine: Machine) -> None:
        super().realize(machine)
        if self.values.get("msi", "auto") == "auto":
            self.values["msi"] = "off"


class Balloon(Placeholder):
    """A virtio device: it is legacy too, unless it is in a port of PCI Express."""

    def realize(self, machine: Machine) -> None:
        super().realize(machine)
        self.values["vectors"] = vectors(self.values.get("vectors", ANY_VECTORS))
        if self.values.get("disable-legacy", "auto") == "auto":
            self.values["disable-legacy"] = "on" if self.on_port else "off"


_INTERVAL = "guest-stats-polling-interval"
"""Seconds after which its guest is asked for statistics, which it never gives."""


def _no_statistics(balloon: Device, value: object) -> None:
    raise QMPError("Property 'virtio-balloon-device.guest-stats' is not writable")


def _set_interval(balloon: Device, seconds: int) -> None:
    if seconds < 0:
        raise QMPError("timer value must be greater than zero")
    if seconds >= 1 << 32:
        raise QMPError("timer value is too big")
    balloon.values[_INTERVAL] = seconds


_GUEST_STATISTICS = (
    Property(
        "guest-stats",
        "guest statistics",
        get=lambda balloon: {
            "stats": {f"stat-{each}": _UNLIMITED for each in _STATISTICS},
            "last-update": 0,
        },
        set=_no_statistics,
    ),
    Property(
        _INTERVAL,
        "int",
        visit=visit_int64,
        get=lambda balloon: balloon.values.get(_INTERVAL, 0),
        set=_set_interval,
    ),
)


class RootPort(Placeholder):
    """A port, and the bus in it, which has its id as name."""

    def realize(self, machine: Machine) -> None:
        super().realize(machine)
        try:
            self.take_port_number(machine)
        except QMPError:
            self.bus.vacate(self.place)
            raise
        open_bus(self, machine)


class Bridge(Placeholder):
    """A bridge, and the bus behind it, which has its id as name."""

    def realize(self, machine: Machine) -> None:
        super().realize(machine)
        if not self.values.get("chassis_nr"):
            self.bus.vacate(self.place)
            raise QMPError(
                "Bridge chassis not specified. Each bridge is required to be assigned a unique"
                " chassis id > 0."
            )
        open_bus(self, machine)


def has_balloon(tree: Tree, besides: str = "") -> bool:
    """Whether a machine has a balloon device, besides that of a name."""
    return any(
        device.qom_type.is_a(BALLOON) and device.name != besides for device in peripherals(tree)
    )


PLACEHOLDERS: dict[str, type[Placeholder]] = {
    ROOT_PORT: RootPort,
    "pci-bridge": Bridge,
    "qemu-xhci": Usb,
    "virtio-balloon-pci": Balloon,
}
"""Such devices, by type."""


def placeholder_types(
    pci: ObjectType, virtio_pci: ObjectType, virtio: Iterable[Property], *, later: bool
) -> Iterator[ObjectType]:
    """These types, and those that they derive from.

    Args:
        pci: the type `pci-device`.
        virtio_pci: the type `virtio-pci`.
        virtio: what a virtio device has.
        later: whether they are QEMU 11.1's.
    """

    def left(rows: Iterable[Row]) -> list[Property]:
        return [stored(row) for row in rows if not (later and row[0] in _GONE)]

    above = pci
    for name, interfaces, rows in _ABOVE:
        above = ObjectType(name, above, abstract=True, interfaces=interfaces, properties=left(rows))
        yield above
        if name == "base-pci-bridge":
            yield ObjectType(
                "pci-bridge",
                above,
                interfaces=("conventional-pci-device", "hotplug-handler"),
                properties=left(_BRIDGE),
            )
    yield ObjectType(ROOT_PORT, above, properties=left(_ROOT_PORT))
    xhci = ObjectType(
        "pci-xhci", pci, abstract=True, interfaces=_ANY_PCI, properties=left(_ANY_XHCI)
    )
    yield xhci
    yield ObjectType("qemu-xhci", xhci, properties=left(_XHCI))
    # libvirt puts virtio devices on such ports only where this type is known.
    disk = ObjectType("virtio-blk-pci-base", virtio_pci, abstract=True)
    yield disk
    yield ObjectType("virtio-blk-pci-non-transitional", disk, interfaces=_ANY_PCI)
    balloon = ObjectType(BALLOON, virtio_pci, abstract=True, properties=left(_ANY_BALLOON))
    yield balloon
    yield ObjectType(
        "virtio-balloon-pci",
        balloon,
        interfaces=_ANY_PCI,
        properties=(*left(_BALLOON), *virtio, *_GUEST_STATISTICS),
    )
