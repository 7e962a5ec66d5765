"""The register of block nodes: real files, opened and sized by the driver that is named.

Nobody reads or writes what is in them; of a qcow2 image the header is read. What
is known of drivers, rules and texts was observed on QEMU 10.0.2.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import TYPE_CHECKING, Any

from memd.errors import QMPError
from memd.hostmem.files import encode_path
from memd.hostmem.paths import open_path
from memd.json_types import JSON
from memd.work import Event, Job

if TYPE_CHECKING:
    from memd.hostmem.paths import Roots

_MOST = 1024
"""Nodes that clients may have at a time: each may hold a descriptor."""

_SECTOR = 512
_NULL_SIZE = 1 << 30
_DRIVERS = ("file", "raw", "qcow2", "null-co", "null-aio")
_ACCESS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_QCOW2 = struct.Struct(">4sIQIIQIIQQIIQQQQII")
_CACHE = {"no-flush": False, "direct": False, "writeback": True}
_LIMITS = ("iops", "iops_rd", "iops_wr", "bps", "bps_rd", "bps_wr")
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


class Node:
    """A block node.

    Attributes:
        name: its name; one of memd's making where it was given none.
        driver: which kind it is.
        filename: what it is told to be.
        size: its bytes as a guest would see them.
        read_only: whether nothing may be written to it.
        child: the node below it, or None.
        own_child: whether that one goes with it.
        parents: the names of the nodes above it.
        device: what uses it: a device's id or path, None for nobody.
        qdev: the same as clients are told of it.
        facts: what else is told of the image.
    """

    def __init__(self, name: str, driver: str, *, read_only: bool) -> None:
        self.name = name
        self.driver = driver
        self.read_only = read_only
        self.filename = ""
        self.size = 0
        self.fd = -1
        self.child: Node | None = None
        self.own_child = False
        self.parents: set[str] = set()
        self.device: str | None = None
        self.qdev = ""
        self.facts: dict[str, JSON] = {}

    @property
    def file(self) -> Node | None:
        """The node that has the file open."""
        at: Node | None = self
        while at is not None and at.fd < 0:
            at = at.child
        return at

    def close(self) -> None:
        """Close its file. May wait."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Blocks:
    """The block nodes of a stand-in, and its NBD server, to which nobody can connect."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._making: set[str] = set()
        self._numbers = 0
        self._serving = False
        self._exports: dict[str, str] = {}

    async def clear(self) -> None:
        """Close every node."""
        nodes = [*self._nodes.values()]
        self._nodes.clear()
        await Job(lambda: _close(nodes))

    def find(self, name: str) -> Node | None:
        """The node of that name."""
        return self._nodes.get(name)

    async def add(self, args: dict[str, Any], roots: Roots | None) -> None:
        """`blockdev-add`.

        Args:
            roots: what its files have to be below.

        Raises:
            QMPError: it can't be; nothing is left behind.
        """
        name = args["node-name"]
        if name in self._nodes or name in self._making:
            raise QMPError(f"Duplicate nodes with node-name='{name}'")
        if len(self._nodes) + len(self._making) >= _MOST:
            raise QMPError(f"there are {_MOST} block nodes, and may be no more")
        made: list[Node] = []
        top = self._plan(args, made)
        self._making.add(name)
        try:
            await Job(lambda: _open(made, roots))
        finally:
            self._making.discard(name)
        for node in made:
            self._nodes[node.name] = node
            if node.child is not None:
                node.child.parents.add(node.name)
        assert top is made[-1]

    def _plan(self, options: dict[str, Any], made: list[Node]) -> Node:
        """A node and those below it that come with it, the lowest first."""
        driver = options["driver"]
        if driver not in _DRIVERS:
            raise QMPError(f"memd has no block driver '{driver}'")
        name = options.get("node-name")
        if name is None:
            self._numbers += 1
            name = f"#block{self._numbers:03}"
        node = Node(name, driver, read_only=options.get("read-only", False))
        if driver == "file":
            node.filename = options["filename"]
        elif driver.startswith("null"):
            node.size = options.get("size", _NULL_SIZE)
            node.filename = f'json:{{"driver": "{driver}", "size": {node.size}}}'
        else:
            below = options["file"]
            if type(below) is dict:
                inner = {"read-only": node.read_only, **below}
                node.child, node.own_child = self._plan(inner, made), True
            else:
                node.child = self._nodes.get(below)
                if node.child is None:
                    raise _unknown(below, below)
            node.facts["options"] = {
                key: options[key] for key in ("offset", "size") if key in options
            }
        made.append(node)
        return node

    async def delete(self, name: str) -> None:
        """`blockdev-del`.

        Raises:
            QMPError: there is none, or it is in use.
        """
        node = self._nodes.get(name)
        if node is None:
            raise QMPError(f"Failed to find node with node-name='{name}'")
        if node.device is not None:
            raise QMPError(f"Node {name} is in use")
        if node.parents or name in self._exports.values():
            raise QMPError(f"Block device {name} is in use")
        closing = []
        at: Node | None = node
        while at is not None:
            del self._nodes[at.name]
            closing.append(at)
            below = at.child
            if below is not None:
                below.parents.discard(at.name)
            at = below if at.own_child and below is not None and not below.parents else None
        await Job(lambda: _close(closing))

    async def resize(self, device: str | None, name: str | None, size: int) -> None:
        """`block_resize`: the file behind a raw node has another size.

        Raises:
            QMPError: it can't have.
        """
        node = self._nodes.get(name or device or "")
        if node is None:
            raise _unknown(device or "", name or "")
        if size < 0:
            raise QMPError("Parameter 'size' expects a >0 size")
        file = node.file
        if node.driver.startswith("null"):
            raise QMPError("Image format driver does not support resize")
        if file is None or node.driver == "qcow2":
            raise QMPError(f"memd does not resize images of the format '{node.driver}'")
        if node.read_only:
            raise QMPError(f"Block node '{node.name}' is read-only")
        size = -(-size // _SECTOR) * _SECTOR
        fd = file.fd
        try:
            await Job(lambda: os.ftruncate(fd, size))
        except OSError as error:
            raise QMPError(f"Failed to resize underlying file: {error.strerror}") from None
        at: Node | None = node
        while at is not None:
            at.size = size
            at = at.child

    def conflict(self, node: Node, who: str) -> QMPError:
        """What is said to a second device that is to use a node."""
        return QMPError(
            f"Permission conflict on node '{node.name}': permissions 'write' are both required by"
            f" block device '{node.device}' (uses node '{node.name}' as 'root' child) and unshared"
            f" by block device '{who}' (uses node '{node.name}' as 'root' child)."
        )

    def nodes(self) -> list[JSON]:
        """The value of `query-named-block-nodes`, the youngest first."""
        return [_info(node) for node in reversed(self._nodes.values())]

    def devices(self) -> list[JSON]:
        """The value of `query-block`: what devices use."""
        return [
            {
                "device": "",
                "qdev": node.qdev,
                "type": "unknown",
                "locked": False,
                "removable": False,
                "io-status": "ok",
                "inserted": _info(node),
            }
            for node in self._nodes.values()
            if node.device is not None
        ]

    def statistics(self, *, by_node: bool) -> list[JSON]:
        """The value of `query-blockstats`: nothing was ever read or written."""
        found = []
        for node in self._nodes.values():
            if node.device is None and not by_node:
                continue
            stats: dict[str, JSON] = dict.fromkeys(_COUNTS, 0)
            stats |= {"timed_stats": [], "account_invalid": True, "account_failed": True}
            row: dict[str, JSON] = {"node-name": node.name, "stats": stats}
            if not by_node:
                row |= {"device": "", "qdev": node.qdev}
            found.append(row)
        return found

    # The NBD server

    def start_serving(self) -> None:
        """`nbd-server-start`; raises `QMPError` where it was started."""
        if self._serving:
            raise QMPError("NBD server already running")
        self._serving = True

    def stop_serving(self) -> tuple[Event, ...]:
        """`nbd-server-stop`; raises `QMPError` where it was not started."""
        self._need_server()
        self._serving = False
        gone, self._exports = self._exports, {}
        return tuple(Event("BLOCK_EXPORT_DELETED", {"id": id}) for id in gone)

    def export(self, id: str, name: str) -> None:
        """`nbd-server-add`.

        Raises:
            QMPError: there is no such node, no server, or an export of that name.
        """
        self._need_server()
        if name not in self._nodes:
            raise _unknown(name, name)
        if id in self._exports:
            raise QMPError(f"NBD server already has export named '{id}'")
        self._exports[id] = name

    def unexport(self, id: str) -> tuple[Event, ...]:
        """`nbd-server-remove`; raises `QMPError` where there is none."""
        self._need_server()
        if self._exports.pop(id, None) is None:
            raise QMPError(f"Export '{id}' is not found")
        return (Event("BLOCK_EXPORT_DELETED", {"id": id}),)

    def exports(self) -> list[JSON]:
        """The value of `query-block-exports`."""
        return [
            {"id": id, "type": "nbd", "node-name": name, "shutting-down": False}
            for id, name in self._exports.items()
        ]

    def _need_server(self) -> None:
        if not self._serving:
            raise QMPError("NBD server not running")


def _unknown(device: str, name: str) -> QMPError:
    return QMPError(f"Cannot find device='{device}' nor node-name='{name}'")


def _info(node: Node) -> dict[str, JSON]:
    image: dict[str, JSON] = {
        "filename": node.filename,
        "format": node.driver,
        "virtual-size": node.size,
        "actual-size": 0,
    }
    file = node.file
    if file is not None:
        image["actual-size"] = file.facts.get("actual-size", 0)
        image["dirty-flag"] = False
    image |= {
        name: value for name, value in node.facts.items() if name not in ("options", "actual-size")
    }
    return {
        "node-name": node.name,
        "drv": node.driver,
        "ro": node.read_only,
        "file": node.filename,
        "image": image,
        "encrypted": False,
        "detect_zeroes": "off",
        "active": True,
        "backing_file_depth": 0,
        "write_threshold": 0,
        "cache": _CACHE,
        **dict.fromkeys(_LIMITS, 0),
    }


def _open(made: list[Node], roots: Roots | None) -> None:
    """Open the files of nodes, the lowest first. Runs in a thread."""
    try:
        for node in made:
            if node.driver == "file":
                _open_file(node, roots)
            elif node.child is not None:
                node.filename = node.child.filename
                node.size = node.child.size
                if node.driver == "qcow2":
                    _read_header(node)
                else:
                    _cut(node, node.facts["options"])
    except BaseException:
        _close(made)
        raise


def _close(nodes: list[Node]) -> None:
    for node in nodes:
        node.close()


def _open_file(node: Node, roots: Roots | None) -> None:
    path = node.filename
    access = os.O_RDONLY if node.read_only else os.O_RDWR
    try:
        node.fd = open_path(encode_path(path), access | _ACCESS, roots)
    except OSError as error:
        raise QMPError(f"Could not open '{path}': {error.strerror}") from None
    found = os.fstat(node.fd)
    if not stat.S_ISREG(found.st_mode):
        raise QMPError(f"'file' driver requires '{path}' to be a regular file")
    node.size = -(-found.st_size // _SECTOR) * _SECTOR
    node.facts["actual-size"] = found.st_blocks * 512
    node.facts["format-specific"] = {"type": "file", "data": {}}


def _cut(node: Node, options: dict[str, int]) -> None:
    """A raw node may be a part of what is below it."""
    offset = options.get("offset", 0)
    if offset > node.size:
        raise QMPError(
            f"Offset ({offset}) cannot be greater than size of the containing file ({node.size})"
        )
    node.size = options.get("size", node.size - offset)


def _read_header(node: Node) -> None:
    file = node.file
    data = b"" if file is None else os.pread(file.fd, _QCOW2.size + 1, 0)
    if data[:4] != b"QFI\xfb":
        raise QMPError("Image is not in qcow2 format")
    fields = _QCOW2.unpack(data[: _QCOW2.size].ljust(_QCOW2.size, b"\0"))
    version, bits, size = fields[1], fields[4], fields[5]
    if version not in (2, 3):
        raise QMPError(f"Unsupported qcow2 version {version}")
    if not 9 <= bits <= 21:
        raise QMPError(f"Unsupported cluster size: 2^{bits}")
    incompatible, compatible, order = (
        (fields[13], fields[14], fields[16]) if version > 2 else (0, 0, 4)
    )
    node.size = size
    told: dict[str, JSON] = {
        "compat": "1.1" if version > 2 else "0.10",
        "compression-type": "zstd" if incompatible & 8 and data[_QCOW2.size :] == b"\1" else "zlib",
        "refcount-bits": 1 << order,
    }
    if version > 2:
        told["lazy-refcounts"] = bool(compatible & 1)
        told["corrupt"] = bool(incompatible & 2)
        told["extended-l2"] = bool(incompatible & 16)
    node.facts["cluster-size"] = 1 << bits
    node.facts["format-specific"] = {"type": "qcow2", "data": told}
