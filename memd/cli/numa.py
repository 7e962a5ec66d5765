"""`-numa`: the nodes of a machine, and which memory is whose.

Texts and their order were observed on QEMU 10.0.2 with the machine q35. What
can only be told once the backends are there (whether their sizes add up) is
told when the machine starts.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from memd.cli.hmat import Hmat
from memd.cli.opts import Opts, OptsList
from memd.cli.reading import Given, located
from memd.compat import Compat
from memd.config import NumaNode, wrong_initiator
from memd.errors import QMPError
from memd.json_types import JSONObject

NUMA = OptsList("numa", "type", None)

MOST_NODES = 128
"""Nodes that a machine can have."""

_HMAT = (
    "ACPI Heterogeneous Memory Attribute Table (HMAT) is disabled, enable it with"
    " -machine hmat=on before using any of hmat specific options"
)


def numa_nodes(
    given: Sequence[tuple[Given, Opts]],
    machine: str,
    backends: Container[str],
    max_cpus: int,
    compat: Compat,
    *,
    hmat: bool = False,
) -> list[NumaNode]:
    """The nodes that `-numa` options describe, by number.

    Args:
        given: the options, and what is in each.
        machine: the machine's type.
        backends: the ids of the memory backends that there will be.
        max_cpus: how many CPUs the machine can come to have.
        compat: whose schema is meant.
        hmat: whether nodes may say which is the nearest with CPUs.

    Raises:
        QMPError: there can't be such nodes.
        CommandLineError: it is one option's fault.
    """
    nodes = _Nodes(machine, backends, max_cpus, hmat=hmat)
    for each, opts in given:
        from memd.qapi import load_schema

        with located(each.where):
            nodes.take(load_schema(compat).check_opts("NumaOptions", opts.with_id()))
    return nodes.finish()


class _Nodes:
    """Nodes as they are added, one option after another."""

    def __init__(
        self, machine: str, backends: Container[str], max_cpus: int, *, hmat: bool
    ) -> None:
        self._hmat = hmat
        self._machine = machine
        self._backends = backends
        self._max_cpus = max_cpus
        self._nodes: dict[int, NumaNode] = {}
        self._assigned: dict[int, int] = {}
        self._distances: set[frozenset[int]] = set()
        self._with_cpus: set[int] = set()
        self._speeds = Hmat()

    def take(self, options: JSONObject) -> None:
        """Take one option; raises `QMPError`."""
        if self._machine == "none":
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
            self._speeds.take_speed(options, self._nodes, self._with_cpus)
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
        return [self._nodes[number] for number in sorted(self._nodes)]

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
        cpus = options.get("cpus", [])
        for cpu in cpus:
            if cpu >= self._max_cpus:
                raise QMPError(
                    f"CPU index ({cpu}) should be smaller than maxcpus ({self._max_cpus})"
                )
            if cpu in self._assigned:
                raise QMPError(f"CPU is already assigned to node-id: {self._assigned[cpu]}")
            self._assigned[cpu] = number
            if initiator not in (None, number):
                raise QMPError(wrong_initiator(number, initiator))
        self._check_memory(options)
        if cpus:
            self._with_cpus.add(number)
        self._nodes[number] = NumaNode(
            number, cpus=cpus, memdev=options.get("memdev"), initiator=initiator
        )

    def _check_memory(self, options: JSONObject) -> None:
        memdev = options.get("memdev")
        if "mem" in options:
            if memdev is not None or any(node.memdev is not None for node in self._nodes.values()):
                raise QMPError(
                    "numa configuration should use either mem= or memdev=,mixing both is not"
                    " allowed"
                )
            raise QMPError(
                "Parameter -numa node,mem is not supported by this machine type",
                hint="Use -numa node,memdev instead",
            )
        if memdev is not None and memdev.rpartition("/")[2] not in self._backends:
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
        self._with_cpus.add(node)
