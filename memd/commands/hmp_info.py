"""The human monitor's words that tell of the machine, and those that read and set properties.

What they print was observed on QEMU 10.0.2.
"""

from __future__ import annotations

import json
import os
from typing import Any

from memd.commands import balloon, chardev, probing, qom
from memd.commands.daemon import Daemon
from memd.commands.hmp_plug import Usage
from memd.errors import QMPError
from memd.json_types import JSON
from memd.wire import encode

_MIB = 1 << 20


def info_balloon(daemon: Daemon, rest: str) -> list[str]:
    """`info balloon`."""
    return [f"balloon: actual={balloon.query_balloon(daemon, {})['actual'] // _MIB}"]


def info_block(daemon: Daemon, rest: str) -> list[str]:
    """`info block [-n] [-v] [NODE]`: block nodes that a device uses, or all that have names."""
    words = rest.split()
    named = [word for word in words if not word.startswith("-")]
    lines: list[str] = []
    for device in [] if daemon.standin is None else daemon.standin.blocks.devices():
        node = device["inserted"]
        if named and node["node-name"] not in named:
            continue
        kind = node["drv"] + (", read-only" if node["ro"] else "")
        lines += [""] if lines else []
        lines.append(f"{node['node-name']}: {node['file']} ({kind})")
        lines.append(f"    Attached to:      {device['qdev']}")
        lines.append("    Cache mode:       writeback")
    return lines


def info_chardev(daemon: Daemon, rest: str) -> list[str]:
    """`info chardev`."""
    rows = chardev.query_chardev(daemon, {})
    return [f"{row['label']}: filename={row['filename']}" for row in rows]


def info_cpus(daemon: Daemon, rest: str) -> list[str]:
    """`info cpus`."""
    lines = []
    for row in probing.query_cpus_fast(daemon, {}):
        mark = " " if row["cpu-index"] else "*"
        line = f"{mark} CPU #{row['cpu-index']}: thread_id={row['thread-id']}"
        if "qom-type" in row:
            line += f" model={row['qom-type'].rpartition('-' + row['target'])[0]}"
        lines.append(line)
    return lines


def info_iothreads(daemon: Daemon, rest: str) -> list[str]:
    """`info iothreads`."""
    from memd.standin.tunable import query_iothreads

    lines = []
    for row in query_iothreads(daemon.tree.objects.each(), os.getpid()):
        lines += [f"{row['id']}:", f"  thread_id={row['thread-id']}"]
        names = ("poll-max-ns", "poll-grow", "poll-shrink", "poll-weight", "aio-max-batch")
        lines += [f"  {name}={row[name]}" for name in names if name in row]
    return lines


def info_hotpluggable_cpus(daemon: Daemon, rest: str) -> list[str]:
    """`info hotpluggable-cpus`."""
    lines = ["Hotpluggable CPUs:"]
    for row in probing.query_hotpluggable_cpus(daemon, {}):
        lines += [f'  type: "{row["type"]}"', f'  vcpus_count: "{row["vcpus-count"]}"']
        if "qom-path" in row:
            lines.append(f'  qom_path: "{row["qom-path"]}"')
        lines.append("  CPUInstance Properties:")
        props = row["props"]
        lines += [f'    {name}: "{props[name]}"' for name in _LEVELS if name in props]
    return lines


_LEVELS = ("node-id", "socket-id", "die-id", "module-id", "cluster-id", "core-id", "thread-id")


def info_network(daemon: Daemon, rest: str) -> list[str]:
    """`info network`."""
    return [] if daemon.standin is None else daemon.standin.netdevs.lines()


def info_numa(daemon: Daemon, rest: str) -> list[str]:
    """`info numa`."""
    # Only a machine has CPUs: a daemon without one does not load its types.
    from memd.devices.machine_object import cpus

    config = daemon.machine.config
    sizes = {}
    for node in config.numa_nodes:
        backend = daemon.tree.objects.get((node.memdev or "").rpartition("/")[2])
        sizes[node.nodeid] = 0 if backend is None else backend.memory_size
    if not sizes and (config.slots or config.maxmem > config.ram_size):
        # Room for memory brings a node.
        sizes[0] = config.ram_size
    plugged = dict.fromkeys(sizes, 0)
    for row in daemon.machine.devices():
        at = row["data"].get("node", 0)
        if at in plugged:
            plugged[at] += row["data"]["size"]
    lines = [f"{len(sizes)} nodes"]
    for number, size in sizes.items():
        there = [str(c.number) for c in cpus(daemon.tree) if c.props.get("node-id", 0) == number]
        lines.append(" ".join([f"node {number} cpus:", *there]))
        lines.append(f"node {number} size: {(size + plugged[number]) // _MIB} MB")
        lines.append(f"node {number} plugged: {plugged[number] // _MIB} MB")
    return lines


def info_pci(daemon: Daemon, rest: str) -> list[str]:
    """`info pci`."""
    if daemon.standin is None:
        return []
    from memd.standin.pci import pci_buses, pci_lines

    buses = pci_buses(daemon.machine, daemon.standin.catalogue)
    return [*pci_lines(buses)]


def qom_list(daemon: Daemon, rest: str) -> list[str]:
    """`qom-list [PATH]`."""
    if not rest:
        return ["/"]
    return [f"{row['name']} ({row['type']})" for row in qom.qom_list(daemon, {"path": rest})]


def qom_get(daemon: Daemon, rest: str) -> list[str]:
    """`qom-get PATH PROPERTY`."""
    path, name = _words(rest, "qom-get", 2)
    value = qom.qom_get(daemon, {"path": path, "property": name})
    return encode(value, True).decode("ascii").rstrip("\r\n").replace("\r\n", "\n").split("\n")


async def qom_set(daemon: Daemon, rest: str) -> None:
    """`qom-set [-j] PATH PROPERTY VALUE`: a text, or JSON with -j."""
    is_json = rest.startswith("-j ")
    path, name, text = _words(rest[3:] if is_json else rest, "qom-set", 3)
    value: JSON = text
    known = daemon.tree.resolve(path).qom_type.all_properties.get(name)
    if is_json:
        try:
            value = json.loads(text)
        except ValueError:
            raise QMPError("JSON parse error, invalid keyword") from None
    elif known is not None:
        from memd.devices.arguments import value_of

        value = value_of(known.type, name, text)
    await qom.qom_set(daemon, {"path": path, "property": name, "value": value})


def _words(rest: str, word: str, count: int) -> list[Any]:
    found = rest.split(None, count - 1)
    if len(found) < count:
        raise Usage(f"{word}: string expected", word)
    return found
