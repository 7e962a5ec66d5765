"""What a management stack asks of every QEMU: machines, CPUs, storage, threads.

memd has none of these, and says so as a QEMU without a machine does (observed
on QEMU 10.0.2 and 11.1.3).
"""

from __future__ import annotations

from typing import Any

from memd.commands.daemon import Daemon
from memd.commands.machine import accelerator_is_usable
from memd.errors import QMPError, device_not_found
from memd.outcome import JSON, Event, Outcome

_MACHINES: tuple[dict[str, JSON], ...] = (
    {
        "name": "none",
        "cpu-max": 1,
        "hotpluggable-cpus": False,
        "numa-mem-supported": False,
        "deprecated": False,
        "default-ram-id": "ram",
        "acpi": False,
    },
    # Never run here. libvirt drops a binary that names no machine but `none`.
    {
        "name": "q35",
        "cpu-max": 1,
        "hotpluggable-cpus": False,
        "numa-mem-supported": False,
        "deprecated": False,
        "default-ram-id": "pc.ram",
        "acpi": False,
    },
)


def query_machines(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """The machine `none`, and one for who needs a name."""
    if args.get("compat-props"):
        return [{**machine, "compat-props": []} for machine in _MACHINES]
    return list(_MACHINES)


def query_cpus_fast(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """The CPUs: none."""
    return []


def query_hotpluggable_cpus(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """Raise `QMPError`, as on any machine that takes no CPUs."""
    raise QMPError("machine does not support hot-plugging CPUs")


def query_iothreads(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """The I/O threads: none."""
    return []


def query_block(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """The block devices: none."""
    return []


def query_named_block_nodes(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """The block nodes: none."""
    return []


def set_action(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """Take note of nothing: no guest will ever do what there is an action for."""
    return {}


def query_accelerators(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """What there is to run guests with, and what was chosen (QEMU 11.1)."""
    present = [name for name in ("kvm", "mshv") if accelerator_is_usable(name)]
    return {"enabled": daemon.accel, "present": [*present, "qtest", "tcg"]}


def device_list_properties(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """The properties of a class of devices, of which there are none."""
    name = args["typename"]
    found = daemon.tree.type_by_name(name)
    if found is None:
        raise device_not_found(f"Device '{name}' not found")
    if not found.is_a("device") or found.abstract:
        raise QMPError("Parameter 'typename' expects a non-abstract device type")
    return [{"name": prop.name, "type": prop.type} for prop in found.all_properties.values()]


def x_exit_preconfig(daemon: Daemon, args: dict[str, Any]) -> JSON:
    """End the state of `--preconfig`, and run unless `-S` was given too."""
    if not daemon.preconfig:
        raise QMPError("The command is permitted only before machine initialization")
    daemon.preconfig = False
    if not daemon.autostart:
        return {}
    daemon.run_state = "running"
    return Outcome(events=(Event("RESUME"),))
