"""The types of devices and buses, as QEMU 10.0.2 and 11.1.3 list them.

Most properties of PCI devices mean nothing here, and are kept so that clients
can set and read them.
"""

from __future__ import annotations

from collections.abc import Iterator

from memd.compat import Compat
from memd.devices.area import ANYWHERE
from memd.devices.bus import ANY_PLACE, visit_place
from memd.devices.device import (
    DEVICE,
    Row,
    memdev_property,
    stored,
    switches,
    unless_realized,
)
from memd.devices.dimm import dimm_types
from memd.devices.machine import Device
from memd.devices.pci import ANY_VECTORS, PciDevice
from memd.devices.placeholders import placeholder_types
from memd.devices.virtio_mem import virtio_mem_properties
from memd.devices.virtio_pci import AliasProperty, ChildProperty
from memd.errors import QMPError
from memd.json_types import JSON
from memd.qom import INTERFACE, ObjectType, Property

_PCI: tuple[Row, ...] = (
    ("acpi-index", "uint32", 0),
    ("failover_pair_id", "str", ""),
    ("multifunction", "bool", False),
    ("rombar", "int32", -1),
    ("romfile", "str", ""),
    ("romsize", "uint32", 0xFFFFFFFF),
    *switches(
        {
            "x-pcie-ari-nextfn-1": False,
            "x-pcie-err-unc-mask": True,
            "x-pcie-ext-tag": True,
            "x-pcie-lnksta-dllla": True,
        }
    ),
)
_PCI_10_0: tuple[Row, ...] = (("x-pcie-extcap-init", "bool", True),)
_PCI_11_1: tuple[Row, ...] = (("sriov-pf", "str", ""),)
_BOUNCE: Row = (
    "x-max-bounce-buffer-size",
    "size",
    4096,
    "Maximum buffer size allocated for bounce buffers used for mapped access to indirect DMA"
    " memory",
)
_MAX_BOUNCE = 0xFFFFFFFF
_VIRTIO_PCI = switches(
    {
        "aer": False,
        "ats": False,
        "modern-pio-notify": False,
        "page-per-vq": False,
        "virtio-pci-bus-master-bug-migration": False,
        "x-ats-page-aligned": True,
        "x-pcie-flr-init": True,
        "x-pcie-pm-no-soft-reset": False,
    }
)
_VIRTIO_PCI_10_0 = switches(
    {
        "migrate-extra": True,
        "x-disable-pcie": False,
        "x-ignore-backend-features": False,
        "x-pcie-deverr-init": True,
        "x-pcie-lnkctl-init": True,
        "x-pcie-pm-init": True,
    }
)
_VIRTIO_MEM_PCI: tuple[Row, ...] = (
    ("ioeventfd", "bool", True),
    ("vectors", "uint32", ANY_VECTORS),
)
_MODERN: tuple[Row, ...] = (
    ("disable-legacy", "OnOffAuto", "auto"),
    ("disable-modern", "bool", False),
)
_VIRTIO = switches(
    {
        "any_layout": True,
        "event_idx": True,
        "in_order": False,
        "indirect_desc": True,
        "iommu_platform": False,
        "notify_on_empty": True,
        "packed": False,
        "queue_reset": True,
        "use-disabled-flag": True,
        "use-started": True,
        "x-disable-legacy-check": False,
    }
)

_INTERFACES = (
    *("vmstate-if", "memory-device"),
    *("conventional-pci-device", "fw_cfg-data-generator", "pci-express-device"),
)


def _set_place(device: PciDevice, value: JSON) -> None:
    place = visit_place(value)
    if place is None:
        raise QMPError(f"Property '{device.qom_type.name}.addr' doesn't take value '{value}'")
    device.place = place


def _legacy_place(device: PciDevice) -> str:
    return f"{device.place >> 3:02x}.{device.place & 7:x}"


def _check_bounce(device: Device, size: int) -> None:
    if size > _MAX_BOUNCE:
        raise QMPError(
            f"Property {device.qom_type.name}.{_BOUNCE[0]} doesn't take value {size}"
            f" (maximum: {_MAX_BOUNCE})"
        )


def device_types(known: dict[str, ObjectType], compat: Compat) -> Iterator[ObjectType]:
    """The types of a QEMU release.

    Args:
        known: the types of the tree.
        compat: whose types.
    """
    later = compat is not Compat.V10_0
    for name in _INTERFACES:
        yield ObjectType(name, INTERFACE, abstract=True)
    yield from dimm_types(compat)
    pci, virtio_pci = _pci_types(later)
    yield pci
    yield virtio_pci
    yield from placeholder_types(pci, virtio_pci, map(stored, _VIRTIO), later=later)
    yield from _virtio_types(virtio_pci, later)


def _pci_types(later: bool) -> tuple[ObjectType, ObjectType]:
    """`pci-device`, and `virtio-pci` below it."""
    rows = (*_PCI, *(_PCI_11_1 if later else _PCI_10_0))
    pci = ObjectType(
        "pci-device",
        DEVICE,
        abstract=True,
        properties=(
            *map(stored, rows),
            stored(_BOUNCE, _check_bounce),
            Property(
                "addr",
                "str",
                guard=unless_realized("addr"),
                get=lambda device: device.place,
                set=_set_place,
                default=ANY_PLACE,
                description="Slot and optional function number, example: 06.0 or 06",
            ),
            Property("busnr", "busnr", get=lambda device: 0),
            *(() if later else (Property("legacy-addr", "str", get=_legacy_place),)),
        ),
    )
    rows = (*_VIRTIO_PCI, *(() if later else _VIRTIO_PCI_10_0))
    return pci, ObjectType("virtio-pci", pci, abstract=True, properties=map(stored, rows))


def _virtio_types(virtio_pci: ObjectType, later: bool) -> Iterator[ObjectType]:
    """The virtio devices that are memory, each with its PCI device."""
    legacy = () if later else (Property("legacy-memdev", "str"),)
    device = ObjectType("virtio-device", DEVICE, abstract=True, properties=map(stored, _VIRTIO))
    yield device
    manager = "ram-discard-source" if later else "ram-discard-manager"
    yield ObjectType(manager, INTERFACE, abstract=True)
    mem = ObjectType(
        "virtio-mem",
        device,
        interfaces=(manager,),
        properties=(*virtio_mem_properties(), *legacy),
    )
    pmem = ObjectType(
        "virtio-pmem",
        device,
        properties=(stored(("memaddr", "uint64", ANYWHERE)), memdev_property(), *legacy),
    )
    yield mem
    yield pmem
    memory = ObjectType("virtio-md-pci", virtio_pci, abstract=True, interfaces=("memory-device",))
    yield memory
    for half, own in ((mem, _VIRTIO_MEM_PCI), (pmem, ())):
        base = ObjectType(
            f"{half.name}-pci-base", memory, abstract=True, properties=map(stored, own)
        )
        yield base
        yield ObjectType(
            f"{half.name}-pci",
            base,
            interfaces=("conventional-pci-device", "pci-express-device"),
            properties=(
                *map(stored, _MODERN),
                ChildProperty(
                    "virtio-backend",
                    half.child_type,
                    get=lambda device: device.tree.path_of(device.virtio),
                ),
                *(
                    AliasProperty(origin)
                    for name, origin in half.all_properties.items()
                    if name not in DEVICE.all_properties
                ),
            ),
        )
