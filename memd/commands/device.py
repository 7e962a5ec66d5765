"""Commands about memory devices, and the machine that they are plugged into."""

from __future__ import annotations

from memd.commands.daemon import Daemon
from memd.json_types import JSON, JSONObject


async def device_add(daemon: Daemon, args: JSONObject) -> JSON:
    """`device_add`: plug a device in."""
    from memd.devices.adding import add_device

    await add_device(daemon.machine, args)
    return {}


def device_del(daemon: Daemon, args: JSONObject) -> JSON:
    """`device_del`: ask the guest to release a device."""
    return daemon.machine.del_device(args["id"])


def query_memory_devices(daemon: Daemon, args: JSONObject) -> JSON:
    """The memory devices, by address."""
    return daemon.machine.devices()


def query_memory_size_summary(daemon: Daemon, args: JSONObject) -> JSON:
    """The machine's memory in bytes."""
    return daemon.machine.memory_summary()
