"""What the topology of CPUs is made of."""

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
