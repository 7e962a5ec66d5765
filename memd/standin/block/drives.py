"""The register of drives: `-drive`, what devices have as their media, trays, limits, statistics.

Nothing is read or written through any. Rules and texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from memd.compat import Compat
from memd.devices.kinds import FLASH
from memd.devices.machine import Asked, Device
from memd.errors import ID_HINT, QMPError, bad_identifier, device_not_found, is_identifier
from memd.hostmem.file_systems import of_paths
from memd.json_types import JSON, JSONObject
from memd.qapi.numbers import option_number
from memd.qapi.visit import as_signed
from memd.standin.block.graph import DRIVERS, LIMITS, PROBED, Blocks, Drive, Node
from memd.standin.block.image_locks import NO_RESIZE, NO_WRITE, Locks
from memd.wire.rows import encode_rows
from memd.work import Encoded, Event, Events, Job, in_turns

if TYPE_CHECKING:
    from memd.places import Share
    from memd.qom.tree import Tree

Typed = Callable[[JSONObject], JSONObject]
"""Gives the arguments of `blockdev-add`, which are texts, their types; raises `QMPError`."""

_COUNTS = (
    *("rd_bytes", "wr_bytes", "zone_append_bytes", "unmap_bytes", "rd_operations"),
    *("wr_operations", "zone_append_operations", "flush_operations", "unmap_operations"),
    *("rd_total_time_ns", "wr_total_time_ns", "zone_append_total_time_ns"),
    *("flush_total_time_ns", "unmap_total_time_ns", "rd_merged", "wr_merged"),
    *("zone_append_merged", "unmap_merged", "failed_rd_operations", "failed_wr_operations"),
    *("failed_zone_append_operations", "failed_flush_operations", "failed_unmap_operations"),
    *("invalid_rd_operations", "invalid_wr_operations", "invalid_zone_append_operations"),
    *("invalid_flush_operations", "invalid_unmap_operations", "wr_highest_offset"),
)

_MOST_TOLD = 1024
"""Nodes of which statistics are told below one drive or node."""

_TIMED = {
    "read": "rd_latency_histogram",
    "write": "wr_latency_histogram",
    "zap": "zone_append_latency_histogram",
    "flush": "flush_latency_histogram",
}
"""What is told of how long requests of each kind take, in the order in which it is set."""

_SETTING = ("boundaries", "boundaries-read", "boundaries-write", "boundaries-flush")
"""Without any of these what was set is set no more."""

_DISCARDS = ("discard-nb-ok", "discard-nb-failed", "discard-bytes-ok")

_CACHES = {
    "none": {"direct": True},
    "directsync": {"direct": True, "writeback": False},
    "writeback": {},
    "writethrough": {"writeback": False},
    "unsafe": {"no-flush": True},
}
_KINDS = ("none", "ide", "scsi", "floppy", "pflash", "mtd", "sd", "virtio", "xen")
"""The values of `if=`, in the order of their numbers."""

_WITH_ERRORS = ("none", "ide", "scsi", "virtio")
"""Kinds of drives that can be told what to do about errors."""

_ON_BUS = {"q35": (6, 1), "pc": (2, 2), "isapc": (2, 2)}
"""How many IDE buses a machine has, and how many drives each takes."""

_PER_BUS = {("", "ide"): 2, ("", "scsi"): 7, ("q35", "ide"): 1, ("microvm", "none"): 1}
"""How many drives a bus takes, of a machine or any: a higher index is one of another bus."""

FLOPPIES = 2
"""How many floppies a controller takes."""

_PLACE = ("if", "bus", "unit", "index", "media", "id")
_WORDS = {
    "werror": (("ignore", "report", "stop", "enospc"), "'{}' invalid write error action"),
    "rerror": (("ignore", "report", "stop"), "'{}' invalid read error action"),
    "aio": (("threads", "native", "io_uring"), "invalid aio option"),
    "copy-on-read": (("on", "off"), "Parameter 'copy-on-read' expects 'on' or 'off'"),
    "snapshot": (("off", "on"), "Parameter 'snapshot' expects 'on' or 'off'"),
    "discard": (("ignore", "off", "unmap", "on"), "Invalid discard option"),
    "cache": (tuple(_CACHES), "invalid cache option"),
    "detect-zeroes": (("on", "off", "unmap"), "invalid parameter value: {}"),
}
"""Options with what they may be, and what is said of anything else."""

_DISCARD = {"on": "unmap", "off": "ignore"}
"""What drives say for what block nodes say."""

_LIMIT_OPTIONS = {
    **{
        f"{name}{end}": f"throttling.{other}{end.replace('_', '-')}"
        for name, other in LIMITS.items()
        for end in ("", "_max", "_max_length")
    },
    "iops_size": "throttling.iops-size",
    "group": "throttling.group",
}
"""Limits of throughput as `block_set_io_throttle` has them, and as options: both are."""

_UNEXPECTED = r"Parameter '([^']+)' is unexpected"
_UNKNOWN = r"Parameter '(?:.*\.)?driver' does not accept value '(.*)'"
_MISSING = {
    "Parameter 'file' is missing": 'A block device must be specified for "file"',
    "Parameter 'filename' is missing": "The 'file' block driver requires a file name",
}
_PROTOCOL = r"[a-z][a-z0-9+.-]*(?=:)"


class BadId(QMPError):
    """The id of a drive can't be, which is seen before anything else."""


