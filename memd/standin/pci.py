"""The PCI devices of a stand-in as clients are told, before and after firmware has run.

Firmware numbers the buses behind bridges; before that, what is behind them is not
seen. Addresses and interrupts are given to nobody: in that every device is as one
that was plugged in later, which waits for its guest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from memd.compat import Compat
from memd.devices.parts import PCI_HALF, PciPart, parts_of
from memd.devices.pci import PciDevice
from memd.json_types import JSON, JSONObject
from memd.qom import QObject
from memd.standin.virtual_functions import VirtualFunction

if TYPE_CHECKING:
    from memd.devices.machine import Machine
    from memd.standin.standin import StandIn

Rows = dict[tuple[int, int], JSONObject]
"""Rows of `query-pci`, by slot and function."""

_LAST_BUS = 255

_TOLD_BY_NETWORKS = ("mq", "host_mtu", "rss", "hash", "duplex")
"""Properties of a virtio network device that it tells of."""

_MSIX_BAR = 1
"""The region of a virtio device's interrupt vectors."""

_ROM_BAR = 6
"""That of what the firmware runs of a device's."""

_MODERN_BAR = 4
"""That of a virtio device's modern interface."""

_UNRECORDED: dict[str, tuple[int, int | None, JSONObject]] = {
    # The number of the virtio device, that of a legacy one on PCI, its class.
    "vhost-user-blk-pci": (2, 0x1001, {"class": 0x100, "desc": "SCSI controller"}),
    "vhost-vsock-pci": (19, None, {"class": 0x780}),
    "virtio-sound-pci": (25, None, {"class": 0x401, "desc": "Audio controller"}),
    "vhost-user-fs-pci": (26, None, {"class": 0x180, "desc": "Storage controller"}),
}
"""Devices that need what no QEMU was given that a catalogue was recorded of."""


_IDS = {"piix4-isa": 0x7110, "piix4-ide": 0x7111}
"""The numbers of parts that no recorded machine has, and another one in their places."""

_GPEX: JSONObject = {
    "bus": 0,
    "slot": 0,
    "function": 0,
    "qdev_id": "",
    "irq_pin": 0,
    "class_info": {"class": 0x600, "desc": "Host bridge"},
    "id": {"vendor": 0x1B36, "device": 8, "subsystem-vendor": 0x1AF4, "subsystem": 0x1100},
    "regions": [],
}
"""The host bridge of machines that a catalogue has not recorded."""


_PCI_HALF: JSONObject = {
    "irq_pin": 0,
    "class_info": {"class": 0x806},
    "id": {"vendor": 0x1022, "device": 0x1419, "subsystem-vendor": 0x1AF4, "subsystem": 0x1100},
    "regions": [],
}
"""The device that an `amd-iommu` brings along."""


def pci_buses(machine: Machine, standin: StandIn, *, numbered: bool) -> list[JSON]:
    """The value of `query-pci`.

    Args:
        numbered: whether firmware has run: it numbers the buses behind the bridges that
            it finds.
    """
    if machine.buses.pci is None:
        return []
    buses: list[JSON] = (standin.recorded("query-pci") or {}).get("return") or [{}]
    standing = {(row["slot"], row["function"]): row for row in buses[0].get("devices", ())}
    known = standin.catalogue.section("devices")
    on: dict[QObject | None, list[PciDevice]] = {}
    for device in parts_of(machine.tree.machine):
        if isinstance(device, PciDevice):
            on.setdefault(device.bus, []).append(device)
    last = 0

    def rows(bus: QObject | None, number: int) -> Iterator[JSONObject]:
        nonlocal last
        for device in sorted(on.get(bus, ()), key=lambda device: device.place):
            slot, function = divmod(device.place, 8)
            place = {"bus": number, "slot": slot, "function": function}
            row = {**_row(device, known, standing), **place, "qdev_id": device.id or ""}
            bridge = row.get("pci_bridge")
            if bridge and numbered and not device.hotplugged and last < _LAST_BUS:
                last = secondary = last + 1
                behind = [*rows(device.children.get(device.id or ""), secondary)]
                its = {"number": number, "secondary": secondary, "subordinate": last}
                row["pci_bridge"] = {"bus": {**bridge["bus"], **its}, "devices": behind}
            yield row

    first = [] if machine.config.type not in ("virt", "microvm") else [_GPEX]
    return [{"bus": 0, "devices": [*first, *rows(machine.buses.pci, 0)]}]


