"""The register of block nodes: real files, opened and sized by the driver that is named.

Nobody reads or writes a guest's data in them; of qcow2 images there is the
metadata. What is known of drivers, rules and texts was observed on QEMU
10.0.2 and 11.1.3.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from memd.compat import Compat
from memd.errors import QMPError
from memd.hostmem.file_systems import of_paths
from memd.hostmem.files import encode_path
from memd.hostmem.libc import PAGE_SIZE
from memd.hostmem.paths import open_path
from memd.json_types import JSON
from memd.qapi.hash_order import object_order
from memd.standin.qcow2 import Header
from memd.work import Event, Job

if TYPE_CHECKING:
    from memd.hostmem.paths import Roots

_MOST = 1024
"""Nodes that clients may have at a time: each may hold a descriptor."""

_SECTOR = 512
_LONGEST = (1 << 63) - (1 << 30)
"""Bytes of a node at most."""

_NULL_SIZE = 1 << 30
DRIVERS = ("file", "raw", "qcow2", "null-co", "null-aio")
"""Those that memd has."""

_ACCESS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_CACHE = {"no-flush": False, "direct": False, "writeback": True}
_LIMITS = {
    f"{kind}{short}": f"{kind}-{part}"
    for kind in ("bps", "iops")
    for short, part in (("", "total"), ("_rd", "read"), ("_wr", "write"))
}
"""The limits of throughput as `block_set_io_throttle` has them, and as a throttle group does."""
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

_DISCARDS = ("discard-nb-ok", "discard-nb-failed", "discard-bytes-ok")


class Node:
    """A block node.

    Attributes:
        name: its name; one of memd's making where it was given none.
        driver: which kind it is.
        filename: what it is told to be.
        options: what `filename` is made of, where it is no file's path.
        size: its bytes as a guest would see them.
        offset: where they begin in what is below it.
        length: how many a raw node was told to have, None for all that there are.
        read_only: whether nothing may be written to it.
        child: the node that has its bytes, or None.
        backing: the node that has what this one has not, or None.
        owned: whether it stays until it is deleted by name.
        job: the kind of the block job that keeps others from it, or None.
        holds: what else uses it, each as an error calls the node then.
        header: a qcow2 image's.
        device: what uses it: a device's id or path, None for nobody.
        qdev: the same as clients are told of it.
        facts: what else is told of the image.
        limits: what `query-block` tells of the limits of throughput that were set.
    """

    def __init__(self, name: str, driver: str, *, read_only: bool) -> None:
        self.name = name
        self.driver = driver
        self.read_only = read_only
        self.filename = ""
        self.options: dict[str, JSON] = {"driver": driver}
        self.size = self.offset = 0
        self.length: int | None = None
        self.fd = -1
        self.child: Node | None = None
        self.backing: Node | None = None
        self.owned = False
        self.job: str | None = None
        self.holds: list[str] = []
        self.header: Header | None = None
        self.device: str | None = None
        self.qdev = ""
        self.facts: dict[str, JSON] = {}
        self.limits: dict[str, JSON] = {}

    @property
    def file(self) -> Node | None:
        """The node that has the file open."""
        return next((each for each in self.layers() if each.fd >= 0), None)

    def layers(self) -> Iterator[Node]:
        """The node, the one that has its bytes, that one's and so on."""
        at: Node | None = self
        while at is not None:
            yield at
            at = at.child

    def chain(self) -> Iterator[Node]:
        """The node, its backing node, that one's and so on."""
        at: Node | None = self
        while at is not None:
            yield at
            at = at.backing

    def set_read_only(self, read_only: bool) -> None:
        """Have it and the nodes that have its bytes written to or not."""
        for each in self.layers():
            each.read_only = read_only

    def close(self) -> None:
        """Close its file. May wait."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Blocks:
    """The block nodes of a stand-in, and its NBD server, to which nobody can connect.

    Args:
        compat: whose nodes it tells of.
    """

    def __init__(self, compat: Compat) -> None:
        self._compat = compat
        self._nodes: dict[str, Node] = {}
        self._making: set[str] = set()
        self._numbers = 0
        self._serving = False
        self._exports: dict[str, str] = {}

    async def clear(self) -> None:
        """Close every node."""
        nodes = [*self._nodes.values()]
        self._nodes.clear()
        await Job(lambda: _close(nodes), on=_waits_for(nodes))

    def find(self, name: str) -> Node | None:
        """The node of that name."""
        return self._nodes.get(name)

    def all(self) -> list[Node]:
        """Every node, the oldest first."""
        return [*self._nodes.values()]

    def users(self, node: Node) -> list[Node]:
        """The nodes above a node."""
        return [each for each in self._nodes.values() if node in (each.child, each.backing)]

    def named(self, name: str, device: str | None = None) -> Node:
        """The node of that name; raises `QMPError` where there is none.

        Args:
            device: another name for it, where a client may give one of two.
        """
        node = self._nodes.get(name or device or "")
        if node is None:
            raise QMPError(
                f"Cannot find device='{name if device is None else device}' nor node-name='{name}'"
            )
        return node

    async def add(self, args: dict[str, Any], roots: Roots | None, *, owned: bool = True) -> Node:
        """`blockdev-add`; gives the node.

        Args:
            roots: what its files have to be below.
            owned: whether it stays until it is deleted by name.

        Raises:
            QMPError: it can't be; nothing is left behind.
        """
        made: list[Node] = []
        top = self._plan(args, made)
        named = [node.name for node in made]
        self._making.update(named)
        try:
            await Job(lambda: _open(made, roots), on=_waits_for(made))
        finally:
            self._making.difference_update(named)
        top.owned = owned
        for node in made:
            self._nodes[node.name] = node
        return top

    def _plan(self, options: dict[str, Any], made: list[Node]) -> Node:
        """A node that is to be; it is added to `made`, after those below that come with it."""
        driver = options["driver"]
        if driver not in DRIVERS:
            raise QMPError(f"memd has no block driver '{driver}'")
        name = self._take_name(options.get("node-name"))
        if any(each.name == name for each in made):
            raise QMPError(f"Duplicate nodes with node-name='{name}'")
        for each in ("offset", "size"):
            if options.get(each, 0) < 0:
                raise QMPError(f"Value '{options[each]}' is out of range for parameter '{each}'")
        node = Node(name, driver, read_only=options.get("read-only", False))
        if driver == "file":
            node.filename = node.options["filename"] = options["filename"]
        elif driver.startswith("null"):
            node.options["size"] = options.get("size", _NULL_SIZE)
            node.size = _sectors(node.options["size"])
            node.filename = _as_json(node)
        else:
            node.child = self._plan_below(options["file"], node.read_only, made)
            node.offset, node.length = options.get("offset", 0), options.get("size")
            node.options |= {each: options[each] for each in ("offset", "size") if each in options}
            node.options["file"] = node.child.options
            node.filename = node.child.filename
            if node.filename.startswith("json:") or len(node.options) > 2:
                node.filename = _as_json(node)
            try:
                if options.get("backing") is not None:
                    node.backing = self._plan_below(options["backing"], True, made)
            except QMPError as error:
                raise QMPError(f"Could not open backing file: {error.desc}") from None
        made.append(node)
        return node

    def _plan_below(self, told: Any, read_only: bool, made: list[Node]) -> Node:
        if type(told) is dict:
            return self._plan({"read-only": read_only, **told}, made)
        return self.named(told)

    def _take_name(self, name: str | None) -> str:
        """The name of a node that is to be; raises `QMPError` where it can't be."""
        if name is None:
            self._numbers += 1
            name = f"#block{self._numbers:03}"
        if name in self._nodes or name in self._making:
            raise QMPError(f"Duplicate nodes with node-name='{name}'")
        if len(self._nodes) + len(self._making) >= _MOST:
            raise QMPError(f"there are {_MOST} block nodes, and may be no more")
        return name

    def check_free(self, node: Node) -> None:
        """Raise `QMPError` where a node above or a block job keeps others from it."""
        if node.job is not None:
            raise QMPError(
                f"Node '{node.name}' is busy: block device is in use by block job: {node.job}"
            )
        for each in self.users(node):
            if each.backing is node:
                raise QMPError(
                    f"Node '{node.name}' is busy: node is used as backing hd of '{each.name}'"
                )

    async def delete(self, name: str) -> None:
        """`blockdev-del`.

        Raises:
            QMPError: there is none, or it is in use.
        """
        node = self._nodes.get(name)
        if node is None:
            raise QMPError(f"Failed to find node with node-name='{name}'")
        if node.job is None and (node.device is not None or node.holds):
            raise QMPError(f"{(*node.holds, 'Node')[0]} {name} is in use")
        self.check_free(node)
        if self.users(node) or name in self._exports.values():
            raise QMPError(f"Block device {name} is in use")
        if not node.owned:
            raise QMPError(f"Node {name} is not owned by the monitor")
        node.owned = False
        await self.collect(node)

    async def collect(self, node: Node | None) -> None:
        """Close a node that has neither a user nor a name of a client's, and those below it."""
        gone: list[Node] = []
        todo = [node]
        while todo:
            at = todo.pop()
            if at is None or at.owned or at.holds or at.job or at.device is not None:
                continue
            if self.users(at) or self._nodes.get(at.name) is not at:
                continue
            del self._nodes[at.name]
            gone.append(at)
            todo += [at.child, at.backing]
        if gone:
            await Job(lambda: _close(gone), on=_waits_for(gone))

    def replace(self, old: Node, new: Node) -> None:
        """Have what uses a node use another one."""
        new.device, new.qdev, old.device, old.qdev = old.device, old.qdev, None, ""
        for each in self._nodes.values():
            if each is not new and each.child is old:
                each.child = new
            if each is not new and each.backing is old:
                each.backing = new

    def release(self, names: tuple[str | None, ...]) -> Node | None:
        """A device, of which these are names, uses no node any more; the one that it used."""
        for node in self._nodes.values():
            if node.device is not None and node.device in names:
                node.device, node.limits = None, {}
                return node
        return None

    async def resize(self, device: str | None, name: str | None, size: int) -> None:
        """`block_resize`: the file behind a raw node has another size.

        Raises:
            QMPError: it can't have.
        """
        node = self.named(name or "", device or "")
        if size < 0:
            raise QMPError("Parameter 'size' expects a >0 size")
        self.check_free(node)
        file = node.file
        if node.driver.startswith("null"):
            raise QMPError("Image format driver does not support resize")
        if file is None or node.driver == "qcow2":
            raise QMPError(f"memd does not resize images of the format '{node.driver}'")
        if node.read_only:
            raise QMPError("Image is read-only")
        sizes: dict[Node, int] = {}
        for each in node.layers():
            if size > _LONGEST:
                raise QMPError(f"offset({size}) exceeds maximum({_LONGEST})")
            if each.length is not None:
                raise QMPError("Cannot resize fixed-size raw disks")
            sizes[each] = size
            size += each.offset

        def work() -> None:
            os.ftruncate(file.fd, size)
            measure(file)

        try:
            await Job(work, on=_waits_for([file]))
        except OSError as error:
            raise QMPError(f"Could not resize file: {error.strerror}") from None
        for each, its in sizes.items():
            each.size = _sectors(its)

    def conflict(self, node: Node, who: str) -> QMPError:
        """What is said to a second device that is to use a node."""
        return QMPError(
            f"Permission conflict on node '{node.name}': permissions 'write' are both required by"
            f" block device '{node.device}' (uses node '{node.name}' as 'root' child) and unshared"
            f" by block device '{who}' (uses node '{node.name}' as 'root' child)."
        )

    def nodes(self, *, flat: bool) -> list[JSON]:
        """The value of `query-named-block-nodes`, the youngest first.

        Args:
            flat: whether nothing is told there of backing nodes.
        """
        return [_info(node, self._compat, flat=flat) for node in reversed(self._nodes.values())]

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
                "inserted": {**_info(node, self._compat), **node.limits},
            }
            for node in self._nodes.values()
            if node.device is not None
        ]

    def limit(self, id: str, args: dict[str, Any]) -> bool:
        """`block_set_io_throttle`, which holds nothing back.

        Args:
            id: the device's, or its path.
            args: the command's.

        Returns:
            Whether a device of that name uses a node.

        Raises:
            QMPError: the limits contradict each other.
        """
        from memd.standin.tunable import NO_LIMITS, check_limits

        for node in self._nodes.values():
            if node.device is not None and id in (node.qdev, f"/machine/peripheral/{node.qdev}"):
                break
        else:
            return False
        limits = {**NO_LIMITS, "iops-size": args.get("iops_size", 0)}
        told: dict[str, JSON] = {}
        for name, other in _LIMITS.items():
            told[name] = limits[other] = args[name]
            limits[f"{other}-max"] = most = args.get(f"{name}_max", 0)
            limits[f"{other}-max-length"] = length = args.get(f"{name}_max_length", 1)
            if most:
                told |= {f"{name}_max": most, f"{name}_max_length": length}
        check_limits(limits)
        if any(told.values()):
            told["group"] = args.get("group", node.limits.get("group", id))
        if limits["iops-size"]:
            told["iops_size"] = limits["iops-size"]
        node.limits = told
        return True

    def statistics(self, *, by_node: bool) -> list[JSON]:
        """The value of `query-blockstats`: nothing was ever read or written."""
        if by_node:
            return [_statistics(node, backing=False) for node in reversed(self._nodes.values())]
        return [
            {**_statistics(node, backing=True), "device": "", "qdev": node.qdev}
            for node in self._nodes.values()
            if node.device is not None
        ]

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
        self.named(name)
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


