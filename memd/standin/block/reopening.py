"""`blockdev-reopen`: nodes get other options, all that are named or none.

Rules and texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import os
from typing import Any

from memd.errors import QMPError, refusing
from memd.hostmem.paths import FDSETS, Roots
from memd.json_types import JSONObject
from memd.qapi.hash_order import object_order
from memd.standin.block.blocks import Blocks, check_options
from memd.standin.block.image_locks import WRITE
from memd.standin.block.nodes import (
    REMOTE,
    Node,
    changeable,
    check_cycle,
    check_depth,
    held,
    waits_for,
)
from memd.standin.block.opening import open_image, part_of
from memd.work import Job

Changes = dict[Node, JSONObject]
"""What attributes of nodes are to be, or were."""

_MUTABLE = {"raw": ("offset", "size"), "throttle": ("throttle-group",)}
"""The options of a driver's own that may change."""

_OWN = ("driver", "filename", "size", "read-zeroes", "locking", "force-share")
"""Those that may not."""


class Reopening:
    """The command.

    Args:
        blocks: the nodes.
        roots: what their files have to be below.
    """

    def __init__(self, blocks: Blocks, roots: Roots | None) -> None:
        self._blocks = blocks
        self._roots = roots

    async def reopen(self, args: JSONObject) -> None:
        """`blockdev-reopen`; raises `QMPError`, and nothing has changed then."""
        changes = self._plan(args["options"])
        files = _opened_otherwise(changes)
        share = self._blocks.account.charge({}, descriptors=len(files))
        # Those below now stay while they may have to come back.
        nodes = [*dict.fromkeys(each for node in changes for each in (node, *node.below))]
        fds: dict[Node, int] = {}
        with held(nodes, "Block device"):
            try:
                await self._change(args["options"], files, fds)
            finally:
                if fds:
                    await Job(lambda: _close(fds), on=waits_for([*fds]), release=True)
                share.end()
        self._blocks.rename(*changes)
        await self._blocks.collect(*nodes)

    async def _change(
        self, options: list[JSONObject], files: dict[Node, bool], fds: dict[Node, int]
    ) -> None:
        if files:
            await Job(lambda: self._open(files, fds), on=waits_for(files))
        changes = self._plan(options)
        if _opened_otherwise(changes) != files:
            raise QMPError("the nodes have changed meanwhile")
        before = _swap(changes)
        try:
            _check_writers(before)
            # While the files of images may still be written to.
            await self._blocks.sync(marks=False)
            await self._blocks.relock()
        except QMPError:
            _swap(before)
            await self._blocks.relock(refuse=False)
            await self._blocks.sync()
            raise
        for node in before:
            if node.child is not None:
                node.align()
        if fds:
            await Job(lambda: _take(fds), on=waits_for(fds))

    def _open(self, files: dict[Node, bool], fds: dict[Node, int]) -> None:
        """Open files once more; in a thread. Raises `QMPError`."""
        for node, read_only in files.items():
            path = node.options["filename"]
            with refusing(f"Could not open '{path}'"):
                fds[node] = open_image(path, read_only, self._roots)

    def _plan(self, options: list[JSONObject]) -> Changes:
        changes: Changes = {}
        for told in options:
            if "node-name" not in told:
                raise QMPError("node-name not specified")
            node = self._blocks.find(told["node-name"])
            if node is None or node.name != told["node-name"]:
                raise QMPError(f"Failed to find node with node-name='{told['node-name']}'")
            self._plan_one(node, told, changes)
        return changes

    def _plan_one(self, node: Node, told: JSONObject, changes: Changes) -> None:
        if node.driver in (*REMOTE, "copy-on-read"):
            raise QMPError(
                f"Block format '{node.driver}' used by node '{node.name}' does not support"
                " reopening files"
            )
        fixed = _check_kept(node, told)
        check_options(told)
        if told.get("backing") is not None and node.driver != "qcow2":
            raise QMPError(
                f"Driver '{node.driver}' of node '{node.name}' does not support backing files"
            )
        new = changes[node] = changeable(told, node.driver)
        self._plan_below(node, told, new, changes)
        for name in object_order(told):
            if name in _OWN and name not in _MUTABLE.get(node.driver, ()):
                if told[name] != fixed.get(name):
                    raise QMPError(f"Cannot change the option '{name}'")

    def _plan_below(self, node: Node, told: JSONObject, new: JSONObject, changes: Changes) -> None:
        """Have a node stand on what it is told to; raises `QMPError`."""
        if node.child is None or "file" not in told:
            return
        read_only, cache = new["read_only"], new["cache"]
        inherited = {"read-only": read_only, "auto-read-only": new["auto"], "discard": "unmap"}
        child = self._below(node, "file", told["file"], inherited, cache, changes)
        if child is not node.child:
            if child is None or node.driver == "qcow2":
                raise QMPError("memd does not give a qcow2 image another file")
            new |= {"child": child, "size": child.size}
        if node.driver == "raw":
            own = {name: told[name] for name in _MUTABLE["raw"] if name in told}
            new["offset"], new["length"] = own.get("offset", 0), own.get("size")
            new["size"] = part_of(child.size, new["offset"], new["length"])
            new["options"] = own
        elif node.driver == "throttle":
            new["group"] = self._blocks.group(told["throttle-group"])
            new["options"] = {"throttle-group": told["throttle-group"]}
        elif node.driver == "qcow2":
            if read_only and node.has_lost_bitmaps:
                raise QMPError("No write access")
            if "backing" not in told:
                header = node.header
                if node.backing is not None or (header is not None and header.backing):
                    raise QMPError(f"backing is missing for '{node.name}'")
                return
            inherited["read-only"] = True
            backing = self._below(node, "backing", told["backing"], inherited, cache, changes)
            new["alone"] = backing is None
            if backing is not node.backing:
                new["backing"] = backing
                if backing is not None:
                    check_depth(backing, overlays=1)

    def _below(
        self,
        node: Node,
        role: str,
        told: Any,
        inherited: JSONObject,
        cache: JSONObject,
        changes: Changes,
    ) -> Node | None:
        """What a node is to stand on; raises `QMPError`."""
        now = node.child if role == "file" else node.backing
        if told is None:
            _check_frozen(node, now, role)
            return None
        found = now if type(told) is dict else self._blocks.named(told, "")
        if type(told) is dict and (now is None or now.came_with is not node):
            raise QMPError(f"Cannot change the option '{role}.driver'")
        assert found is not None
        if found is now:
            if now.came_with is node and (role == "file" or type(told) is dict):
                own = told if type(told) is dict else _told(now)
                given = {**inherited, **own, "cache": {**cache, **own.get("cache", {})}}
                self._plan_one(now, given, changes)
            return now
        check_cycle(node, found, role)
        _check_frozen(node, now, role)
        return found


