"""The levels and caches of a CPU topology."""

from memd.json_types import JSON
from memd.named_tuple import NamedTuple

ONE_CPU = dict.fromkeys(
    (
        "cpus",
        "drawers",
        "books",
        "sockets",
        "dies",
        "clusters",
        "modules",
        "cores",
        "threads",
        "maxcpus",
    ),
    1,
)
"""The CPU topology of a machine that has at most one CPU."""

CACHES = ("l1d", "l1i", "l2", "l3")
"""The caches that a topology can be given for."""

NO_CACHES: JSON = [{"cache": name, "topology": "default"} for name in CACHES]
"""The property `smp-cache` of a machine where nothing is set."""


class Processors(NamedTuple):
    """The limits of a machine's CPUs.

    Attributes:
        machine: its name.
        largest: the most of them.
        levels: those of the rare levels of a topology that it knows, from the
            outside in.
        sockets_first: whether CPUs that are not placed are sockets of their own, not cores.
    """

    machine: str
    largest: int
    levels: tuple[str, ...] = ()
    sockets_first: bool = False


NO_PROCESSORS = Processors("none", 1)
"""The limits of the machine `none`."""
