"""Memory devices, and the machine that they are plugged into."""

from __future__ import annotations

from collections.abc import Iterable

from memd.compat import Compat
from memd.qom import ObjectType, Tree


def register(tree: Tree) -> None:
    """Make the types of devices known to a tree, once they are asked for."""
    tree.basic_types, tree.device_types = _basics, _types


def _basics(known: dict[str, ObjectType], compat: Compat) -> Iterable[ObjectType]:
    from memd.devices.bus import bus_types
    from memd.devices.device import DEVICE
    from memd.devices.kinds import pc_types

    return (*pc_types(known["machine"], compat), DEVICE, *bus_types(known["bus"]))


def _types(known: dict[str, ObjectType], compat: Compat) -> Iterable[ObjectType]:
    from memd.devices.types import device_types

    return device_types(known, compat)
