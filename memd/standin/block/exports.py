"""The register of exports, and the NBD server: it listens, and disconnects each client.

Rules and texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from typing import Any

from memd.errors import QMPError, is_identifier
from memd.json_types import JSON, JSONObject
from memd.named_tuple import NamedTuple
from memd.places import Share
from memd.standin.block.bitmaps import Bitmaps, bitmap_of
from memd.standin.block.blocks import Blocks
from memd.standin.block.dirty_bitmap import Bitmap
from memd.standin.block.image_locks import NO_RESIZE, READ, WRITE
from memd.standin.block.nodes import Claim, Node
from memd.standin.listeners import Listeners
from memd.standin.tunable import IOThread
from memd.work import Event, Events

_NBD = "nbd"
_LONGEST_NAME = 4096
"""Bytes of an export's name."""


class _Export(NamedTuple):
    """An export.

    Attributes:
        name: what an NBD client would ask for.
        claim: what is exported, and the locks of its file.
        bitmaps: those that are exported with it.
        counted: what it counts as.
    """

    name: str
    claim: Claim
    bitmaps: list[Bitmap]
    counted: Share


class Exports:
    """The exports of a stand-in.

    Args:
        blocks: the nodes that are exported.
        listeners: where the server listens.
    """

    def __init__(self, blocks: Blocks, listeners: Listeners) -> None:
        self._blocks = blocks
        self._listeners = listeners
        self._bitmaps = Bitmaps(blocks)
        self._exports: dict[str, _Export] = {}

    async def start(self, args: JSONObject) -> None:
        """`nbd-server-start`; raises `QMPError` where it was started, or can't be."""
        if self._listeners.has(_NBD):
            raise QMPError("NBD server already running")
        if "tls-creds" in args:
            self._listeners.check_credentials(args["tls-creds"])
        addr = args["addr"]
        await self._listeners.open(_NBD, {"type": addr["type"], **addr["data"]})

    async def stop(self, args: object = None) -> Events:
        """`nbd-server-stop`; raises `QMPError` where it was not started."""
        self._need_server()
        await self._listeners.end(_NBD)
        return await self._drop(*reversed(self._exports))

    async def add(self, args: JSONObject) -> None:
        """`block-export-add`; raises `QMPError`."""
        if not is_identifier(args["id"]):
            raise QMPError("Invalid block export id")
        self._check_free(args["id"])
        if args["type"] != _NBD:
            raise QMPError(f"memd exports no nodes by '{args['type']}'")
        await self._add(args["id"], self._blocks.named(args["node-name"], ""), args)

    async def add_device(self, args: JSONObject) -> None:
        """`nbd-server-add`; raises `QMPError`."""
        self._need_server()
        node = self._blocks.named(args["device"])
        bitmaps = [args["bitmap"]] if "bitmap" in args else []
        args = {"name": args["device"], "bitmaps": bitmaps, **args}
        await self._add(args["name"], node, args)

    def _check_free(self, id: str) -> None:
        if id in self._exports:
            raise QMPError(f"Block export id '{id}' is already in use")

    async def _add(self, id: str, node: Node, args: JSONObject) -> None:
        self._check_free(id)
        name, thread = args.get("name", node.name), args.get("iothread")
        if thread is not None and not isinstance(self._listeners.object(thread), IOThread):
            raise QMPError(f'iothread "{thread}" not found')
        if args.get("writable") and node.read_only and "node-name" in args:
            raise QMPError("Cannot export read-only node as writable")
        writes = args.get("writable", False) and not node.read_only
        used = Claim(node, {READ, WRITE} if writes else {READ})
        try:
            await self._blocks.relock()
            await self._export(id, name, used, args, writes=writes)
        except QMPError:
            if id in self._exports and self._exports[id].claim is used:
                await self._drop(id)
            else:
                used.end()
                await self._blocks.collect(used.node)
            raise

    async def _export(
        self, id: str, name: str, used: Claim, args: JSONObject, *, writes: bool
    ) -> None:
        """Export what is used for that; raises `QMPError`."""
        node = used.node
        self._check_free(id)
        self._need_server()
        if len(name.encode(errors="surrogatepass")) > _LONGEST_NAME:
            raise QMPError(f"export name '{name}' too long")
        if any(name == each.name for each in self._exports.values()):
            raise QMPError(f"NBD server already has export named '{name}'")
        bitmaps = [self._bitmap(node, each, writes) for each in args.get("bitmaps", ())]
        share = self._blocks.account.charge({**args, "id": id})
        for bitmap in bitmaps:
            bitmap.busy = True
        self._exports[id] = _Export(name, used, bitmaps, share)
        used.locks = {*used.locks, NO_RESIZE}
        await self._blocks.relock()

    def _bitmap(self, node: Node, told: Any, writes: bool) -> Bitmap:
        """A bitmap that is to be exported with a node; raises `QMPError`."""
        if type(told) is dict:
            return self._bitmaps.free(told, changes=False)[1]
        node = next((each for each in node.shown() if told in each.bitmaps), node)
        bitmap = bitmap_of(node, told, "Bitmap '{}' is not found")
        bitmap.check_free()
        if not writes and not node.read_only and bitmap.recording:
            raise QMPError(f"Enabled bitmap '{bitmap.name}' incompatible with readonly export")
        return bitmap

    async def delete(self, args: JSONObject) -> Events:
        """`block-export-del`; raises `QMPError` where there is none."""
        if args["id"] not in self._exports:
            raise QMPError(f"Export '{args['id']}' is not found")
        return await self._drop(args["id"])

    async def remove(self, args: JSONObject) -> Events:
        """`nbd-server-remove`; raises `QMPError` where there is none."""
        self._need_server()
        return await self.delete({"id": args["name"]})

    async def _drop(self, *ids: str) -> Events:
        nodes = []
        for id in ids:
            export = self._exports.pop(id)
            export.counted.end()
            for bitmap in export.bitmaps:
                bitmap.busy = False
            export.claim.end()
            nodes.append(export.claim.node)
        await self._blocks.collect(*nodes)
        return tuple(Event("BLOCK_EXPORT_DELETED", {"id": id}) for id in ids)

    async def close(self) -> None:
        """Count none any more."""
        for each in self._exports.values():
            each.counted.end()

    def query(self, args: object = None) -> list[JSON]:
        """The value of `query-block-exports`."""
        return [
            {"id": id, "type": _NBD, "node-name": each.claim.node.name, "shutting-down": False}
            for id, each in reversed(self._exports.items())
        ]

    def _need_server(self) -> None:
        if not self._listeners.has(_NBD):
            raise QMPError("NBD server not running")
