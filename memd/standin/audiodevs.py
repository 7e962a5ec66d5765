"""The register of audio backends (`-audiodev`, `-audio`), on which nothing is played.

Rules and texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from typing import Any

from memd.errors import QMPError
from memd.json_types import JSON, JSONObject

_PER_DIRECTION: JSONObject = {
    "mixing-engine": True,
    "fixed-settings": True,
    "frequency": 44100,
    "channels": 2,
    "voices": 1,
    "format": "s16",
}
_POLLING = ("alsa", "oss")


class Audiodevs:
    """The audio backends of a machine.

    Args:
        has_default: whether a sound card needs to name none.
    """

    def __init__(self, *, has_default: bool) -> None:
        self._has_default = has_default
        self._known: dict[str, dict[str, Any]] = {}

    def add(self, options: dict[str, Any]) -> None:
        """`-audiodev`, with the options of QAPI's `Audiodev`."""
        self._known[options["id"]] = options

    def take(self, name: str) -> None:
        """A sound card names one; raises `QMPError` where there is none."""
        if name not in self._known:
            raise QMPError(f"audiodev '{name}' not found")

    def check_default(self) -> None:
        """Raise `QMPError` where a sound card has to name one."""
        if not self._has_default:
            first = next(iter(self._known), None)
            raise QMPError(
                "no default audio driver available",
                hint=first and f"Perhaps you wanted to use -audio or set audiodev={first}?",
            )

    def query(self, args: object = None) -> list[JSON]:
        """The value of `query-audiodevs`."""
        return [_filled(each) for each in self._known.values()]


def _filled(options: dict[str, Any]) -> JSON:
    usual = {**_PER_DIRECTION, **({"try-poll": True} if options["driver"] in _POLLING else {})}
    both = {side: {**usual, **options.get(side, {})} for side in ("in", "out")}
    return {"timer-period": 10000, **options, **both}
