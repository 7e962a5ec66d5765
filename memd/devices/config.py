"""What a command line says of the machine: frozen before anything is made."""

from __future__ import annotations

DEFAULT_RAM = 128 << 20
"""Bytes of memory of a machine that was given no `-m` (observed on QEMU 10.0.2)."""


class NumaNode:
    """A node of `-numa node`.

    Attributes:
        nodeid: its number.
        cpus: the numbers of its CPUs.
        mem: bytes of `mem=`, or None.
        memdev: the id of the memory backend that is its memory, or None.
        initiator: the node whose CPUs are the nearest to it, or None.
    """

    __slots__ = ("cpus", "initiator", "mem", "memdev", "nodeid")

    def __init__(
        self,
        nodeid: int,
        *,
        cpus: list[int] | None = None,
        mem: int | None = None,
        memdev: str | None = None,
        initiator: int | None = None,
    ) -> None:
        self.nodeid = nodeid
        self.initiator = initiator
        self.cpus = cpus or []
        self.mem = mem
        self.memdev = memdev


def wrong_initiator(node: int, initiator: int) -> str:
    """What is said of a node with CPUs that another one is told to be the nearest to."""
    return f"The initiator of CPU NUMA node {node} should be itself (got {initiator})"


class MachineConfig:
    """The memory side of a machine.

    Attributes:
        type: "none", "q35", "pc" or "virt".
        ram_size: bytes of its memory at the start.
        slots: how many DIMMs can be plugged.
        maxmem: bytes that it can have with all of them; `ram_size` where none
            can be plugged.
        nvdimm: whether it takes NVDIMMs.
        memory_backend: the id of the backend that is its memory, or None.
        numa_nodes: the nodes of `-numa`, in their order.
        guest_reacts: what the guest that is not there does when it is asked
            for something: "immediately", "after", "never" or "refuses".
        guest_delay_ms: milliseconds that it takes, with "after".
        smp: the CPUs: every level of their topology and how many, "cpus" and
            "maxcpus"; empty for one CPU.
    """

    __slots__ = (
        *("guest_delay_ms", "guest_reacts", "maxmem", "memory_backend", "numa_nodes", "nvdimm"),
        *("ram_size", "slots", "smp", "type"),
    )

    def __init__(
        self,
        type: str = "none",
        *,
        ram_size: int = DEFAULT_RAM,
        slots: int = 0,
        maxmem: int | None = None,
        nvdimm: bool = False,
        memory_backend: str | None = None,
        numa_nodes: list[NumaNode] | None = None,
        guest_reacts: str = "immediately",
        guest_delay_ms: int = 0,
        smp: dict[str, int] | None = None,
    ) -> None:
        self.type = type
        self.ram_size = ram_size
        self.slots = slots
        self.maxmem = ram_size if maxmem is None else maxmem
        self.nvdimm = nvdimm
        self.memory_backend = memory_backend
        self.numa_nodes = numa_nodes or []
        self.guest_reacts = guest_reacts
        self.guest_delay_ms = guest_delay_ms
        self.smp = smp or {}