def _as_json(node: Node) -> str:
    """A node that is no file as a whole, as a file's name."""

    def ordered(options: dict[str, JSON]) -> dict[str, JSON]:
        return {
            name: ordered(options[name]) if type(options[name]) is dict else options[name]
            for name in object_order(options)
        }

    return f"json:{json.dumps(ordered(node.options))}"


def _statistics(node: Node, *, backing: bool) -> dict[str, JSON]:
    """QAPI's `BlockStats` of a node and those below it."""
    stats: dict[str, JSON] = dict.fromkeys(_COUNTS, 0)
    stats |= {"timed_stats": [], "account_invalid": False, "account_failed": False}
    if backing and node.device is not None:
        stats |= {"account_invalid": True, "account_failed": True}
    row: dict[str, JSON] = {"node-name": node.name, "stats": stats}
    if node.driver == "file":
        row["driver-specific"] = {"driver": "file", **dict.fromkeys(_DISCARDS, 0)}
    if node.child is not None:
        row["parent"] = _statistics(node.child, backing=backing)
    if backing and node.backing is not None:
        row["backing"] = _statistics(node.backing, backing=True)
    return row


def _info(node: Node, compat: Compat, *, flat: bool = False) -> dict[str, JSON]:
    chain = [*node.chain()]
    info: dict[str, JSON] = {
        "node-name": node.name,
        "drv": node.driver,
        "ro": node.read_only,
        "file": node.filename,
        "image": _image(node, None if flat else node.backing, compat),
        "encrypted": False,
        "detect_zeroes": "off",
        "active": True,
        "backing_file_depth": 0 if flat else len(chain) - 1,
        "write_threshold": 0,
        "cache": _CACHE,
        **dict.fromkeys(_LIMITS, 0),
    }
    if node.backing is not None:
        info["backing_file"] = node.backing.filename
    if compat is not Compat.V10_0:
        below = {"file": node.child, "backing": node.backing}
        info["children"] = [
            {"child": role, "node-name": each.name} for role, each in below.items() if each
        ]
    return info


