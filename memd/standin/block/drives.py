"""The register of drives: `-drive` and its places, and what devices have as their media.

Nothing is read or written through any. Rules and texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from memd.devices.kinds import FLASH
from memd.devices.machine import Asked, Device
from memd.errors import ID_HINT, QMPError, bad_identifier, is_identifier
from memd.hostmem.file_systems import of_paths
from memd.json_types import JSON, JSONObject
from memd.places import Share
from memd.qapi.numbers import option_number
from memd.qapi.visit import as_signed
from memd.qom.tree import Tree
from memd.standin.block.blocks import Blocks
from memd.standin.block.drive_options import (
    LIMIT_OPTIONS,
    Typed,
    checked,
    names_something,
    node_options,
    take_limits,
)
from memd.standin.block.image_locks import NO_RESIZE, NO_WRITE
from memd.standin.block.media import Media
from memd.standin.block.nodes import PROBED, Drive, Node
from memd.wire.rows import encode_rows
from memd.work import Encoded, Job, in_turns

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
        media: commands about their media.
        floppies: the units of the machine's own floppies.
        flash: the drives that flash chips are for, by the machine's properties of their names.
    """

    def __init__(self, blocks: Blocks, tree: Tree, machine: str, *, has_ide: bool = True) -> None:
        self._blocks = blocks
        self.media = Media(blocks, tree)
        self._tree = tree
        self._machine = machine
        self._has_ide = has_ide
        self._places: dict[tuple[str, int, int], Drive] = {}
        # The types of the devices that the machine makes.
        self._own: dict[Drive, str] = {}
        self.floppies: set[int] = set()
        self.flash: dict[str, str] = {}

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
        limits = take_limits(options)
        group = limits.pop("group", name)
        temporary = options.get("snapshot") == "on"
        wanted = node_options(options, drive, read_only=media == "cdrom")
        numbers = {each: option_number(limits[each], LIMIT_OPTIONS[each]) for each in limits}
        if numbers:
            self.media.set_limits(drive, {**numbers, "group": group})
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
                drive.insert(await self._blocks.add(checked(wanted, typed), owned=False))
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
        from memd.standin.block.images import make_file

        overlay = {
            "driver": "qcow2",
            "read-only": wanted["read-only"] == "on",
            "discard": wanted["discard"],
            "detect-zeroes": wanted.pop("detect-zeroes", "off"),
            "cache": {"no-flush": True},
        }
        below = checked({**wanted, "read-only": "on"}, typed)
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
        drive.user = self._tree.path_of(device)

    async def add_node(self, options: dict[str, str], typed: Typed) -> None:
        """`drive_add -n` of the human monitor: a node of a client's; see `add`."""
        if "node-name" not in options:
            raise QMPError("'node-name' needs to be specified")
        if not names_something(options):
            raise QMPError("Must specify either driver or file")
        await self._blocks.add(checked({"driver": PROBED, **options}, typed))

    def _place(self, own: dict[str, str]) -> tuple[str, int, int, str]:
        """The kind of a drive, its bus, its unit and its name."""
        kind = own.get("if", "ide" if self._machine in _ON_BUS else "none")
        if kind not in _KINDS:
            raise QMPError(f"unsupported bus type '{kind}'")
        per_bus = _PER_BUS.get((self._machine, kind), _PER_BUS.get(("", kind), 0))
        bus, unit, index = (
            as_signed(option_number(own[name], name), 32) if name in own else None
            for name in ("bus", "unit", "index")
        )
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
            user: how it is told: by its id or path.
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
        needs_device = kind in ("scsi-block", "scsi-generic")
        if needs_device and node is not None and node.driver != "host_device":
            raise QMPError("cannot get SG_IO version number: Operation not supported")
        if kind == "ide-hd" and drive.read_only:
            raise QMPError("Block node is read-only")
        flash = kind == "cfi.pflash01"
        drive.follows = kind == "floppy"
        if drive.node is not node:
            drive.insert(node)
        if drive not in self._blocks.drives:
            self._blocks.add_drive(drive)
        drive.user = user
        drive.status = not (flash or drive.follows or kind == "nvme")
        drive.writes = (drive.follows or not of_media) and node is not None and not node.read_only
        denied = {NO_WRITE: not values.get("share-rw"), NO_RESIZE: of_media}
        drive.denies = {lock for lock, denies in denied.items() if denies and not flash}
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
        await self._blocks.collect(await self.media.insert(drive, node))

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
            drive.user = drive.opened = None
            drive.status = drive.writes = False
            drive.removable, drive.denies = True, frozenset()
            return None
        self._blocks.remove_drive(drive)
        return drive.insert(None)

    async def query(self, args: object = None) -> Encoded:
        """The value of `query-block`; raises `QMPError` where it has too many bytes."""
        return await encode_rows(in_turns(self.rows()))

    def rows(self) -> Iterator[JSONObject]:
        """What `query-block` tells of each drive."""
        from memd.standin.block.node_info import device_info

        for drive in [*self._blocks.drives]:
            row: JSONObject = {"device": drive.name, "type": "unknown", "locked": False}
            row["removable"] = drive.removable
            if drive.user is not None:
                row["qdev"] = drive.user
            if drive.status:
                row["io-status"] = "ok"
            if drive.opened is not None:
                row["tray_open"] = drive.opened
            if drive.node is not None:
                info = device_info(drive.node.told, self._blocks.compat)
                cache = {**info["cache"], "writeback": drive.writeback}
                row["inserted"] = {**info, "cache": cache, **drive.limits}
            yield row

    async def statistics(self, args: JSONObject) -> Encoded:
        """The value of `query-blockstats`: nothing was ever read or written.

        Raises:
            QMPError: it has too many bytes.
        """
        from memd.standin.block.statistics import node_statistics, statistics_of

        if args.get("query-nodes", False):
            nodes = self._blocks.all()[::-1]
            rows: Iterator[JSON] = (node_statistics(node, [], backing=False) for node in nodes)
        else:
            rows = statistics_of([*self._blocks.drives])
        return await encode_rows(in_turns(rows))


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)