class PlaceTakenError(QMPError):
    """Another drive has the place of one."""


class Drives:
    """The drives of a stand-in.

    Args:
        blocks: the nodes that are in them.
        tree: where devices are looked for.
        machine: the type of the machine.
        has_ide: whether it has its IDE buses.

    Attributes:
        floppies: the units of the machine's own floppies.
        flash: the drives that flash chips are for, by the machine's properties of their names.
    """

    def __init__(self, blocks: Blocks, tree: Tree, machine: str, *, has_ide: bool = True) -> None:
        self._blocks = blocks
        self._tree = tree
        self._machine = machine
        self._has_ide = has_ide
        self._places: dict[tuple[str, int, int], Drive] = {}
        # The types of the devices that the machine makes.
        self._own: dict[Drive, str] = {}
        self.floppies: set[int] = set()
        self.flash: dict[str, str] = {}

    # What a command line or `drive_add` asks for

    async def add(
        self,
        options: dict[str, str],
        typed: Typed,
        *,
        hotplugged: bool = False,
        default: bool = False,
    ) -> tuple[str, str]:
        """`-drive`, and `drive_add` of the human monitor; gives the kind of its device, and its id.

        Args:
            options: by their dotted names.
            typed: checks those of the node.
            hotplugged: whether the machine has started.
            default: whether the machine need not have a device for it.

        Raises:
            QMPError: it can't be; nothing is left behind.
        """
        with self._blocks.account.charge({**options}) as share:
            return await self._add(options, typed, share, hotplugged, default)

    async def _add(
        self,
        options: dict[str, str],
        typed: Typed,
        share: Share,
        hotplugged: bool,
        default: bool,
    ) -> tuple[str, str]:
        own = {name: options.pop(name) for name in _PLACE if name in options}
        if not is_identifier(own.get("id", "x")):
            raise BadId(bad_identifier().desc, hint=ID_HINT)
        if self._blocks.drive(own.get("id", "")) or own.get("id") in self._blocks.making:
            raise BadId(f"Duplicate ID '{own['id']}' for drive")
        kind, bus, unit, name = self._place(own)
        if hotplugged and kind != "none":
            raise QMPError(f"Can't hot-add drive to type {_KINDS.index(kind)}")
        media = own.get("media", "disk")
        if media not in ("disk", "cdrom"):
            raise QMPError(f"'{media}' invalid media")
        for option in ("werror", "rerror"):
            if option in options and kind not in _WITH_ERRORS:
                raise QMPError(f"{option} is not supported by this bus type")
        drive = Drive(name)
        drive.counted = share
        limits = _take_limits(options)
        group = limits.pop("group", name)
        temporary = options.get("snapshot") == "on"
        wanted = _node_options(options, drive, read_only=media == "cdrom")
        numbers = {each: option_number(limits[each], _LIMIT_OPTIONS[each]) for each in limits}
        if numbers:
            self._limit(drive, {**numbers, "group": group})
        if self._blocks.drive(name) is not None:
            raise QMPError(f"Device with id '{name}' already exists")
        if self._blocks.find(name) is not None or wanted.get("node-name") == name:
            raise QMPError(f"Device name '{name}' conflicts with an existing node name")
        self._places[kind, bus, unit] = drive
        self._blocks.making.add(name)
        try:
            if wanted and temporary:
                drive.insert(await self._temporary(wanted, typed))
            elif wanted:
                drive.insert(await self._blocks.add(_checked(wanted, typed), owned=False))
        finally:
            self._blocks.making.discard(name)
        self._blocks.check_open()
        self._blocks.add_drive(drive)
        self._find_device(drive, kind, bus, unit, media, default)
        drive.bound = kind != "none"
        if hotplugged:
            await self._blocks.relock(refuse=False)
        return kind, name

    def _find_device(
        self, drive: Drive, kind: str, bus: int, unit: int, media: str, default: bool
    ) -> None:
        """Have the machine make a device for a drive, where it makes one for such.

        Raises:
            QMPError: it has to have one, and makes none.
        """
        buses, per_bus = _ON_BUS.get(self._machine, (0, 0))
        if kind == "pflash" and self._machine == "virt":
            raise QMPError(f"memd makes no device for if={kind}")
        if kind == "pflash" and self._machine in ("pc", "q35") and bus == 0 and unit < len(FLASH):
            self.flash[FLASH[unit]] = drive.name
        elif kind == "ide" and self._has_ide and 0 <= bus < buses and 0 <= unit < per_bus:
            self._have_made(drive, "ide-cd" if media == "cdrom" else "ide-hd")
        elif kind == "floppy" and buses and bus == 0 and 0 <= unit < FLOPPIES:
            self._have_made(drive, "floppy")
            self.floppies.add(unit)
        elif kind not in ("none", "virtio") and not default:
            raise QMPError(f"machine type does not support if={kind},bus={bus},unit={unit}")

    async def _temporary(self, wanted: JSONObject, typed: Typed) -> Node:
        """An overlay of what is wanted, whose file has no name once it is open; see `add`."""
        from memd.standin.block.block_jobs import make_file

        overlay = {
            "driver": "qcow2",
            "read-only": wanted["read-only"] == "on",
            "discard": wanted["discard"],
            "detect-zeroes": wanted.pop("detect-zeroes", "off"),
            "cache": {"no-flush": True},
        }
        below = _checked({**wanted, "read-only": "on"}, typed)
        base = await self._blocks.add(below, owned=False)
        from memd.standin.block.qcow2 import empty_image

        path = f"{os.environ.get('TMPDIR', '/var/tmp')}/vl.{os.urandom(16).hex()}"
        on, roots = of_paths([path]), self._tree.host.roots
        content = empty_image({"size": base.size})
        try:
            await Job(lambda: make_file(path, 0, content, roots), on=on)
            overlay |= {"file": {"driver": "file", "filename": path}, "backing": base.name}
            made = await self._blocks.add(overlay, owned=False)
        except BaseException:
            await self._blocks.collect(base)
            raise
        finally:
            await Job(lambda: _remove(path), on=on, release=True)
        assert made.child is not None
        # QEMU opens it before it stands on anything.
        made.alignments = made.child.alignments
        return made

    async def add_default(self, place: dict[str, str], typed: Typed) -> None:
        """Add an empty drive of the machine's, unless its place is taken; see `add`."""
        try:
            self._place(place)
        except PlaceTakenError:
            return
        await self.add({**place}, typed, default=True)

    def _have_made(self, drive: Drive, device: str) -> None:
        """Have the machine make the device of a drive."""
        self.attach(drive.name, device, "", {})
        self._own[drive] = device

    def asked(self) -> Iterator[Asked]:
        """The devices that the machine makes for drives, each bus with the lowest unit first."""
        for (kind, bus, _unit), drive in sorted(self._places.items(), key=lambda item: item[0]):
            if drive in self._own:
                yield Asked(kind, self._own[drive], bus, partial(self._made, drive))

    def _made(self, drive: Drive, device: Device) -> None:
        drive.user = drive.qdev = self._tree.path_of(device)

    async def add_node(self, options: dict[str, str], typed: Typed) -> None:
        """`drive_add -n` of the human monitor: a node of a client's; see `add`."""
        if "node-name" not in options:
            raise QMPError("'node-name' needs to be specified")
        if not _names_something(options):
            raise QMPError("Must specify either driver or file")
        await self._blocks.add(_checked({"driver": PROBED, **options}, typed))

    def _place(self, own: dict[str, str]) -> tuple[str, int, int, str]:
        """The kind of a drive, its bus, its unit and its name."""
        kind = own.get("if", "ide" if self._machine in _ON_BUS else "none")
        if kind not in _KINDS:
            raise QMPError(f"unsupported bus type '{kind}'")
        per_bus = _PER_BUS.get((self._machine, kind), _PER_BUS.get(("", kind), 0))
        bus, unit, index = (_int(own.get(name), name) for name in ("bus", "unit", "index"))
        if index not in (None, -1):
            if bus is not None or unit is not None:
                raise QMPError("index cannot be used with bus and unit")
            bus, unit = divmod(index, per_bus) if per_bus else (0, index)
        bus = bus or 0
        if unit in (None, -1):
            unit = 0
            while self._is_taken(kind, bus, unit):
                unit += 1
                if per_bus and unit >= per_bus:
                    bus, unit = bus + 1, 0
        elif per_bus and unit >= per_bus:
            raise QMPError(f"unit {unit} too big (max is {per_bus - 1})")
        elif self._is_taken(kind, bus, unit):
            at = -1 if index is None else index
            raise PlaceTakenError(f"drive with bus={bus}, unit={unit} (index={at}) exists")
        media = ""
        if kind in ("ide", "scsi"):
            media = "-cd" if own.get("media") == "cdrom" else "-hd"
        name = f"{kind}{bus if per_bus else ''}{media}{unit}"
        return kind, bus, unit, own.get("id", name)

    def _is_taken(self, kind: str, bus: int, unit: int) -> bool:
        there = self._places.get((kind, bus, unit))
        return there is not None and (
            there in self._blocks.drives or there.name in self._blocks.making
        )

    async def delete(self, name: str) -> None:
        """`drive_del` of the human monitor, which deletes nodes too; raises `QMPError`."""
        drive = self._blocks.drive(name)
        if drive is None:
            if self._blocks.find(name) is None:
                raise QMPError(f"Device '{name}' not found")
            await self._blocks.delete({"node-name": name})
            return
        drive.status = False
        self._blocks.take_name(drive)
        if drive.user is None:
            self._blocks.remove_drive(drive)
        await self._blocks.collect(drive.insert(None))

    # What devices use

    def check(self, owner: str, name: str) -> None:
        """Raise `QMPError` where no device can have that drive or node.

        Args:
            owner: the type that the complaint names.
        """
        drive = self._blocks.drive(name)
        if drive is not None and drive.user is not None:
            why = "is already in use by another device"
            if drive.bound:
                why = (
                    "is already in use because it has been automatically connected to another"
                    " device (did you need 'if=none' in the drive options?)"
                )
            raise QMPError(f"Drive '{name}' {why}")
        if drive is None and self._blocks.find(name) is None:
            raise QMPError(f"Property '{owner}.drive' can't find value '{name}'")

    def attach(self, name: str, kind: str, user: str, values: JSONObject) -> None:
        """A device uses a drive, or a node, or has an empty drive of its own.

        Args:
            name: of the drive or node, "" for none.
            kind: the device's type.
            user: how it is told; see `Drive.qdev`.
            values: its properties.

        Raises:
            QMPError: another device has the node, or this one needs a medium.
        """
        drive, of_media = self._blocks.drive(name), kind in ("ide-cd", "scsi-cd", "floppy")
        if drive is None:
            node = self._blocks.find(name)
            if node is None and not of_media:
                if kind == "ide-hd":
                    raise QMPError("No drive specified")
                return
            drive = Drive("")
        elif drive.node is None and not of_media:
            raise QMPError("Device needs media, but drive is empty")
        else:
            node = drive.node
        if kind in ("scsi-block", "scsi-generic") and node is not None:
            if node.driver != "host_device":
                text = "cannot get SG_IO version number: Operation not supported"
                raise QMPError(text)
        if kind == "ide-hd" and drive.read_only:
            raise QMPError("Block node is read-only")
        flash = kind == "cfi.pflash01"
        drive.follows = kind == "floppy"
        writes = not of_media or drive.follows
        writes = writes and node is not None and not node.read_only
        denies: Locks = {NO_WRITE, NO_RESIZE} if of_media else {NO_WRITE}
        if values.get("share-rw"):
            denies -= {NO_WRITE}
        if flash:
            denies = frozenset()
        if drive.node is not node:
            drive.insert(node)
        if drive not in self._blocks.drives:
            self._blocks.add_drive(drive)
        drive.user = drive.qdev = user
        drive.status = not (flash or drive.follows or kind == "nvme")
        drive.writes, drive.denies = writes, denies
        drive.removable = of_media or bool(values.get("removable"))
        drive.opened = False if drive.removable and kind != "floppy" else None
        drive.writeback = drive.writeback and values.get("write-cache") != "off"

    def measured(self, name: str) -> tuple[str, int]:
        """What an error calls a drive or a node, and its bytes; raises `QMPError` for no medium."""
        node, drive = self._blocks.find(name), self._blocks.drive(name)
        label = "" if drive is None else name
        if node is None:
            raise QMPError(f"can't get size of block device {label}: No medium found")
        return label, node.size

    def used_by(self, user: str) -> Drive | None:
        """The drive of a device, by how it is told; None where it has none."""
        return next((drive for drive in self._blocks.drives if drive.user == user), None)

    async def replace(self, drive: Drive | None, name: str) -> None:
        """A device has another node as its medium; raises `QMPError` where it can't have it."""
        node = self._blocks.named(name, "")
        if drive is None or drive.node is None:
            raise QMPError("Device needs media, but drive is empty")
        if drive.node is node:
            raise QMPError(f"Node '{name}' is already in use")
        await self._blocks.collect(await self._insert(drive, node))

    def release(self, user: str, *, gone: bool = True) -> Node | None:
        """A device is gone, and its drive too; gives its node.

        Args:
            user: how the device is told.
            gone: whether it was there; where not, a drive that was there before stays.
        """
        drive = self.used_by(user)
        if drive is None:
            return None
        if drive.name and not gone:
            drive.user, drive.qdev, drive.opened = None, "", None
            drive.status = drive.writes = False
            drive.removable, drive.denies = True, frozenset()
            return None
        self._blocks.remove_drive(drive)
        return drive.insert(None)

    # What is told

    async def query(self, args: object = None) -> Encoded:
        """The value of `query-block`; raises `QMPError` where it has too many bytes."""
        return await encode_rows(in_turns(self.rows()))

    def rows(self) -> Iterator[JSONObject]:
        """What `query-block` tells of each drive."""
        for drive in [*self._blocks.drives]:
            row: JSONObject = {"device": drive.name, "type": "unknown", "locked": False}
            row["removable"] = drive.removable
            if drive.user is not None:
                row["qdev"] = drive.qdev
            if drive.status:
                row["io-status"] = "ok"
            if drive.opened is not None:
                row["tray_open"] = drive.opened
            if drive.node is not None:
                info = self._blocks.info(drive.node.told)
                cache = {**info["cache"], "writeback": drive.writeback}
                row["inserted"] = {**info, "cache": cache, **drive.limits}
            yield row

    async def statistics(self, args: JSONObject) -> Encoded:
        """The value of `query-blockstats`: nothing was ever read or written.

        Raises:
            QMPError: it has too many bytes.
        """
        if args.get("query-nodes", False):
            nodes = self._blocks.all()[::-1]
            rows: Iterator[JSON] = (_statistics(node, [], backing=False) for node in nodes)
        else:
            rows = self.statistics_of_drives()
        return await encode_rows(in_turns(rows))

    def statistics_of_drives(self) -> Iterator[JSONObject]:
        """What `query-blockstats` tells of each drive; raises `QMPError`."""
        for drive in [*self._blocks.drives]:
            row: JSONObject
            row = {"stats": _counts()} if drive.node is None else _statistics(drive.node, [])
            row["stats"] |= drive.histograms
            row["stats"] |= {"account_invalid": True, "account_failed": True}
            if drive.user is not None:
                row["qdev"] = drive.qdev
            yield {**row, "device": drive.name}

    # Limits and media

    def _find(self, args: JSONObject) -> Drive:
        if ("id" in args) == ("device" in args):
            raise QMPError("Need exactly one of 'device' and 'id'")
        id = args.get("id", "")
        drive = self._blocks.drive(args.get("device", ""))
        for each in self._blocks.drives:
            if each.qdev and id in (each.qdev, f"/machine/peripheral/{each.qdev}"):
                drive = each
        if drive is None:
            path = id if id.startswith("/") else f"/machine/peripheral/{id}"
            if "device" in args or self._tree.lookup(path)[0] is None:
                raise device_not_found(str(args.get("device", id)))
            raise QMPError("Device does not have a block device backend")
        return drive

    def limit(self, args: JSONObject) -> None:
        """`block_set_io_throttle`, which holds nothing back; raises `QMPError`."""
        self._limit(self._find(args), args)

    def _limit(self, drive: Drive, args: JSONObject) -> None:
        from memd.standin.tunable import NO_LIMITS, check_limits

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
        data = {"device": drive.name, "id": drive.qdev, "tray-open": opened}
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
        await self._insert(drive, node)

    async def _insert(self, drive: Drive, node: Node) -> Node | None:
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
            await self._insert(drive, node)
        finally:
            await self._blocks.collect(node)
        return (*events, *self.move_tray(args, opened=False))