def _row(device: PciDevice, known: JSONObject, standing: Rows) -> JSONObject:
    """What is told of a device wherever it is.

    Args:
        known: the devices of the catalogue.
        standing: the rows of a recorded machine, by slot and function.
    """
    name = device.qom_type.name
    if isinstance(device, VirtualFunction):
        own = known[device.of]["pci"]
        id = {**own["id"], "vendor": 0xFFFF, "device": 0xFFFF}
        # QEMU 10.0 looks at registers that a virtual function does not have.
        wide = device.tree.compat is not Compat.V10_0
        regions = [
            _region_row(bar, size, wide=wide, prefetch=wide and prefetch)
            for bar, size, prefetch in device.regions
        ]
        return {"class_info": own["class_info"], "id": id, "irq_pin": 0, "regions": regions}
    if name == PCI_HALF:
        return _PCI_HALF
    if isinstance(device, PciPart) and not known.get(name, {}).get("pci"):
        found: JSONObject = standing[divmod(device.place, 8)]
        return {**found, "id": {**found["id"], "device": _IDS.get(name, found["id"]["device"])}}
    legacy = device.values.get("disable-legacy", "auto")
    modern = legacy == "on" or (legacy == "auto" and device.on_port)
    for kind in (f"{name}-non-transitional", name) if modern else (name,):
        row: JSONObject | None = known.get(kind, {}).get("pci")
        if row is not None:
            return _as_given(device, row)
    general = re.sub("(-non)?-transitional$", "", name)
    if general not in _UNRECORDED:
        nobody = {"vendor": 0xFFFF, "device": 0xFFFF}
        return {"class_info": {"class": 255}, "id": nobody, "irq_pin": 0, "regions": []}
    number, old, kind_of = _UNRECORDED[general]
    regions = [_region_row(1, 4096), _region_row(4, 16384, wide=True, prefetch=True)]
    id = {"device": 0x1040 + number, "subsystem": 0x1100}
    if old is not None and not modern and not name.endswith("-non-transitional"):
        regions.insert(0, {"bar": 0, "size": 32, "address": -1, "type": "io"})
        id = {"device": old, "subsystem": number}
    vendors = {"vendor": 0x1AF4, "subsystem-vendor": 0x1AF4}
    return {"class_info": kind_of, "id": id | vendors, "irq": 0, "irq_pin": 1, "regions": regions}


def _as_given(device: PciDevice, row: JSONObject) -> JSONObject:
    """A row as properties of the device change it."""
    name, given = device.qom_type.name, device.values
    if name == "pci-bridge" and given.get("shpc") is False:
        return {**{each: row[each] for each in row if each != "irq"}, "irq_pin": 0, "regions": []}
    gone = [_ROM_BAR] * (given.get("romfile") == "" or given.get("rombar") == 0)
    if name.startswith("virtio-"):
        gone += [_MSIX_BAR] * (given.get("vectors") == 0)
        gone += [_MODERN_BAR] * bool(given.get("disable-modern"))
    regions = [each for each in row["regions"] if each["bar"] not in gone]
    if name.startswith("virtio-net-") and (
        any(map(given.get, _TOLD_BY_NETWORKS)) or given.get("speed", -1) >= 0
    ):
        # It tells of more than its address and its state, which takes the next size.
        regions = [{**each, "size": 64} if each["type"] == "io" else each for each in regions]
    return {**row, "regions": regions}


def _region_row(bar: int, size: int, *, wide: bool = False, prefetch: bool = False) -> JSONObject:
    where = {"bar": bar, "size": size, "address": -1, "type": "memory"}
    return {**where, "mem_type_64": wide, "prefetch": prefetch}


def pci_lines(buses: list[JSON]) -> Iterator[str]:
    """The lines of `info pci`."""
    for bus in buses:
        yield from _device_lines(bus["devices"])


def _device_lines(rows: list[JSON]) -> Iterator[str]:
    for row in rows:
        yield f"  Bus {row['bus']:2}, device {row['slot']:3}, function {row['function']}:"
        kind, id = row["class_info"], row["id"]
        what = kind.get("desc") or f"Class {kind['class']:04}"
        yield f"    {what}: PCI device {id['vendor']:04x}:{id['device']:04x}"
        if "subsystem" in id:
            subsystem = f"{id['subsystem-vendor']:04x}:{id['subsystem']:04x}"
            yield f"      PCI subsystem {subsystem}"
        if "irq" in row:
            yield f"      IRQ {row['irq']}, pin {chr(ord('A') + row['irq_pin'] - 1)}"
        if "pci_bridge" in row:
            yield from _bridge(row["pci_bridge"]["bus"])
        for region in row["regions"]:
            yield f"      BAR{region['bar']}: {_region(region)} (not mapped)"
        yield f'      id "{row["qdev_id"]}"'
        yield from _device_lines(row.get("pci_bridge", {}).get("devices", []))


def _bridge(bus: JSONObject) -> Iterator[str]:
    yield f"      BUS {bus['number']}."
    yield f"      secondary bus {bus['secondary']}."
    yield f"      subordinate bus {bus['subordinate']}."
    for what, name, digits in (
        ("IO", "io", 4),
        ("memory", "memory", 8),
        ("prefetchable memory", "prefetchable", 8),
    ):
        between = bus[f"{name}_range"]
        base, limit = (f"0x{between[each]:0{digits}x}" for each in ("base", "limit"))
        yield f"      {what} range [{base}, {limit}]"


def _region(region: JSONObject) -> str:
    if region["type"] == "io":
        return "I/O"
    bits = 64 if region["mem_type_64"] else 32
    return f"{bits} bit{' prefetchable' if region['prefetch'] else ''} memory"