def _image(node: Node, backing: Node | None, compat: Compat) -> dict[str, JSON]:
    """QAPI's `ImageInfo`."""
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
    image |= node.facts
    if node.header is not None and node.header.backing is not None:
        image["backing-filename"] = node.header.backing
        image["full-backing-filename"] = os.path.join(
            os.path.dirname(node.filename), node.header.backing
        )
        if node.header.backing_format is not None:
            image["backing-filename-format"] = node.header.backing_format
    if compat is not Compat.V10_0:
        unit = image.get("cluster-size")
        image["limits"] = {
            "request-alignment": 1,
            "min-mem-alignment": _SECTOR if file is None else 1,
            "opt-mem-alignment": PAGE_SIZE,
            "max-iov": 1024,
            **({"discard-alignment": unit, "write-zeroes-alignment": unit} if unit else {}),
        }
    if backing is not None:
        image["backing-image"] = _image(backing, backing.backing, compat)
    return image


def _waits_for(nodes: list[Node]) -> frozenset[int]:
    """What opening or closing their files may wait for; see `Job.on`."""
    return of_paths(each.filename for each in nodes if each.driver == "file")


def _open(nodes: list[Node], roots: Roots | None) -> None:
    """Open the files of nodes, the lowest first. Runs in a thread."""
    try:
        for node in nodes:
            if node.driver == "file":
                _open_file(node, roots)
            elif node.child is not None:
                node.size = node.child.size
                if node.driver == "qcow2":
                    read_header(node)
                else:
                    _cut(node)
    except BaseException:
        _close(nodes)
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
    if not stat.S_ISREG(os.fstat(node.fd).st_mode):
        raise QMPError(f"'file' driver requires '{path}' to be a regular file")
    measure(node)
    node.facts["format-specific"] = {"type": "file", "data": {}}


