"""`-m`: how much memory a machine has, and how much it may come to have.

Texts, units and rounding were observed on QEMU 10.0.2 (11.1.3 agrees).
"""

from __future__ import annotations

from typing import NamedTuple

from memd.cli.opts import Opts, OptsList, parse_opts
from memd.cli.reading import Given
from memd.config import Report
from memd.errors import QMPError
from memd.json_types import JSONObject

MEMORY = OptsList(
    "memory", "size", {"size": "size", "slots": "num", "maxmem": "size"}, takes_id=False
)


class MemorySizes(NamedTuple):
    """The result of `-m`.

    Attributes:
        size: bytes at the start; None where none were asked for.
        slots: how many DIMMs can be plugged; not yet limited to what a machine
            takes.
        maxmem: bytes with all that can be plugged; None where nothing can be.
    """

    size: int | None
    slots: int
    maxmem: int | None


class MemoryOption:
    """The `-m` of a command line; several add up, and of a key the last counts.

    `-machine memory.size=...` is the same in another spelling, but for the size:
    that of `-m` counts, wherever it stands.
    """

    def __init__(self) -> None:
        self._opts = Opts()
        self._members: JSONObject = {}

    def take(self, given: Given, report: Report) -> None:
        """Take `-m [size=]SIZE[,slots=N][,maxmem=SIZE]`.

        Raises:
            QMPError: it can't be read.
            Answered: it asks what there is.
        """
        self._opts.pairs += parse_opts(MEMORY, given.value, given.warn(report)).pairs

    def add(self, members: JSONObject) -> None:
        """Take `memory.size=SIZE,...` of `-machine`."""
        self._members.update(members)
        for name, key in (("slots", "slots"), ("max-size", "maxmem")):
            if name in members:
                self._opts.pairs.append((key, members[name]))

    def resolve(self, default: int) -> MemorySizes:
        """The sizes that the options give together.

        Args:
            default: bytes of memory where no size is given.

        Raises:
            QMPError: they contradict each other.
        """
        self._check_members()
        size = self._size()
        slots = (self._opts.number("slots") or 0) % 2**64
        maxmem = _bytes(self._opts.get("maxmem"))
        from memd.qom.machine_structs import visit_memory

        members = {"size": size or default, "slots": slots, "max-size": maxmem}
        given = {
            name: value
            for name, value in members.items()
            if value is not None and (name != "slots" or self._opts.has("slots"))
        }
        rounded = visit_memory(given, "memory")["size"]
        return MemorySizes(rounded if size else None, slots, maxmem)

    def _size(self) -> int | None:
        text = self._opts.get("size")
        # A number without a suffix means MiB. Nothing else is known of it here.
        if text and text[-1] in "0123456789":
            from memd.qapi.numbers import parse_size

            size = parse_size(f"{text}M")
            if size is None:
                raise QMPError("Parameter 'memory.size' expects size")
            return size
        return _bytes(text or self._members.get("size"))

    def _check_members(self) -> None:
        from memd.qapi.numbers import parse_int64, parse_size

        for name, text in self._members.items():
            if name not in ("max-size", "size", "slots"):
                raise QMPError(f"Parameter 'memory.{name}' is unexpected")
            parse = parse_int64 if name == "slots" else parse_size
            if not isinstance(text, str) or parse(text) is None:
                expected = "integer" if name == "slots" else "size"
                raise QMPError(f"Parameter 'memory.{name}' expects {expected}")


def _bytes(text: str | None) -> int | None:
    from memd.qapi.numbers import parse_size

    return None if text is None else parse_size(text)
