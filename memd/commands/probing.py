"""Queries by which management software probes a QEMU: machines, CPUs, storage, options.

Without a machine memd has none of these, and answers as QEMU does then (observed on
QEMU 10.0.2 and 11.1.3).
"""

from __future__ import annotations

import os

from memd.commands.daemon import Daemon
from memd.commands.machine import query_target
from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.qom.topology import ONE_CPU
from memd.work import Event, Outcome


def query_machines(daemon: Daemon, args: JSONObject) -> JSON:
    """The machines of this host's architecture; where it has none here, all there are."""
    from memd.devices.kinds import machine_kinds

    kinds = machine_kinds(daemon.compat)
    target = query_target(daemon, {})["arch"]
    # libvirt drops a binary that names no machine but `none`.
    if target not in (kind.target for kind in kinds):
        target = None
    found: list[JSONObject] = []
    for kind in kinds:
        if target is not None and kind.target not in ("", target):
            continue
        row: JSONObject = {
            "name": kind.name,
            "cpu-max": kind.most_cpus,
            "hotpluggable-cpus": kind.hotpluggable_cpus,
            "numa-mem-supported": False,
            "deprecated": False,
            "acpi": bool(kind.cpu_type),
        }
        if kind.ram_id:
            row["default-ram-id"] = kind.ram_id
        if kind.cpu_type:
            row["default-cpu-type"] = kind.cpu_type
        if kind.kind != kind.name:
            row["alias"] = kind.kind
        if args.get("compat-props"):
            row["compat-props"] = []
        found.append(row)
    return found


def query_cpus_fast(daemon: Daemon, args: JSONObject) -> JSON:
    """The CPUs that the machine was given; this process's main thread stands for each."""
    if daemon.machine_kind is None or not daemon.machine_kind.cpu_type:
        return []
    from memd.devices.machine_object import cpus

    kind = daemon.machine_kind
    rows = []
    for cpu in cpus(daemon.tree):
        row: JSONObject = {
            "cpu-index": cpu.number,
            "qom-path": daemon.tree.path_of(cpu),
            "thread-id": os.getpid(),
            "props": cpu.props,
            "target": kind.target,
        }
        if daemon.compat is not Compat.V10_0:
            row["qom-type"] = daemon.machine.config.cpu_type or kind.cpu_type
        rows.append(row)
    return rows


def query_hotpluggable_cpus(daemon: Daemon, args: JSONObject) -> JSON:
    """The CPUs that there could be, the last first.

    Raises:
        QMPError: the machine takes no CPUs while it runs.
    """
    kind = daemon.machine_kind
    if kind is None or not kind.hotpluggable_cpus:
        raise QMPError("machine does not support hot-plugging CPUs")
    from memd.devices.machine_object import cpu_places, cpus

    present = {cpu.number: cpu for cpu in cpus(daemon.tree)}
    rows = []
    config = daemon.machine.config
    for number, props in enumerate(cpu_places(kind, config)):
        if daemon.nodes is not None:
            # Where no node is named, the machine will choose one.
            node = daemon.nodes.assigned.get(number)
            props.pop("node-id", None)
            props |= {} if node is None else {"node-id": node}
        row = {"type": config.cpu_type or kind.cpu_type, "vcpus-count": 1, "props": props}
        if number in present:
            row["qom-path"] = daemon.tree.path_of(present[number])
        rows.append(row)
    return rows[::-1]


def query_accelerators(daemon: Daemon, args: JSONObject) -> JSON:
    """The accelerators that QEMU knows, and the one in use (QEMU 11.1)."""
    return {"enabled": daemon.accel, "present": ["kvm", "mshv", "qtest", "tcg"]}


def device_list_properties(daemon: Daemon, args: JSONObject) -> JSON:
    """The properties of a class of devices that can be set when one is made."""
    from memd.devices.device import settable_properties

    return [each.info() for each in settable_properties(daemon.tree, args["typename"])]


async def x_exit_preconfig(daemon: Daemon, args: JSONObject) -> JSON:
    """End the state of `--preconfig`, and run unless `-S` was given too.

    Raises:
        QMPError: it has ended; or the machine can't be made, which ends the daemon.
    """
    complete, daemon.complete = daemon.complete, None
    if not daemon.preconfig or (complete is None and daemon.nodes is not None):
        raise QMPError("The command is permitted only before machine initialization")
    if complete is not None:
        try:
            await complete()
        except QMPError as error:
            daemon.fail(error.desc)
            raise
        daemon.nodes = None
    daemon.preconfig = False
    if not daemon.autostart:
        return {}
    daemon.run_state = "running"
    return Outcome(events=(Event("RESUME"),))


_OPTIONS: dict[str, dict[str, str]] = {
    "chardev": {
        "backend": "string",
        "path": "string",
        "host": "string",
        "port": "string",
        "fd": "string",
        "ipv4": "boolean",
        "ipv6": "boolean",
        "wait": "boolean",
        "server": "boolean",
        "tls-creds": "string",
    },
    "mon": {"mode": "string", "chardev": "string", "pretty": "boolean"},
    "name": {"guest": "string", "process": "string", "debug-threads": "boolean"},
    # Their parameters are the types' own; QEMU lists none either.
    "object": {},
    "device": {},
    "numa": {},
    "memory": {"size": "size", "slots": "number", "maxmem": "size"},
    "smp-opts": dict.fromkeys(ONE_CPU, "number"),
}
"""Option to parameter to its QAPI `CommandLineParameterType`."""


def query_command_line_options(daemon: Daemon, args: JSONObject) -> JSON:
    """The parameters of one option, or of all."""
    option = args.get("option")
    if option is not None and option not in _OPTIONS:
        raise QMPError(f"invalid option name: {option}")
    return [
        {
            "option": name,
            "parameters": [{"name": key, "type": kind} for key, kind in parameters.items()],
        }
        for name, parameters in _OPTIONS.items()
        if option is None or option == name
    ]
