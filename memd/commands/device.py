"""Memory devices, which need a machine: what QEMU's machine `none` answers.

Texts and their order were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

from typing import Any

from memd.commands.daemon import Daemon
from memd.errors import QMPError, device_not_found
from memd.outcome import JSON

_DIMMS = ("nvdimm", "pc-dimm")
_ON_PCI = ("virtio-mem-pci", "virtio-pmem-pci")


def device_add(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """Raise `QMPError`: there is no machine to add a device to."""
    driver = args.get("driver")
    # The command reads its arguments itself, and a number is no driver at all.
    if type(driver) is not str:
        raise QMPError("Parameter 'driver' is missing")
    if driver not in _DIMMS and driver not in _ON_PCI:
        raise QMPError(f"'{driver}' is not a valid device model name")
    bus = args.get("bus")
    if type(bus) is str:
        raise QMPError(f"Bus '{bus}' not found")
    if driver in _ON_PCI:
        raise QMPError(f"No 'PCI' bus found for device '{driver}'")
    raise QMPError(f"Device '{driver}' can not be hotplugged on this machine")


def device_del(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """Raise `QMPError`: there is no device to remove."""
    raise device_not_found(f"Device '{args['id']}' not found")


def query_memory_devices(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """The memory devices: none."""
    return []


def query_memory_size_summary(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """The machine's memory in bytes: it has none."""
    return {"base-memory": 0, "plugged-memory": 0}
