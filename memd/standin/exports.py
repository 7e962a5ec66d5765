"""The register of exports, and the NBD server: it listens, and disconnects each client.

Rules and texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memd.errors import QMPError, is_identifier
from memd.json_types import JSON
from memd.standin.blocks import Blocks, Node
from memd.standin.image_locks import NO_RESIZE, NO_WRITE, READ, WRITE, Locks
from memd.standin.tunable import IOThread
from memd.work import Event

if TYPE_CHECKING:
    from memd.places import Share
    from memd.standin.listeners import Listeners

Args = dict[str, Any]
_NBD = "nbd"
_LONGEST_NAME = 4096
"""Bytes of an export's name."""


class Exports:
    """The exports of a stand-in.

    Args:
        blocks: the nodes that are exported.
        listeners: where the server listens.
    """

    def __init__(self, blocks: Blocks, listeners: Listeners) -> None:
        self._blocks = blocks
        self._listeners = listeners
        # By id: the name that an NBD client would ask for, the node, the locks of its file, and
        # what it counts as.
        self._exports: dict[str, tuple[str, Node, Locks, Share]] = {}

    async def start(self, args: Args) -> None:
        """`nbd-server-start`; raises `QMPError` where it was started, or can't be."""
        if self._listeners.has(_NBD):
            raise QMPError("NBD server already running")
        if "tls-creds" in args:
            self._listeners.check_credentials(args["tls-creds"])
        addr = args["addr"]
        await self._listeners.open(_NBD, {"type": addr["type"], **addr["data"]})

    async def stop(self, args: object = None) -> tuple[Event, ...]:
        """`nbd-server-stop`; raises `QMPError` where it was not started."""
        self._need_server()
        await self._listeners.end(_NBD)
        return await self._drop(*reversed(self._exports))

    async def add(self, args: Args) -> None:
        """`block-export-add`; raises `QMPError`."""
        if not is_identifier(args["id"]):
            raise QMPError("Invalid block export id")
        self._check_free(args["id"])
        if args["type"] != _NBD:
            raise QMPError(f"memd exports no nodes by '{args['type']}'")
        await self._add(args["id"], self._blocks.named(args["node-name"], ""), args)

    async def add_device(self, args: Args) -> None:
        """`nbd-server-add`; raises `QMPError`."""
        self._need_server()
        node = self._blocks.named(args["device"])
        args = {"name": args["device"], **args}
        await self._add(args["name"], node, args)

    def _check_free(self, id: str) -> None:
        if id in self._exports:
            raise QMPError(f"Block export id '{id}' is already in use")

    async def _add(self, id: str, node: Node, args: Args) -> None:
        self._check_free(id)
        name, thread = args.get("name", node.name), args.get("iothread")
        if thread is not None and not isinstance(self._listeners.object(thread), IOThread):
            raise QMPError(f'iothread "{thread}" not found')
        if args.get("writable") and node.read_only and "node-name" in args:
            raise QMPError("Cannot export read-only node as writable")
        self._need_server()
        if len(name.encode(errors="surrogatepass")) > _LONGEST_NAME:
            raise QMPError(f"export name '{name}' too long")
        if any(name == taken for taken, *_ in self._exports.values()):
            raise QMPError(f"NBD server already has export named '{name}'")
        if args.get("writable") and not node.read_only:
            node.check_permission("an unnamed block device", NO_WRITE)
        for bitmap in args.get("bitmaps", ()):
            raise QMPError(f"Bitmap '{bitmap}' is not found")
        writes = args.get("writable") and not node.read_only
        claim = {READ, WRITE, NO_RESIZE} if writes else {READ, NO_RESIZE}
        share = self._blocks.account.charge({**args, "id": id})
        node.holds.append("Node")
        node.claims.append(claim)
        self._exports[id] = name, node, claim, share
        try:
            await self._blocks.relock()
        except QMPError:
            if id in self._exports:
                await self._drop(id)
            raise

    async def delete(self, args: Args) -> tuple[Event, ...]:
        """`block-export-del`; raises `QMPError` where there is none."""
        if args["id"] not in self._exports:
            raise QMPError(f"Export '{args['id']}' is not found")
        return await self._drop(args["id"])

    async def remove(self, args: Args) -> tuple[Event, ...]:
        """`nbd-server-remove`; raises `QMPError` where there is none."""
        self._need_server()
        return await self.delete({"id": args["name"]})

    async def _drop(self, *ids: str) -> tuple[Event, ...]:
        nodes = []
        for id in ids:
            _name, node, claim, share = self._exports.pop(id)
            share.end()
            node.holds.remove("Node")
            node.claims.remove(claim)
            nodes.append(node)
        await self._blocks.collect(*nodes)
        return tuple(Event("BLOCK_EXPORT_DELETED", {"id": id}) for id in ids)

    async def close(self) -> None:
        """Count none any more."""
        for *_, counted in self._exports.values():
            counted.end()

    def query(self, args: object = None) -> list[JSON]:
        """The value of `query-block-exports`."""
        return [
            {"id": id, "type": _NBD, "node-name": node.name, "shutting-down": False}
            for id, (_name, node, *_) in reversed(self._exports.items())
        ]

    def _need_server(self) -> None:
        if not self._listeners.has(_NBD):
            raise QMPError("NBD server not running")
