"""The PCI devices of a stand-in as clients are told: as in a machine whose firmware has not run.

Addresses, interrupts and buses behind bridges are given by firmware; before that
devices behind bridges are not seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from memd.devices.device import peripherals
from memd.devices.pci import PciDevice
from memd.json_types import JSON, JSONObject

if TYPE_CHECKING:
    from memd.devices.machine import Machine
    from memd.standin.catalogue import Catalogue


def pci_buses(machine: Machine, catalogue: Catalogue) -> list[JSON]:
    """The value of `query-pci`."""
    answers = catalogue.section("answers")
    recorded = answers.get(machine.config.type, answers["none"]).get("query-pci", {})
    buses: list[JSON] = recorded.get("return", [])
    if not buses:
        return []
    rows = [*buses[0]["devices"], *_rows(machine, catalogue.section("devices"))]
    return [
        {**buses[0], "devices": sorted(rows, key=lambda row: (row["slot"], row["function"]))},
        *buses[1:],
    ]


def _rows(machine: Machine, known: JSONObject) -> Iterator[JSONObject]:
    for device in peripherals(machine.tree):
        if not isinstance(device, PciDevice) or device.bus.name not in ("pcie.0", "pci.0"):
            continue
        row = known.get(device.qom_type.name, {}).get("pci")
        if row is not None:
            slot, function = divmod(device.place, 8)
            place = {"bus": 0, "slot": slot, "function": function}
            yield {**row, **place, "qdev_id": device.id or ""}


def pci_lines(buses: list[JSON]) -> Iterator[str]:
    """The lines of `info pci`."""
    for bus in buses:
        for row in bus["devices"]:
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
