"""The levels and caches of a CPU topology."""

from memd.json_types import JSON

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
