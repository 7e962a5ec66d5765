"""Commands about memory devices, the machine that they are plugged into, and its balloon.

The balloon answers as that of a QEMU whose guest has no driver for it: management software
puts one into every machine and sets it at the start. Texts and their order were observed on
QEMU 10.0.2.
"""

from __future__ import annotations

from memd.commands.daemon import Daemon
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject


async def device_add(daemon: Daemon, args: JSONObject) -> JSON:
    """`device_add`: plug a device in."""
    from memd.devices.adding import add_device

    await add_device(daemon.machine, args)
    return {}


def balloon(daemon: Daemon, args: JSONObject) -> JSON:
    """Ask a guest that there is not for memory."""
    _check(daemon)
    if args["value"] <= 0:
        raise QMPError("Parameter 'value' expects a size")
    return {}


def query_balloon(daemon: Daemon, args: JSONObject) -> JSON:
    """The machine's memory and its DIMMs', in bytes: nothing of it was given back."""
    _check(daemon)
    dimms = (row["data"]["size"] for row in daemon.machine.devices() if row["type"] == "dimm")
    return {"actual": daemon.machine.memory_summary()["base-memory"] + sum(dimms)}


def _check(daemon: Daemon) -> None:
    """Raise `QMPError` where the machine has no balloon device."""
    from memd.devices.placeholders import has_balloon

    if not has_balloon(daemon.tree):
        raise QMPError("No balloon device has been activated", "DeviceNotActive")
