"""`-m`: how much memory a machine has, and how much it may come to have.

Texts, units and rounding were observed on QEMU 10.0.2 (11.1.3 agrees).
"""

from __future__ import annotations

from memd.cli.opts import Opts, OptsList, parse_opts
from memd.cli.reading import Given
from memd.config import Report
from memd.json_types import JSONObject
from memd.named_tuple import NamedTuple

MEMORY = OptsList(
    "memory", "size", {"size": "size", "slots": "num", "maxmem": "size"}, takes_id=False
)

_MEMBERS = {"size": "size", "max-size": "size", "slots": "int"}


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
        from memd.qapi.keyval import SCALARS, typed
        from memd.qom.machine_structs import visit_memory

        members = typed(self._members, _MEMBERS, "memory")
        opts, parse_size = self._opts, SCALARS["size"]
        size = members.get("size")
        if text := opts.get("size"):
            # A number without a suffix means MiB.
            mib = text[-1] in "0123456789"
            size = parse_size(f"{text}M" if mib else text, "memory.size")
        slots = (opts.number("slots") or 0) % 2**64
        maxmem = opts.get("maxmem")
        given = {**members, "size": size or default}
        if opts.has("slots"):
            given["slots"] = slots
        if maxmem is not None:
            given["max-size"] = parse_size(maxmem, "memory.max-size")
        rounded = visit_memory(given, "memory")["size"]
        return MemorySizes(rounded if size else None, slots, given.get("max-size"))
