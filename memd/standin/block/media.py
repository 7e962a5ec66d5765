"""Media of drives: what is put into them, their trays, and what is set of the drives themselves.

Rules and texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from itertools import pairwise

from memd.compat import Compat
from memd.errors import QMPError, device_not_found
from memd.json_types import JSONObject
from memd.qom.tree import Tree
from memd.standin.block.blocks import Blocks
from memd.standin.block.nodes import DRIVERS, PROBED, Drive, Node
from memd.standin.block.throttling import LIMITS, NO_LIMITS, check_limits
from memd.work import Event, Events

_TIMED = {
    "read": "rd_latency_histogram",
    "write": "wr_latency_histogram",
    "zap": "zone_append_latency_histogram",
    "flush": "flush_latency_histogram",
}
"""What is told of how long requests of each kind take, in the order in which it is set."""

_SETTING = ("boundaries", "boundaries-read", "boundaries-write", "boundaries-flush")
"""Without any of these what was set is set no more."""


class Media:
    """Commands about drives that there are.

    Args:
        blocks: the nodes, and the drives.
        tree: where devices are looked for.
    """

    def __init__(self, blocks: Blocks, tree: Tree) -> None:
        self._blocks = blocks
        self._tree = tree

    def _find(self, args: JSONObject) -> Drive:
        if ("id" in args) == ("device" in args):
            raise QMPError("Need exactly one of 'device' and 'id'")
        id = args.get("id", "")
        drive = self._blocks.drive(args.get("device", ""))
        for each in self._blocks.drives:
            if each.user and id in (each.user, f"/machine/peripheral/{each.user}"):
                drive = each
        if drive is None:
            path = id if id.startswith("/") else f"/machine/peripheral/{id}"
            if "device" in args or self._tree.lookup(path)[0] is None:
                raise device_not_found(str(args.get("device", id)))
            raise QMPError("Device does not have a block device backend")
        return drive

    def limit(self, args: JSONObject) -> None:
        """`block_set_io_throttle`, which holds nothing back; raises `QMPError`."""
        self.set_limits(self._find(args), args)

    def set_limits(self, drive: Drive, args: JSONObject) -> None:
        """Have a drive limited as `block_set_io_throttle` tells; raises `QMPError`."""
        limits = {**NO_LIMITS, "iops-size": args.get("iops_size", 0)}
        told: JSONObject = {}
        for name, other in LIMITS.items():
            told[name] = limits[other] = args.get(name, 0)
            limits[f"{other}-max"] = most = args.get(f"{name}_max", 0)
            limits[f"{other}-max-length"] = length = args.get(f"{name}_max_length", 1)
            if most:
                told |= {f"{name}_max": most, f"{name}_max_length": length}
        check_limits(limits)
        if any(told.values()):
            own = args.get("id") or drive.name
            told["group"] = args.get("group", drive.limits.get("group", own))
        if limits["iops-size"]:
            told["iops_size"] = limits["iops-size"]
        drive.limits = told

    def set_histograms(self, args: JSONObject) -> None:
        """`block-latency-histogram-set`, in which nothing is ever counted; raises `QMPError`."""
        drive = self._find(args)
        told = {name: args.get(f"boundaries-{name}", args.get("boundaries")) for name in _TIMED}
        if not {*_SETTING} & args.keys():
            # One for zones alone has no effect of its own.
            drive.histograms = {}
            return
        for name, bounds in told.items():
            if bounds is None:
                continue
            bounds = [each % (1 << 64) for each in bounds]
            fits = bounds or self._blocks.compat is Compat.V10_0
            if not fits or any(low >= high for low, high in pairwise((0, *bounds))):
                raise QMPError(f"Device '{args['id']}' set {name} boundaries fail")
            drive.histograms[_TIMED[name]] = {
                "boundaries": bounds,
                "bins": [0] * (len(bounds) + 1),
            }

    def move_tray(self, args: JSONObject, *, opened: bool) -> Events:
        """`blockdev-open-tray` or `blockdev-close-tray`; raises `QMPError`."""
        drive = self._find(args)
        if not drive.removable:
            raise _not_removable(args)
        if drive.opened in (None, opened):
            return ()
        drive.opened = opened
        data = {"device": drive.name, "id": drive.user or "", "tray-open": opened}
        return (Event("DEVICE_TRAY_MOVED", data),)

    def _opened(self, args: JSONObject) -> Drive:
        """The drive, whose tray has to be open where it has one."""
        drive = self._find(args)
        if drive.user is not None and not drive.removable:
            raise _not_removable(args)
        if drive.opened is False:
            raise QMPError(f"Tray of device '{_name(args)}' is not open")
        return drive

    async def remove_medium(self, args: JSONObject) -> None:
        """`blockdev-remove-medium`; raises `QMPError`."""
        await self._blocks.collect(self._opened(args).insert(None))

    async def insert_medium(self, args: JSONObject) -> None:
        """`blockdev-insert-medium`; raises `QMPError`."""
        self._find(args)
        node = self._blocks.find(args["node-name"])
        if node is None:
            raise QMPError(f"Node '{args['node-name']}' not found")
        if node.drives:
            raise QMPError(f"Node '{node.name}' is already in use")
        drive = self._opened(args)
        if drive.node is not None:
            what = f"device '{drive.name}'" if "device" in args else "the device"
            raise QMPError(f"There already is a medium in {what}")
        await self.insert(drive, node)

    async def insert(self, drive: Drive, node: Node) -> Node | None:
        """Put a node into a drive; gives the one that was in it.

        Raises:
            QMPError: another process has its file.
        """
        before = drive.insert(node)
        try:
            await self._blocks.relock()
        except QMPError:
            if drive.node is node:
                # It may have been deleted or used elsewhere meanwhile.
                there = before in self._blocks.all()
                drive.insert(None if before is None or before.drives or not there else before)
                await self._blocks.relock(refuse=False)
            raise
        return before

    async def eject(self, args: JSONObject) -> Events:
        """`eject`; raises `QMPError`."""
        events = self.move_tray(args, opened=True)
        await self.remove_medium(args)
        return events

    async def change_medium(self, args: JSONObject) -> Events:
        """`blockdev-change-medium`; raises `QMPError`."""
        drive, kind = self._find(args), args.get("format", PROBED)
        if kind not in (*DRIVERS, PROBED):
            raise QMPError(f"Unknown driver '{kind}'")
        mode = args.get("read-only-mode", "retain")
        read_only = drive.read_only if mode == "retain" else mode == "read-only"
        below = {"driver": "file", "filename": args["filename"]}
        options = {"driver": kind, "read-only": read_only, "file": below, **drive.kept}
        node = await self._blocks.add(options, owned=False)
        try:
            events = await self.eject(args)
            await self.insert(drive, node)
        finally:
            await self._blocks.collect(node)
        return (*events, *self.move_tray(args, opened=False))


def _name(args: JSONObject) -> str:
    return str(args["id"] if "id" in args else args["device"])


def _not_removable(args: JSONObject) -> QMPError:
    return QMPError(f"Device '{_name(args)}' is not removable")
