"""The ledger of huge pages: what memory may still claim of them, of each size and node.

The kernel sets pages aside for a mapping with reserve=on. Nobody does for one with
reserve=off, such as a clone that copies a template's pages on write, nor again for
what was discarded. Such a claim that finds no page free ends its process by SIGBUS:
the daemon, or a process that has the memory's descriptor. A page that memory bound to
nodes may want has to be free there, which no reservation sees to.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial

from memd.errors import QMPError
from memd.hostmem import capacity, cgroup
from memd.hostmem.capacity import HugePool
from memd.hostmem.pages import PageMap
from memd.hostmem.region import Region
from memd.hostmem.spec import MapSpec
from memd.hostmem.usage import taken
from memd.json_types import JSONObject
from memd.named_tuple import NamedTuple
from memd.sizes import size_text


class Claim(NamedTuple):
    """The pages that memory may still claim.

    Attributes:
        missing: pages that are not there yet.
        open: how many of these the kernel has not set aside.
        nodes: where they have to come from; empty for anywhere.
    """

    missing: int
    open: int
    nodes: frozenset[int]


class Supply(NamedTuple):
    """The huge pages of a size that this process may have.

    Attributes:
        pool: the host's.
        by_node: the NUMA nodes, and how many are free on each.
        allowed: how many each control group that limits them allows yet.
    """

    pool: HugePool
    by_node: list[tuple[int, int]]
    allowed: list[int]


class Ledger:
    """See the module. Its methods may be called from any thread.

    Attributes:
        strict: whether memory is refused that could end in SIGBUS.
    """

    def __init__(self) -> None:
        self.strict = False
        self._regions: list[tuple[Region, frozenset[int]]] = []
        # Bytes, by what they were thrown out of.
        self._discarded: dict[object, int] = {}
        self._lock = threading.RLock()

    def map(
        self,
        spec: MapSpec,
        fd: int,
        nodes: frozenset[int],
        make: Callable[[], Region],
        *,
        check: bool = True,
    ) -> Region:
        """Make a region of huge pages, and count it.

        Args:
            fd: the file that is mapped.
            nodes: where its pages have to come from; empty for anywhere.
            make: makes it.
            check: whether it may be refused.

        Raises:
            QMPError: it could end in SIGBUS, and `strict` is set.
        """
        with self._lock:
            if check:
                self.check(spec, fd, nodes)
            region = make()
            self._regions.append((region, nodes))
        region.on_discard = partial(self._discard, region)
        return region

    def check(self, spec: MapSpec, fd: int, nodes: frozenset[int]) -> None:
        """See whether `map` would refuse; raises `QMPError` if it would."""
        if not self.strict:
            return
        size = spec.page_size
        pages = _not_in_file(spec, fd) if spec.shared else spec.length // size
        new = Claim(pages, pages, nodes)
        # What nobody else may claim, the kernel sets aside by itself, or refuses.
        alone = new.open if spec.reserve else 0
        with self._lock:
            claims = self._claims(size)
        lacking = lack(_supply(size), [*claims, new], alone)
        if lacking:
            raise QMPError(
                f"{new.missing} huge pages of {size_text(size)} can't be committed:"
                f" {lacking} (--commit strict)"
            )

    def _discard(self, region: Region, length: int) -> None:
        """Bytes of a region were thrown away; what was set aside for them is no longer."""
        with self._lock:
            key = _file_of(region)
            self._discarded[key] = self._discarded.get(key, 0) + length

    def _claims(self, page_size: int) -> list[Claim]:
        """The pages that all memory may claim; a shared part of a file counts once."""
        self._regions = [entry for entry in self._regions if entry[0].fd >= 0]
        files = {_file_of(region) for region, _nodes in self._regions}
        self._discarded = {key: size for key, size in self._discarded.items() if key in files}
        found: dict[object, Claim] = {}
        for region, nodes in self._regions:
            if region.page_size == page_size:
                file = _file_of(region)
                claim = _claim(region, nodes, self._discarded.get(file, 0))
                key = file, region.offset if region.shared else 0, region.length, nodes
                found[key] = max(claim, found.get(key, claim))
        return list(found.values())

    def rows(self) -> list[JSONObject]:
        """How it stands for each size of which there are pages, or claims.

        Raises:
            QMPError: /sys is not mounted.
        """
        try:
            rows = map(self.row, capacity.huge_page_sizes())
        except capacity.CannotTell as why:
            raise QMPError(str(why)) from None
        return [row for row in rows if row["total"] or row["claims"]]

    def row(self, size: int) -> JSONObject:
        """How it stands for pages of a size: QAPI's `HugePages`."""
        supply = _supply(size)
        with self._lock:
            claims = self._claims(size)
        lacking = lack(supply, claims)
        return {
            "page-size": size,
            **{name: getattr(supply.pool, name) for name in ("total", "free", "promised")},
            "claims": sum(claim.open for claim in claims),
            "nodes": [
                {
                    "node": node,
                    "free": free,
                    "bound": sum(claim.missing for claim in claims if node in claim.nodes),
                }
                for node, free in supply.by_node
            ],
            **({"lacking": lacking} if lacking else {}),
        }

    def lacking(self) -> str:
        """What there is too little of at present, which other processes may have taken; or "".

        Raises:
            QMPError: /sys is not mounted.
        """
        return "; ".join(
            f"huge pages of {size_text(row['page-size'])}: {row['lacking']}"
            for row in self.rows()
            if "lacking" in row
        )


