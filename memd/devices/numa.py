"""The NUMA nodes of a machine: which memory and which CPUs are whose.

Texts and their order were observed on QEMU 10.0.2 with the machine q35. What
can only be told once the backends are there (whether their sizes add up) is
told when the machine starts.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

from memd.config import NumaNode, Report, wrong_initiator
from memd.devices.hmat import Hmat
from memd.errors import QMPError
from memd.json_types import JSONObject

if TYPE_CHECKING:
    from memd.devices.kinds import MachineKind

MOST_NODES = 128
"""Nodes that a machine can have."""

_LEVELS = ("thread-id", "core-id", "module-id", "cluster-id", "socket-id", "die-id")
"""What `-numa cpu` may tell CPUs by, in the order in which QEMU looks whether it is known."""

_HMAT = (
    "ACPI Heterogeneous Memory Attribute Table (HMAT) is disabled, enable it with"
    " -machine hmat=on before using any of hmat specific options"
)


class NumaNodes:
    """Nodes as they are added, one option or `set-numa-node` after another.

    Args:
        machine: whose nodes they are.
        backends: the ids of the memory backends that there will be.
        positions: see the attribute.
        hmat: whether nodes may say which is the nearest with CPUs.

    Attributes:
        backends: the ids of the memory backends that there will be, or are.
        positions: of the CPUs that the machine can come to have, by their numbers.
        assigned: the nodes of CPUs, by the CPUs' numbers.
    """

    def __init__(
        self,
        machine: MachineKind,
        backends: Container[str],
        positions: Sequence[JSONObject],
        *,
        hmat: bool,
    ) -> None:
        self._hmat = hmat
        self._machine = machine
        self.backends = backends
        self.positions = positions
        self._nodes: dict[int, NumaNode] = {}
        self.assigned: dict[int, int] = {}
        self._distances: set[frozenset[int]] = set()
        self._speeds = Hmat()

    def take(self, options: JSONObject) -> None:
        """Take one option; raises `QMPError`."""
        if self._machine.kind in ("none", "x-remote"):
            raise QMPError("NUMA is not supported by this machine-type")
        kind = options["type"]
        if kind == "node":
            self._take_node(options)
        elif kind == "dist":
            self._take_distance(options)
        elif kind == "cpu":
            self._take_cpu(options)
        elif not self._hmat:
            raise QMPError(_HMAT)
        elif kind == "hmat-lb":
            self._speeds.take_speed(options, self._nodes, self.assigned.values())
        else:
            self._speeds.take_cache(options, self._nodes)

    def finish(self) -> list[NumaNode]:
        """The nodes; raises `QMPError` where one is missing."""
        highest = max(self._nodes, default=-1)
        for number in range(highest, -1, -1):
            if number not in self._nodes:
                raise QMPError(f"numa: Node ID missing: {number}")
        for node in range(highest + 1 if self._distances else 0):
            for other in range(node + 1, highest + 1):
                if frozenset((node, other)) not in self._distances:
                    raise QMPError(
                        f"The distance between node {node} and {other} is missing,"
                        " at least one distance value between each nodes should be provided."
                    )
        return [
            self._nodes[node]._replace(
                cpus=[cpu for cpu in sorted(self.assigned) if self.assigned[cpu] == node]
            )
            for node in range(highest + 1)
        ]

    def warn(self, report: Report) -> None:
        """Say which CPUs are in no node, where some are in one."""
        left = [
            f"CPU {cpu} [{', '.join(f'{level}: {at}' for level, at in reversed(position.items()))}]"
            for cpu, position in enumerate(self.positions)
            if cpu not in self.assigned
        ]
        if left and self.assigned:
            report.warning(f"CPU(s) not present in any NUMA nodes: {', '.join(left)}")
            report.warning(
                "All CPU(s) up to maxcpus should be described in NUMA config, ability to start up"
                " with partial NUMA mappings is obsoleted and will be removed in future"
            )

    def _take_node(self, options: JSONObject) -> None:
        number = options.get("nodeid", len(self._nodes))
        if number >= MOST_NODES:
            raise QMPError(f"Max number of NUMA nodes reached: {number}")
        if number in self._nodes:
            raise QMPError(f"Duplicate NUMA nodeid: {number}")
        initiator = options.get("initiator")
        if initiator is not None:
            if not self._hmat:
                raise QMPError(_HMAT)
            if initiator >= MOST_NODES:
                raise QMPError(
                    f"The initiator id {initiator} expects an integer between 0 and"
                    f" {MOST_NODES - 1}"
                )
        node = NumaNode(
            number,
            memdev=options.get("memdev"),
            size=options.get("mem", 0),
            initiator=initiator,
        )
        most = len(self.positions)
        for cpu in options.get("cpus", []):
            if cpu >= most:
                raise QMPError(f"CPU index ({cpu}) should be smaller than maxcpus ({most})")
            self._assign(cpu, node)
        self._check_memory(options)
        self._nodes[number] = node

    def _assign(self, cpu: int, node: NumaNode) -> None:
        number, initiator = node.nodeid, node.initiator
        if self.assigned.setdefault(cpu, number) != number:
            raise QMPError(f"CPU is already assigned to node-id: {self.assigned[cpu]}")
        if initiator not in (None, number):
            raise QMPError(wrong_initiator(number, initiator))

    def _check_memory(self, options: JSONObject) -> None:
        memdev = options.get("memdev")
        sized = "mem" in options
        nodes = self._nodes.values()
        if (sized and any(node.memdev is not None for node in nodes)) or (
            memdev is not None and (sized or any(node.size for node in nodes))
        ):
            raise QMPError(
                "numa configuration should use either mem= or memdev=,mixing both is not allowed"
            )
        if sized and not self._machine.node_sizes:
            raise QMPError(
                "Parameter -numa node,mem is not supported by this machine type",
                hint="Use -numa node,memdev instead",
            )
        if memdev is not None and memdev.rpartition("/")[2] not in self.backends:
            raise QMPError(f"memdev={memdev} is ambiguous")

    def _take_distance(self, options: JSONObject) -> None:
        src, dst, value = options["src"], options["dst"], options["val"]
        for name in ("src", "dst"):
            if options[name] >= MOST_NODES:
                raise QMPError(
                    f"Parameter '{name}' expects an integer between 0 and {MOST_NODES - 1}"
                )
        if src not in self._nodes or dst not in self._nodes:
            raise QMPError(
                "Source/Destination NUMA node is missing."
                " Please use '-numa node' option to declare it first."
            )
        if value < 10:
            raise QMPError(f"NUMA distance ({value}) is invalid, it shouldn't be less than 10.")
        if src == dst and value != 10:
            raise QMPError(f"Local distance of node {src} should be 10.")
        self._distances.add(frozenset((src, dst)))

    def _take_cpu(self, options: JSONObject) -> None:
        node = options.get("node-id")
        if node is None:
            raise QMPError("Missing mandatory node-id property")
        if node not in self._nodes:
            raise QMPError(
                f"Invalid node-id={node}, NUMA node must be defined with -numa node,nodeid=ID"
                " before it's used with -numa cpu,node-id=ID"
            )
        asked = {level: at for level, at in options.items() if level in _LEVELS}
        for level in _LEVELS:
            if level in asked and level not in self.positions[0]:
                raise QMPError(f"{level} is not supported")
        cpus = [
            cpu
            for cpu, position in enumerate(self.positions)
            if all(position[level] == at for level, at in asked.items())
        ]
        for cpu in cpus:
            self._assign(cpu, self._nodes[node])
        if not cpus:
            raise QMPError("no match found")