def _told(node: Node) -> JSONObject:
    """The options of a node that stays as it is."""
    below = {role: each.name for role, each in node.roles}
    return {"driver": node.driver, **node.options, **below}


def _check_frozen(node: Node, now: Node | None, role: str) -> None:
    """Raise `QMPError` where a block job needs what a node stands on now."""
    if now is not None and now.implicit:
        raise QMPError(f"Cannot replace implicit {role} child of {node.name}")
    if now is not None and node.frozen:
        raise QMPError(f"Cannot change frozen '{role}' link from '{node.name}' to '{now.name}'")


def _check_kept(node: Node, told: JSONObject) -> JSONObject:
    """The options of a node that can't change; raises `QMPError` where one is not told again."""
    fixed = {"driver": node.driver, **node.options}
    if node.locking is not None:
        fixed["locking"] = node.locking
    if node.tells_share:
        # It is never the same, whatever it is told to be.
        fixed["force-share"] = None
    mutable = _MUTABLE.get(node.driver, ())
    for name in object_order(fixed):
        if name not in told and name not in mutable:
            raise QMPError(f"Option '{name}' cannot be reset to its default value")
    return fixed


def _take(fds: dict[Node, int]) -> None:
    for node, fd in fds.items():
        node.take(fd)


def _close(fds: dict[Node, int]) -> None:
    for fd in fds.values():
        os.close(fd)


def _opened_otherwise(changes: Changes) -> dict[Node, bool]:
    """The nodes whose files are to be opened for something else, and whether only to be read."""
    found = {}
    for node, new in changes.items():
        if node.fd >= 0 and node.read_only != new["read_only"]:
            if node.options["filename"].startswith(FDSETS):
                raise QMPError("memd does not open the descriptors of a set for something else")
            found[node] = new["read_only"]
    return found


def _swap(changes: Changes) -> Changes:
    """Have the attributes of nodes changed; gives what takes that back."""
    before = {node: {name: getattr(node, name) for name in new} for node, new in changes.items()}
    for node, new in changes.items():
        if node.group is not None:
            node.group.users.discard(node)
        for name, value in new.items():
            setattr(node, name, value)
        if node.group is not None:
            node.group.users.add(node)
    return before


def _check_writers(before: Changes) -> None:
    """Raise `QMPError` where nodes that may not be written to any more are."""
    for node in dict.fromkeys(below for each in before for below in each.layers()):
        was = before.get(node, {}).get("read_only", node.read_only)
        if node.read_only and _is_written(node, was):
            if was:
                raise QMPError("Block node is read-only")
            raise QMPError(f"Read-only block node '{node.name}' cannot support read-write users")


def _is_written(node: Node, was_read_only: bool = False) -> bool:
    """Whether something writes to a node."""
    if not was_read_only and any(drive.writes for drive in node.drives):
        return True
    if any(WRITE in claim.locks for claim in node.claims):
        return True
    return any(
        above.driver == "copy-on-read"
        or (not above.read_only and (above.driver == "qcow2" or _is_written(above)))
        for above in node.above
        if above.child is node
    )
