"""`calc-dirty-rate`: how much memory CPUs dirty. None do, as nothing runs on them: it is 0.

Rules and texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from memd.errors import QMPError
from memd.json_types import JSON, JSONObject

if TYPE_CHECKING:
    from memd.devices.machine import Machine

_SAMPLES = 512


class DirtyRate:
    """The measurement that there is or was.

    Args:
        machine: has the clock.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._status = "unstarted"
        self._mode = "page-sampling"
        self._samples = self._began = self._milliseconds = 0

    def start(self, args: JSONObject) -> None:
        """`calc-dirty-rate`; raises `QMPError`."""
        unit = 1 if args.get("calc-time-unit") == "millisecond" else 1000
        period, mode = args["calc-time"] * unit, args.get("mode", "page-sampling")
        if self._status == "measuring":
            raise QMPError("the dirty rate is already being measured.")
        if not 50 <= period <= 60000:
            raise QMPError("Calculation time is out of range [50ms, 60000ms].")
        samples = args.get("sample-pages")
        if samples is not None and mode != "page-sampling":
            raise QMPError("sample-pages is used only in page-sampling mode")
        if samples is not None and not 128 <= samples <= 16384:
            raise QMPError("sample-pages is out of range[128, 16384].")
        if mode == "dirty-ring":
            raise QMPError(f"mode {mode} is not enabled, use other method instead.")
        self._status, self._mode, self._milliseconds = "measuring", mode, period
        self._began, self._samples = int(time.time()), samples or _SAMPLES
        self._machine.later(period / 1000, self._end)

    def _end(self) -> None:
        self._status = "measured"

    def query(self, args: JSONObject) -> JSON:
        """The value of `query-dirty-rate`."""
        unit = args.get("calc-time-unit", "second")
        told: JSONObject = {
            "status": self._status,
            "mode": self._mode,
            "calc-time-unit": unit,
            "start-time": self._began,
            "calc-time": self._milliseconds // (1000 if unit == "second" else 1),
        }
        if self._mode == "page-sampling":
            told["sample-pages"] = self._samples
        return {**told, "dirty-rate": 0} if self._status == "measured" else told
