"""Commands about what a stand-in has none of: replay, COLO, Xen, and a clock that lags.

Their answers are those of a paused QEMU 10.0.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from memd.errors import QMPError
from memd.json_types import JSON, JSONObject

if TYPE_CHECKING:
    from memd.commands.daemon import Daemon

_REFUSED = {
    "replay-break": "setting the breakpoint is allowed only in play mode",
    "replay-delete-break": "replay breakpoints are allowed only in play mode",
    "replay-seek": "replay must be enabled to seek",
    "set-vcpu-dirty-limit": (
        "dirty page limit feature requires KVM with accelerator property 'dirty-ring-size' set'"
    ),
    "x-colo-lost-heartbeat": "VM is not in COLO mode",
}
"""The commands that a QEMU refuses as it runs so, and its words."""

NO_PROFILER = "[TCG profiler not compiled]"
"""What is told of a count of instructions."""

_NOTHING_TO_DO = ("cancel-vcpu-dirty-limit", "rtc-reset-reinjection", "xen-colo-do-checkpoint")


def _refuse(text: str) -> Callable[[Daemon, JSONObject], JSON]:
    def handle(daemon: Daemon, args: JSONObject) -> JSON:
        raise QMPError(text)

    return handle


def _do_nothing(daemon: Daemon, args: JSONObject) -> JSON:
    return {}


def _opcount(daemon: Daemon, args: JSONObject) -> JSON:
    """`x-query-opcount`."""
    return {"human-readable-text": f"{NO_PROFILER}\n"}


IDLE: dict[str, Callable[[Daemon, JSONObject], JSON]] = {
    **{name: _refuse(text) for name, text in _REFUSED.items()},
    **dict.fromkeys(_NOTHING_TO_DO, _do_nothing),
    "x-query-opcount": _opcount,
}
"""What is done for each of these commands."""
