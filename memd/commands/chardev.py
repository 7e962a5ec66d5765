"""Character devices, and cutting the connections at their other end.

The forms were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from memd.commands.daemon import Daemon
from memd.errors import DEVICE_NOT_FOUND, QMPError
from memd.hostmem.sockets import host_and_port
from memd.json_types import JSON, JSONObject
from memd.qom import ChardevObject


def query_chardev(daemon: Daemon, args: JSONObject) -> JSON:
    """The character devices."""
    return [
        {"label": chardev.name, "filename": _filename(chardev), "frontend-open": chardev.is_open}
        for chardev in _chardevs(daemon)
    ]


def query_yank(daemon: Daemon, args: JSONObject) -> JSON:
    """The connections that can be cut: sockets, whether somebody is there or not."""
    return [
        {"type": "chardev", "id": chardev.name}
        for chardev in _chardevs(daemon)
        if chardev.addr is not None
    ]


def yank(daemon: Daemon, args: JSONObject) -> JSON:
    """Cut connections; all of them, or none where one does not exist."""
    sockets = {chardev.name: chardev for chardev in _chardevs(daemon) if chardev.addr is not None}
    found = []
    for instance in args["instances"]:
        chardev = sockets.get(instance["id"]) if instance["type"] == "chardev" else None
        if chardev is None:
            raise QMPError("Instance not found", DEVICE_NOT_FOUND)
        found.append(chardev)
    for chardev in found:
        if chardev.on_yank is not None:
            chardev.on_yank()
    return {}


def _chardevs(daemon: Daemon) -> list[ChardevObject]:
    children = daemon.tree.chardevs.children
    return [child for child in children.values() if isinstance(child, ChardevObject)]


def _filename(chardev: ChardevObject) -> str:
    """The address that it is connected to, or would be."""
    if chardev.filename is not None:
        return chardev.filename
    if chardev.addr is None:
        return chardev.qom_type.name.removeprefix("chardev-")
    server = ",server=on" if chardev.server else ""
    connected = chardev.is_connected
    if connected and chardev.ends is not None:
        here, there = chardev.ends
        return f"{chardev.protocol}:{here}{server} <-> {there}"
    kind = chardev.addr["type"]
    if kind == "inet":
        address = f"{chardev.protocol}:{host_and_port(chardev.addr['host'], chardev.addr['port'])}"
    elif kind == "fd":
        address = "unix:" if connected else f"fd:{chardev.addr['str']}"
    else:
        address = f"unix:{chardev.addr['path']}"
    return f"{'' if connected else 'disconnected:'}{address}{server}"
