"""Objects whose properties are checked and can be changed: `throttle-group`, `iothread`.

Rules and texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.qapi.visit import visit_int64
from memd.qom import ObjectType, Property
from memd.qom.machine_structs import visit_struct
from memd.standin.block.throttling import NO_LIMITS, check_limits
from memd.standin.objects import KnownObject

if TYPE_CHECKING:
    from memd.qom.tree import Tree

_INT_MAX = (1 << 31) - 1
_INT64_MAX = (1 << 63) - 1


class ThrottleGroup(KnownObject):
    """A `throttle-group`, whose limits can be read and changed and hold nothing back.

    Attributes:
        users: the block nodes that are in it.
    """

    tree: Tree

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.limits = dict(NO_LIMITS)
        self.users: set[object] = set()

    def check_delete(self) -> None:
        if self.users:
            if self.tree.compat is Compat.V10_0:
                raise QMPError(f"object '{self.name}' is in use, can not be deleted")
            raise QMPError(f"Cannot delete throttle group '{self.name}' with active references")

    async def complete(self) -> None:
        check_limits(self.limits)


def _set_limits(group: ThrottleGroup, value: JSONObject) -> None:
    limits = {**group.limits, **value}
    if group.parent is not None:
        check_limits(limits)
    group.limits = limits


def _limit(name: str) -> Property:
    """One limit as a property of its own, which can be set at the start only."""

    def guard(group: ThrottleGroup) -> None:
        if group.parent is not None:
            raise QMPError("Property cannot be set after initialization")

    def setter(group: ThrottleGroup, value: JSON) -> None:
        if value < 0:
            raise QMPError("Property values cannot be negative")
        group.limits[name] = value

    return Property(
        f"x-{name}",
        "int",
        visit=visit_int64,
        guard=guard,
        get=lambda group: group.limits[name],
        set=setter,
    )


class IOThread(KnownObject):
    """An `iothread`, in which nothing runs."""

    async def complete(self) -> None:
        _check_pool(self.values)


def _check_pool(values: JSONObject) -> None:
    least, most = (values.get(name, _POOL[name]) for name in _POOL)
    if not least <= most <= _INT_MAX or not most:
        raise QMPError("bad thread-pool-min/thread-pool-max values")


_POOL = {"thread-pool-min": 0, "thread-pool-max": 64}
_IOTHREAD = {"aio-max-batch": 0, "poll-grow": 0, "poll-max-ns": 32768, "poll-shrink": 0, **_POOL}
_WEIGHED = {**_IOTHREAD, "poll-grow": 2, "poll-shrink": 2, "poll-weight": 3}
"""Since QEMU 11."""


def _number(name: str, default: int) -> Property:
    def setter(thread: IOThread, value: JSON) -> None:
        if not 0 <= value <= _INT64_MAX:
            raise QMPError(f"{name} value must be in range [0, {_INT64_MAX}]")
        if thread.parent is not None:
            _check_pool({**thread.values, name: value})
        thread.values[name] = value

    return Property(
        name,
        "int",
        visit=visit_int64,
        get=lambda thread: thread.values.get(name, default),
        set=setter,
    )


_THROTTLE_GROUP = [
    Property(
        "limits",
        "ThrottleLimits",
        visit=visit_struct(dict.fromkeys(NO_LIMITS, visit_int64)),
        get=lambda group: dict(group.limits),
        set=_set_limits,
    ),
    *(_limit(name) for name in NO_LIMITS),
]


def make_tunable(kind: ObjectType) -> None:
    """Give a type that a catalogue brought its class and properties, if it is one of these."""
    properties: list[Property]
    if kind.name == "throttle-group":
        kind.factory, properties = ThrottleGroup, _THROTTLE_GROUP
    elif kind.name == "iothread":
        defaults = _WEIGHED if "poll-weight" in kind.all_properties else _IOTHREAD
        kind.factory, properties = IOThread, [_number(*each) for each in defaults.items()]
    else:
        return
    kind.all_properties.update((each.name, each) for each in properties)


def query_iothreads(objects: list[Any], thread: int) -> list[JSON]:
    """`query-iothreads`.

    Args:
        objects: all that clients made.
        thread: what each is told to run in.
    """
    rows: list[JSON] = []
    for each in objects:
        if isinstance(each, IOThread):
            properties = each.qom_type.all_properties
            told = [name for name in _WEIGHED if name in properties and name not in _POOL]
            values = {name: properties[name].get(each) for name in told}
            rows.append({"id": each.name, "thread-id": thread, **values})
    return rows