def _node_options(options: dict[str, str], drive: Drive, *, read_only: bool) -> JSONObject:
    """The arguments of `blockdev-add` in a drive's options; none where it is empty."""
    for name, (words, complaint) in _WORDS.items():
        if options.get(name, words[0]) not in words:
            raise QMPError(complaint.format(options[name]))
    for name in ("werror", "rerror", "aio", "copy-on-read", "snapshot"):
        options.pop(name, None)
    if "discard" in options:
        options["discard"] = _DISCARD.get(options["discard"], options["discard"])
    cache = {**_CACHES[options.pop("cache", "writeback")]}
    drive.writeback = cache.pop("writeback", True)
    alias = options.pop("readonly", "off")
    told = options.setdefault("read-only", "on" if read_only else alias)
    if told not in ("on", "off"):
        raise QMPError("Parameter 'read-only' expects 'on' or 'off'")
    drive.read_only = told == "on"
    kind = options.pop("format", None)
    if kind is not None and "driver" in options:
        raise QMPError("Cannot specify both 'driver' and 'format'")
    kind = kind or options.pop("driver", PROBED)
    path = options.pop("file", "")
    if not (path or kind or _names_something(options)):
        if options.keys() - {"read-only", "discard", "detect-zeroes", "node-name"}:
            raise QMPError("Must specify either driver or file")
        return {}
    protocol = None if "file.driver" in options else re.match(_PROTOCOL, path)
    if protocol is not None and protocol[0].startswith("null-") and protocol[0] in DRIVERS:
        if path != f"{protocol[0]}://":
            raise QMPError(f"The only allowed filename for this driver is '{protocol[0]}://'")
        options["file.driver"] = protocol[0]
    elif protocol is not None and protocol[0] != "file":
        raise QMPError(f"memd has no block driver '{protocol[0]}'")
    elif path:
        options |= {"file.driver": "file", "file.filename": path.removeprefix("file:")}
    cached = {f"cache.{each}": "on" for each in cache}
    return {"driver": kind, "discard": "unmap", "auto-read-only": "on", **cached, **options}


