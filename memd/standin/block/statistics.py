"""What is told of how much was read and written: nothing ever was.

Members were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from memd.errors import QMPError
from memd.json_types import JSONObject
from memd.standin.block.nodes import Drive, Node

_KINDS = ("rd", "wr", "zone_append", "unmap", "flush")
_COUNTS = (
    *(f"{kind}_{what}" for kind in _KINDS for what in ("operations", "total_time_ns")),
    *(f"{kind}_{what}" for kind in _KINDS[:-1] for what in ("bytes", "merged")),
    *(f"{how}_{kind}_operations" for how in ("failed", "invalid") for kind in _KINDS),
    "wr_highest_offset",
)

_MOST_TOLD = 1024
"""Nodes of which statistics are told below one drive or node."""

_DISCARDS = ("discard-nb-ok", "discard-nb-failed", "discard-bytes-ok")


def _counts() -> JSONObject:
    told: JSONObject = dict.fromkeys(_COUNTS, 0)
    return told | {"timed_stats": [], "account_invalid": False, "account_failed": False}


def node_statistics(node: Node, told: list[Node], *, backing: bool = True) -> JSONObject:
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
        row["parent"] = node_statistics(node.child, told, backing=backing)
    if backing and node.shown_below is not None:
        row["backing"] = node_statistics(node.shown_below, told)
    return row


def statistics_of(drives: Iterable[Drive]) -> Iterator[JSONObject]:
    """What `query-blockstats` tells of each drive; raises `QMPError`."""
    for drive in drives:
        row: JSONObject
        row = {"stats": _counts()} if drive.node is None else node_statistics(drive.node, [])
        row["stats"] |= drive.histograms
        row["stats"] |= {"account_invalid": True, "account_failed": True}
        if drive.user is not None:
            row["qdev"] = drive.user
        yield {**row, "device": drive.name}
