"""Monitors as objects, which they are in QEMU 11.1."""

from __future__ import annotations

from collections.abc import Callable

from memd.errors import QMPError
from memd.json_types import JSON
from memd.qapi.visit import visit_bool, visit_enum, visit_str
from memd.qom.object import UserCreatable
from memd.qom.property import Paths, attribute
from memd.qom.types import OBJECT, ObjectType


class MonitorObject(UserCreatable):
    """A QMP monitor, `/objects/<id>`.

    Attributes:
        chardev: the id of its character device.
        pretty: whether its answers are spread over lines.
        close_action: "none" or "delete": what the end of its connection does to
            it.
        on_pretty: told when a client sets `pretty`.
    """

    def __init__(self, tree: Paths, id: str, chardev: str, pretty: bool = False) -> None:
        super().__init__(_QMP, tree, id)
        self.chardev = chardev
        self.pretty = pretty
        self.close_action = "none"
        self.on_pretty: Callable[[bool], None] | None = None

    def check_delete(self) -> None:
        """Raise `QMPError`: clients can't saw off what they sit on."""
        raise QMPError("Cannot delete the current QMP monitor")


def _set_pretty(monitor: MonitorObject, value: JSON) -> None:
    monitor.pretty = value
    if monitor.on_pretty is not None:
        monitor.on_pretty(value)


_MONITOR = ObjectType(
    "monitor",
    OBJECT,
    abstract=True,
    interfaces=("user-creatable",),
    properties=(attribute("chardev", "string", visit_str),),
)
_QMP = ObjectType(
    "monitor-qmp",
    _MONITOR,
    properties=(
        attribute("pretty", "bool", visit_bool, set=_set_pretty),
        attribute("close-action", "MonitorQMPCloseAction", visit_enum(("none", "delete"))),
    ),
)

MONITOR_TYPES = (_MONITOR, _QMP)
"""The types of monitors: QEMU 10.0 has none."""