def _take_limits(options: dict[str, str]) -> dict[str, str]:
    """Take the limits of throughput out of a drive's options; raises `QMPError`."""
    limits: dict[str, str] = {}
    for each, option in _LIMIT_OPTIONS.items():
        if each in options and option in options:
            raise QMPError(f"'{option}' and its alias '{each}' can't be used at the same time")
        for given in (each, option):
            if given in options:
                limits[each] = options.pop(given)
    return limits


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def _names_something(options: dict[str, str]) -> bool:
    """Whether options have a driver or a file."""
    return any(each == "driver" or each.partition(".")[0] == "file" for each in options)


def _checked(wanted: JSONObject, typed: Typed) -> JSONObject:
    """The arguments with their types; complaints are about options of a driver.

    Args:
        wanted: of `blockdev-add`, by their dotted names, as texts.
        typed: gives them.
    """
    kind = wanted["driver"]
    try:
        return {**typed({**wanted, "driver": kind or "raw"}), "driver": kind}
    except QMPError as error:
        if match := re.fullmatch(_UNKNOWN, error.desc):
            raise QMPError(f"Unknown driver '{match[1]}'") from None
        if error.desc in _MISSING:
            raise QMPError(_MISSING[error.desc]) from None
        if match := re.fullmatch(_UNEXPECTED, error.desc):
            of_file = any(each.partition(".")[0] == "file" for each in wanted)
            what, does = ("format", "does not") if of_file else ("protocol", "doesn't")
            raise QMPError(
                f"Block {what} '{kind or 'raw'}' {does} support the option '{match[1]}'"
            ) from None
        raise


