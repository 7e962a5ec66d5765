"""`-numa hmat-lb` and `-numa hmat-cache`: how fast a node's memory is from another.

There is no guest whose ACPI table would say so: what is given is checked, and that is
all. Texts, their order and the sums were observed on QEMU 10.0.2.
"""

from __future__ import annotations

from collections.abc import Collection

from memd.errors import QMPError
from memd.json_types import JSONObject

_TOO_FAR = (1 << 16) - 1
"""Entries of the table have 16 bits, and this value stands for none."""

_LEVELS = 3
_MIB = 1 << 20


class _Table:
    """The values of one hierarchy and type.

    Attributes:
        pairs: the initiators and targets of which there are some.
        unit: of all of them; 0 as long as there are none.
        most: the greatest.
    """

    unit = most = 0

    def __init__(self) -> None:
        self.pairs: set[tuple[int, int]] = set()


class Hmat:
    """The options given so far."""

    def __init__(self) -> None:
        # By hierarchy and type.
        self._tables: dict[tuple[str, str], _Table] = {}
        self._known: set[tuple[int, str]] = set()
        self._caches: dict[int, dict[int, int]] = {}

    def take_speed(
        self, options: JSONObject, nodes: Collection[int], with_cpus: Collection[int]
    ) -> None:
        """Take `-numa hmat-lb`.

        Args:
            options: the option's, of the schema's types.
            nodes: the nodes by now.
            with_cpus: those of them that have CPUs.

        Raises:
            QMPError: it can't be.
        """
        pair = initiator, target = options["initiator"], options["target"]
        for name, node in (("initiator", initiator), ("target", target)):
            if node > len(nodes):
                raise QMPError(f"Invalid {name}={node}, it should be less than {len(nodes)}")
        if initiator not in with_cpus:
            raise QMPError(f"Invalid initiator={initiator}, it isn't an initiator proximity domain")
        if target not in nodes:
            raise QMPError(f"The target={target} should point to an existing node")
        what = options["data-type"].rpartition("-")[2]
        other = "latency" if what == "bandwidth" else "bandwidth"
        if what not in options:
            raise QMPError(f"Missing '{what}' option")
        if other in options:
            raise QMPError(f"Invalid option '{other}' since the data type is {what}")
        key = options["hierarchy"], options["data-type"]
        table = self._tables.setdefault(key, _Table())
        if pair in table.pairs:
            raise QMPError(
                f"Duplicate configuration of the {what} for initiator={initiator} and"
                f" target={target}"
            )
        value = options[what]
        if value:
            between = (
                f"{what.capitalize()} {value} between initiator={initiator} and target={target}"
            )
            measure = _measure_latency if what == "latency" else _measure_bandwidth
            measure(table, value, between)
            self._known.add((target, what))
        table.pairs.add(pair)

    def take_cache(self, options: JSONObject, nodes: Collection[int]) -> None:
        """Take `-numa hmat-cache`.

        Args:
            options: the option's, of the schema's types.
            nodes: the nodes by now.

        Raises:
            QMPError: it can't be.
        """
        node, level, size = options["node-id"], options["level"], options["size"]
        if node >= len(nodes):
            raise QMPError(f"Invalid node-id={node}, it should be less than {len(nodes)}")
        if not {(node, "latency"), (node, "bandwidth")} <= self._known:
            raise QMPError(
                f"The latency and bandwidth information of node-id={node} should be provided"
                " before memory side cache attributes"
            )
        if not 0 < level <= _LEVELS:
            raise QMPError(
                f"Invalid level={level}, it should be larger than 0 and less than or equal to"
                f" {_LEVELS}"
            )
        caches = self._caches.setdefault(node, {})
        if level in caches:
            raise QMPError(
                f"Duplicate configuration of the side cache for node-id={node} and level={level}"
            )
        if level > 1:
            smaller = caches.get(level - 1)
            if smaller is None:
                raise QMPError(f"Cache level={level - 1} shall be defined first")
            if smaller >= size:
                raise QMPError(
                    f"Invalid size={size}, the size of level={level} should be larger than the"
                    f" size({smaller}) of level={level - 1}"
                )
        caches[level] = size


def _measure_latency(table: _Table, value: int, between: str) -> None:
    if table.unit and value // table.unit >= _TOO_FAR:
        raise QMPError(
            f"{between} should not differ from previously entered min or max values on more"
            f" than {_TOO_FAR - 1}"
        )
    unit = 1
    while value % (unit * 10) == 0:
        unit *= 10
    table.unit = min(unit, table.unit or unit)


def _measure_bandwidth(table: _Table, value: int, between: str) -> None:
    if value % _MIB:
        raise QMPError(f"{between} should be 1MB aligned")
    # The lowest bit that any of them has.
    unit, most = min(value & -value, table.unit or value), max(value, table.most)
    if most // unit >= _TOO_FAR:
        raise QMPError(
            f"{between} should not differ from previously entered values on more than"
            f" {_TOO_FAR - 1}"
        )
    table.unit, table.most = unit, most
