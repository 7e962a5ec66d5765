"""What QMP tells of a block node: QAPI's `BlockDeviceInfo`, and `ImageInfo` of its image.

Members were observed on QEMU 10.0.2 and 11.1.3.
"""

from __future__ import annotations

import os
from typing import Any

from memd.compat import Compat
from memd.hostmem.libc import PAGE_SIZE
from memd.json_types import JSONObject
from memd.standin.block.nodes import Node
from memd.standin.block.throttling import LIMITS


def device_info(node: Node, compat: Compat, *, flat: bool = False) -> JSONObject:
    """QAPI's `BlockDeviceInfo`.

    Args:
        flat: whether nothing is told there of backing nodes.
    """
    info: JSONObject = {
        "node-name": node.name,
        "drv": node.driver,
        "ro": node.read_only,
        "file": node.filename,
        "image": _image(node, None if flat else node.shown_below, compat),
        "encrypted": False,
        "detect_zeroes": node.zeroes,
        "active": True,
        "backing_file_depth": 0 if flat else len([*node.shown()]) - 1,
        "write_threshold": node.threshold,
        "cache": {**node.cache, "writeback": True},
        **dict.fromkeys(LIMITS, 0),
    }
    if node.backing is not None:
        info["backing_file"] = node.backing.filename
    bitmaps = [each.told() for each in reversed(node.bitmaps.values())]
    bitmaps += (
        {
            "count": count,
            "granularity": granularity,
            "recording": recording,
            **dict.fromkeys(("busy", "persistent"), False),
        }
        for granularity, count, recording in node.nameless
    )
    if bitmaps:
        info["dirty-bitmaps"] = bitmaps
    if compat is not Compat.V10_0:
        below = {"file": node.child, "backing": node.backing}
        info["children"] = [
            {"child": role, "node-name": each.name} for role, each in below.items() if each
        ]
    return info


def _image(node: Node, backing: Node | None, compat: Compat) -> JSONObject:
    """QAPI's `ImageInfo`."""
    image: JSONObject = {
        "filename": node.filename,
        "format": node.driver,
        "virtual-size": node.size,
        "actual-size": 0,
    }
    file = node.file
    if file is not None:
        image["actual-size"] = file.facts.get("actual-size", 0)
        if file.driver != "host_cdrom":
            image["dirty-flag"] = False
    image |= node.facts
    header = node.with_header.header
    if header is not None and header.snapshots:
        image["snapshots"] = [each.told() for each in header.snapshots]
    if node.stored:
        # Of the directory of bitmaps.
        data = node.facts["format-specific"]["data"]
        told = {**data, "bitmaps": [each.told() for each in node.stored]}
        image["format-specific"] = {"type": node.driver, "data": told}
    # What stands on an image tells of its clusters.
    for each in node.layers():
        if "cluster-size" in each.facts:
            image["cluster-size"] = each.facts["cluster-size"]
            break
    if node.header is not None and node.header.backing is not None:
        image["backing-filename"] = node.header.backing
        image["full-backing-filename"] = _beside(
            node.filename if file is None else file.filename, node.header.backing
        )
        if node.header.backing_format is not None:
            image["backing-filename-format"] = node.header.backing_format
    if compat is not Compat.V10_0:
        zeroes: Any = node.facts.get("cluster-size")
        if node.header is not None and node.header.has_parts:
            zeroes //= 32
        units = {
            "discard-alignment": image.get("cluster-size"),
            "write-zeroes-alignment": zeroes,
        }
        memory, requests = node.alignments
        image["limits"] = {
            "request-alignment": requests,
            "min-mem-alignment": memory,
            "opt-mem-alignment": PAGE_SIZE,
            "max-iov": 1024,
            **{name: unit for name, unit in units.items() if unit},
        }
    if backing is not None:
        image["backing-image"] = _image(backing, backing.shown_below, compat)
    return image


def _beside(path: str, name: str) -> str:
    """What an image names as its backing file, from where that image is."""
    if ":" in name.partition("/")[0]:
        return name
    return os.path.join(os.path.dirname(path), name)
