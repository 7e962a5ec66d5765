"""What a node is told to be: the path of its file, or as JSON all that it is made of."""

from __future__ import annotations

import json

from memd.json_types import JSONObject
from memd.qapi.hash_order import object_order
from memd.standin.block.nodes import FILTERS, JOB_FILTERS, Node

_LONGEST = 4095
"""Characters of that, which is cut there."""


def filename_of(node: Node) -> str:
    """What a node is told to be, with what it stands on now."""
    if node.implicit or node.driver in JOB_FILTERS:
        return "" if node.child is None else node.child.filename
    below = node.child or node
    if (
        node.driver in FILTERS
        or below.child
        or _is_overridden(node)
        or (node.options.keys() | below.options.keys()) - {"filename"}
    ):
        told = f"json:{json.dumps(_made_of(node))}"
        return told if len(told) <= _LONGEST else f"{told[: _LONGEST - 3]}..."
    return str(below.options.get("filename", f"{below.driver}://"))


def _is_overridden(node: Node) -> bool:
    """Whether its backing node is another than its image names."""
    if node.header is None:
        return False
    if node.backing is None:
        return node.alone and node.header.backing is not None
    return node.header.backing != node.backing.filename


def _made_of(node: Node) -> JSONObject:
    """All that decides a node's content."""
    if node.implicit and node.child is not None:
        return _made_of(node.child)
    told = {"driver": node.driver, **node.options}
    if node.target is not None:
        told["target"] = _made_of(node.target)
    if node.child is not None:
        told[node.first_role] = _made_of(node.child)
    if _is_overridden(node):
        told["backing"] = None if node.backing is None else _made_of(node.backing)
    return {name: told[name] for name in object_order(told)}