def _supply(size: int) -> Supply:
    pool = capacity.huge_pool(size) or HugePool(0, 0, 0, 0, 0)
    return Supply(pool, capacity.huge_pages_by_node(size), list(cgroup.huge_pages_left(size)))


def lack(supply: Supply, claims: list[Claim], alone: int = 0) -> str:
    """What there is too little of for all these claims; "" where there is enough.

    Args:
        alone: how many pages the kernel sets aside, if nothing else claims any.
    """
    claimed = sum(claim.open for claim in claims)
    pool = supply.pool
    if claimed > pool.left and claimed != alone:
        return f"{pool.left} are free and not set aside, and {claimed} could be claimed"
    free = dict(supply.by_node)
    # What others have had set aside, they may take from any node.
    others = max(0, pool.promised - sum(claim.missing - claim.open for claim in claims))
    for nodes in {claim.nodes for claim in claims if claim.nodes}:
        there = sum(free.get(node, 0) for node in nodes)
        wanted = sum(claim.missing for claim in claims if not claim.nodes or claim.nodes & nodes)
        if others + wanted > there:
            on = ", ".join(map(str, sorted(nodes)))
            return f"{there} are free on node {on}, and {others + wanted} could be claimed there"
    missing = sum(claim.missing for claim in claims)
    for left in supply.allowed:
        if missing > left:
            return f"the control group allows {left} more, and {missing} could be claimed"
    return ""


def _file_of(region: Region) -> object:
    """A key that regions which share their pages have in common."""
    opened = region.opened
    return (opened.device, opened.inode) if region.shared and opened is not None else region


def _claim(region: Region, nodes: frozenset[int], discarded: int) -> Claim:
    """The claim of a region of whose file so many bytes were thrown away."""
    size = region.page_size
    if region.shared:
        missing = _not_in_file(region.spec, region.fd)
    else:
        with PageMap() as pages:
            own = taken(region, pages, 0, region.length).private_dirty
        missing = (region.length - own) // size
    open = min(missing, discarded // size) if region.spec.reserve else missing
    return Claim(missing, open, nodes)


def _not_in_file(spec: MapSpec, fd: int) -> int:
    """How many pages of a mapping may not be in its file yet, at most."""
    there = os.fstat(fd)
    # All that the file has may lie beside what is mapped.
    beside = max(0, there.st_size - spec.length)
    return -(-(spec.length - max(0, there.st_blocks * 512 - beside)) // spec.page_size)
