"""How much of what memory is made of this host has: numbers to plan with.

Read from /proc and /sys as proc(5) and the kernel's documentation of huge
pages tell; all in bytes unless said. Nothing is changed.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress

from memd.hostmem import cgroup
from memd.hostmem.cgroup import Group
from memd.hostmem.meminfo import parse_meminfo
from memd.hostmem.numa import NODES, parse_list
from memd.hostmem.spec import OFF_T_MAX
from memd.named_tuple import NamedTuple

_HUGE_POOLS = "/sys/kernel/mm/hugepages"


class CannotTell(Exception):
    """Only trying tells. Its text, if any, says what else would."""


class HugePool(NamedTuple):
    """The huge pages of one size.

    Attributes:
        total: how many there are.
        free: how many nobody has; some may be promised.
        promised: how many of the free ones are set aside for mappings.
        surplus: how many are there beyond the pool.
        overcommit: how many may be there beyond the pool.
    """

    total: int
    free: int
    promised: int
    surplus: int
    overcommit: int

    @property
    def left(self) -> int:
        """How many can be set aside now without asking for more."""
        return max(0, self.free - self.promised)

    @property
    def extra(self) -> int:
        """How many the kernel may try to gather beyond the pool."""
        return max(0, self.overcommit - self.surplus)


def meminfo() -> dict[str, int]:
    """The rows of /proc/meminfo; sizes in bytes, counts of pages as they are."""
    return parse_meminfo(rows_of("/proc/meminfo"))


def huge_page_sizes(pools: str = _HUGE_POOLS) -> list[int]:
    """The sizes of huge pages that the kernel knows, ascending.

    Args:
        pools: where the kernel tells of them.

    Raises:
        CannotTell: /sys is not mounted.
    """
    try:
        names = os.listdir(pools)
    except FileNotFoundError:
        if not os.path.exists(os.path.dirname(pools)):
            raise _not_mounted(pools) from None
        return []
    return sorted(int(name.removeprefix("hugepages-").removesuffix("kB")) << 10 for name in names)


def default_huge_page_size() -> int:
    """The size of the system's default huge page; 0 where there are none."""
    return meminfo().get("Hugepagesize", 0)


def huge_pool(page_size: int, pools: str = _HUGE_POOLS) -> HugePool | None:
    """The pool of huge pages of a size, or None.

    Args:
        pools: where the kernel tells of them.
    """
    try:
        counts = [
            _number(f"{pools}/hugepages-{page_size >> 10}kB/{name}")
            for name in (
                "nr_hugepages",
                "free_hugepages",
                "resv_hugepages",
                "surplus_hugepages",
                "nr_overcommit_hugepages",
            )
        ]
    except (OSError, ValueError):
        return None
    return HugePool(*counts)


def huge_pages_by_node(page_size: int) -> list[tuple[int, int]]:
    """The NUMA nodes, and how many huge pages of a size are free on each."""
    found = []
    with suppress(OSError):
        for name in os.listdir(NODES):
            if name.removeprefix("node").isdecimal():
                place = f"{NODES}/{name}/hugepages/hugepages-{page_size >> 10}kB"
                with suppress(OSError):
                    free = _number(f"{place}/free_hugepages")
                    found.append((int(name.removeprefix("node")), free))
    return sorted(found)


def left_to_use(limited: list[Group] | None = None) -> int:
    """Bytes that pages are still available for: memory and swap, or what the control groups allow.

    Args:
        limited: the groups that limit this process; None has them looked up.
    """
    rows = meminfo()
    left = rows.get("MemAvailable", rows.get("MemFree", 0)) + rows.get("SwapFree", 0)
    limited = cgroup.groups() if limited is None else limited
    allowed = cgroup.memory_left(limited)
    if allowed is not None:
        left = min(left, allowed + cgroup.swap_left(limited))
    return max(0, left)


def merging() -> bool:
    """Whether the kernel merges equal pages (KSM) at present."""
    try:
        return _number("/sys/kernel/mm/ksm/run") == 1
    except OSError:
        return False


def largest_file() -> int:
    """Bytes that a file may be given by this process."""
    soft = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return OFF_T_MAX if soft == resource.RLIM_INFINITY else soft


def online_cpus() -> set[int]:
    """The CPUs that threads can run on."""
    (row,) = rows_of("/sys/devices/system/cpu/online")
    return parse_list(row)


def rows_of(path: str) -> list[str]:
    """The rows of a file of /proc or /sys.

    Raises:
        CannotTell: there is no such file.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as rows:
            return list(rows)
    except FileNotFoundError:
        raise _not_mounted(path) from None


def _not_mounted(path: str) -> CannotTell:
    return CannotTell(f"{path} is not there: /{path.split('/')[1]} may not be mounted")


def _number(path: str) -> int:
    with open(path, encoding="utf-8") as file:
        return int(file.read())
