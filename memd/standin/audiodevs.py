"""The register of audio backends (`-audiodev`, `-audio`), on which nothing is played.

Rules and texts were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from memd.compat import Compat
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.qom.builtin_objects import CONTAINER
from memd.qom.object import QObject
from memd.qom.tree import Tree

_STREAM: JSONObject = {"frequency": 44100, "channels": 2, "format": "s16"}
_UNMIXED = (1 << 31) - 1
"""Voices where nothing mixes them."""

_POLLING = ("alsa", "oss")
"""Those of which QEMU 10.0 tells that they try to poll."""


class Audiodevs:
    """The audio backends of a machine.

    Args:
        tree: what shows them at `/audiodevs`, where the release has that.
        has_default: whether a sound card needs to name none.
    """

    def __init__(self, tree: Tree, *, has_default: bool) -> None:
        self._tree = tree
        self._polling = _POLLING if tree.compat is Compat.V10_0 else ()
        self._has_default = has_default
        self._known: list[JSONObject] = []

    def add(self, options: JSONObject) -> None:
        """`-audiodev`, with the options of QAPI's `Audiodev`; raises `QMPError`."""
        _check_narrow(options)
        usual = {"try-poll": True} if options["driver"] in self._polling else {}
        for way in ("in", "out"):
            given = options.get(way, {})
            mixing = given.get("mixing-engine", True)
            fixed = given.get("fixed-settings", mixing)
            if fixed and not mixing:
                raise QMPError("You can't use fixed-settings without mixeng")
            if not fixed and given.keys() & _STREAM.keys():
                raise QMPError(
                    "You can't use frequency, channels or format with fixed-settings=off"
                )
            voices = 1 if mixing else _UNMIXED
            settings = {"mixing-engine": mixing, "fixed-settings": fixed, "voices": voices}
            options[way] = {**settings, **_STREAM, **usual, **given}
        self._known.append({"timer-period": 10000, **options})
        shown = self._tree.root.children.get("audiodevs")
        if shown is not None:
            kind = self._tree.type_by_name(f"audio-{options['driver']}")
            shown.add_child(options["id"], QObject(kind or CONTAINER, self._tree))

    def take(self, name: str) -> None:
        """A sound card names one; raises `QMPError` where there is none."""
        if all(each["id"] != name for each in self._known):
            raise QMPError(f"audiodev '{name}' not found")

    def check_default(self) -> None:
        """Raise `QMPError` where a sound card has to name one."""
        if not self._has_default:
            first = self._known[0]["id"] if self._known else None
            raise QMPError(
                "no default audio driver available",
                hint=first and f"Perhaps you wanted to use -audio or set audiodev={first}?",
            )

    def query(self, args: object = None) -> list[JSON]:
        """The value of `query-audiodevs`."""
        return [*reversed(self._known)]


def _check_narrow(options: JSONObject) -> None:
    """Raise `QMPError` where a number has more than 32 bits: what a QEMU tells has no widths."""
    for name, value in options.items():
        if isinstance(value, dict):
            _check_narrow(value)
        elif type(value) is int and not 0 <= value < 1 << 32:
            raise QMPError(f"Parameter '{name}' expects uint32_t")
