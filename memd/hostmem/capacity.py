"""How much of what memory is made of this host has: numbers to foresee with.

Read from /proc and /sys as proc(5) and the kernel's documentation of huge
pages tell; all in bytes unless said. Nothing is changed.
"""

from __future__ import annotations

import os
import resource
from typing import NamedTuple

from memd.hostmem import cgroup, libc
from memd.hostmem.numa import parse_list

_HUGE_POOLS = "/sys/kernel/mm/hugepages"
# The lowest address that can be mapped, and the end of what a process has.
_FIRST_ADDRESS = 0x10000
_END = (1 << 47) - libc.PAGE_SIZE


class HugePool(NamedTuple):
    """The huge pages of one size.

    Attributes:
        page_size: of one, in bytes.
        total: how many there are.
        free: how many nobody has; some may be promised.
        promised: how many of the free ones are set aside for mappings.
        surplus: how many are there beyond the pool.
        overcommit: how many may be there beyond the pool.
    """

    page_size: int
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
    found = {}
    with open("/proc/meminfo", encoding="utf-8") as rows:
        for row in rows:
            name, _, value = row.partition(":")
            words = value.split()
            found[name] = int(words[0]) << (10 if len(words) > 1 else 0)
    return found


def huge_page_sizes() -> list[int]:
    """The sizes of huge pages that the kernel knows, ascending."""
    try:
        names = os.listdir(_HUGE_POOLS)
    except OSError:
        return []
    return sorted(int(name.removeprefix("hugepages-").removesuffix("kB")) << 10 for name in names)


def default_huge_page_size() -> int:
    """The size of the system's default huge page; 0 where there are none."""
    return meminfo().get("Hugepagesize", 0)


def huge_pool(page_size: int) -> HugePool | None:
    """The pool of huge pages of a size, or None."""
    try:
        counts = [
            _number(f"{_HUGE_POOLS}/hugepages-{page_size >> 10}kB/{name}")
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
    return HugePool(page_size, *counts)


def left_to_use() -> int:
    """Bytes that pages can still be had for: memory and swap, or what the control groups allow."""
    rows = meminfo()
    left = rows.get("MemAvailable", rows.get("MemFree", 0)) + rows.get("SwapFree", 0)
    limited = cgroup.groups()
    allowed = cgroup.room(limited)
    if allowed is not None:
        left = min(left, allowed + cgroup.swap_left(limited))
    return max(0, left)


def overcommit() -> int:
    """The kernel's rule for promising memory: 0 guesses, 1 always, 2 never too much."""
    return _number("/proc/sys/vm/overcommit_memory")


def can_promise(length: int, reserve: bool) -> bool:
    """Whether a private writable mapping of ordinary pages is within what may be promised.

    Args:
        length: in bytes.
        reserve: whether the mapping asks for that at all.
    """
    rule = overcommit()
    if rule == 1 or (rule == 0 and not reserve):
        return True
    rows = meminfo()
    if rule == 0:
        return length <= rows["MemTotal"] + rows["SwapTotal"]
    return length + rows["Committed_AS"] <= rows["CommitLimit"]


def merging() -> bool:
    """Whether the kernel merges equal pages (KSM) at present."""
    try:
        return _number("/sys/kernel/mm/ksm/run") == 1
    except OSError:
        return False


def largest_gap() -> int:
    """Bytes of the longest stretch of addresses in which nothing is mapped."""
    last, largest = _FIRST_ADDRESS, 0
    with open("/proc/self/maps", "rb") as rows:
        for row in rows:
            start, end = (int(part, 16) for part in row.split(maxsplit=1)[0].split(b"-"))
            if start >= _END:
                break
            largest = max(largest, start - last)
            last = end
    largest = max(largest, _END - last)
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft != resource.RLIM_INFINITY:
        with open("/proc/self/statm", encoding="utf-8") as words:
            largest = min(largest, soft - int(words.read().split()[0]) * libc.PAGE_SIZE)
    return largest


def largest_file() -> int:
    """Bytes that a file may be given by this process."""
    soft = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return (1 << 63) - 1 if soft == resource.RLIM_INFINITY else soft


def memory_nodes() -> set[int] | None:
    """The NUMA nodes with memory that this process may use; None without NUMA."""
    try:
        with open("/sys/devices/system/node/has_memory", encoding="utf-8") as file:
            nodes = parse_list(file.read())
    except OSError:
        return None
    return nodes & parse_list(_status("Mems_allowed_list"))


def node_limit() -> int:
    """One more than the highest number of a node that the kernel understands."""
    # The mask is shown in full: eight digits, a comma, and so on.
    return 4 * len(_status("Mems_allowed").replace(",", ""))


def online_cpus() -> set[int]:
    """The CPUs that threads can run on."""
    with open("/sys/devices/system/cpu/online", encoding="utf-8") as file:
        return parse_list(file.read())


def _status(name: str) -> str:
    with open("/proc/self/status", encoding="utf-8", errors="replace") as rows:
        for row in rows:
            key, _, value = row.partition(":")
            if key == name:
                return value.strip()
    return ""


def _number(path: str) -> int:
    with open(path, encoding="utf-8") as file:
        return int(file.read())
