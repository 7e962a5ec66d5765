"""Memory devices, and the machine that they are plugged into."""

from __future__ import annotations

from collections.abc import Iterable

from memd.compat import Compat
from memd.qom import ObjectType, Tree


def register(tree: Tree) -> None:
    """Make the types of devices known to a tree, once they are asked for."""
    tree.device_types = _types


def _types(known: dict[str, ObjectType], compat: Compat) -> Iterable[ObjectType]:
    from memd.devices.types import device_types

    return device_types(known, compat)