def _int(text: str | None, name: str) -> Any:
    return None if text is None else as_signed(option_number(text, name), 32)


def _name(args: JSONObject) -> str:
    return str(args["id"] if "id" in args else args["device"])


def _not_removable(args: JSONObject) -> QMPError:
    return QMPError(f"Device '{_name(args)}' is not removable")


def _counts() -> JSONObject:
    told: JSONObject = dict.fromkeys(_COUNTS, 0)
    return told | {"timed_stats": [], "account_invalid": False, "account_failed": False}


def _statistics(node: Node, told: list[Node], *, backing: bool = True) -> JSONObject:
    """QAPI's `BlockStats` of a node and those below it; raises `QMPError` for too many.

    Args:
        told: the nodes that were told of by now: one below two others is among them twice.
    """
    told.append(node)
    if len(told) > _MOST_TOLD:
        raise QMPError(f"more than {_MOST_TOLD} nodes would be told of below '{told[0].name}'")
    row: JSONObject = {"node-name": node.name, "stats": _counts()}
    if node.driver in ("file", "host_device"):
        row["driver-specific"] = {"driver": node.driver, **dict.fromkeys(_DISCARDS, 0)}
    if node.child is not None:
        row["parent"] = _statistics(node.child, told, backing=backing)
    if backing and node.shown_below is not None:
        row["backing"] = _statistics(node.shown_below, told)
    return row