def _sectors(size: int) -> int:
    """A size in whole sectors."""
    return -(-size // _SECTOR) * _SECTOR


def measure(file: Node) -> None:
    """See how large the file of a node is; in a thread."""
    found = os.fstat(file.fd)
    file.size = _sectors(found.st_size)
    file.facts["actual-size"] = found.st_blocks * 512


def _cut(node: Node) -> None:
    """A raw node may be a part of what is below it."""
    if node.offset > node.size:
        raise QMPError(
            f"Offset ({node.offset}) cannot be greater than size of the containing file"
            f" ({node.size})"
        )
    length = node.size - node.offset if node.length is None else node.length
    if length > node.size - node.offset:
        raise QMPError(
            f"The sum of offset ({node.offset}) and size ({length}) has to be smaller or equal to"
            f" the  actual size of the containing file ({node.size})"
        )
    if node.length is not None and length % _SECTOR:
        raise QMPError(f"Specified size is not multiple of {_SECTOR}")
    node.size = _sectors(length)


def read_header(node: Node) -> None:
    """Take over what an image's header tells; in a thread."""
    file = node.file
    if file is None:
        raise QMPError("Image is not in qcow2 format")
    node.header = Header(file.fd)
    node.size = node.header.size
    node.facts |= node.header.facts
