"""Checks of `memctl doctor`: memory itself, and pages of every size."""

from __future__ import annotations

from collections.abc import Iterator

from memd.memctl.host import OK, WARN, Check, Host, warned
from memd.memctl.sizes import short
from memd.sizes import rounded

_POOLS = "/sys/kernel/mm/hugepages"
_THP = "/sys/kernel/mm/transparent_hugepage"
_KSM = "/sys/kernel/mm/ksm"


def memory(host: Host) -> Iterator[Check]:
    """The amount of memory, and the share that this process may have."""
    rows = host.meminfo()
    total = rows.get("MemTotal", 0)
    available = rows.get("MemAvailable", rows.get("MemFree", 0))
    swap = rows.get("SwapTotal", 0)
    found = (
        f"{rounded(total)}, {short(available)} of it available,"
        f" {rounded(swap) if swap else 'no'} swap"
    )
    advice = "Nearly all is taken: prealloc=on may have it killed for lack."
    yield warned("memory", available < total // 10, found, advice)
    group = host.group_limit()
    # Version 1 has a huge number where there is no limit.
    if group is not None and group[0] < total:
        limit, path = group
        yield Check(
            "control group",
            WARN,
            f"at most {rounded(limit)} of {rounded(total)}",
            f"What goes beyond is killed. Raise {path}, or the container's --memory.",
        )


def promises(host: Host) -> Iterator[Check]:
    """Whether more memory may be promised than there is (vm.overcommit_memory)."""
    rule = host.number("/proc/sys/vm/overcommit_memory")
    if rule is None:
        return
    if rule != 2:
        found = "within reason (0)" if rule == 0 else "always (1)"
        yield Check("overcommit", OK, found)
        return
    rows = host.meminfo()
    limit, promised = rows.get("CommitLimit", 0), rows.get("Committed_AS", 0)
    yield Check(
        "overcommit",
        WARN,
        f"never (2): {short(promised)} of {short(limit)} are promised, and reserve=off is refused",
        "sysctl vm.overcommit_memory=0",
    )


def huge_pages(host: Host) -> Iterator[Check]:
    """The pools of huge pages, each size and node."""
    sizes = sorted(
        int(name.removeprefix("hugepages-").removesuffix("kB")) << 10
        for name in host.names(_POOLS)
        if name.startswith("hugepages-")
    )
    if not sizes:
        yield Check(
            "huge pages",
            WARN,
            "this kernel has none: hugetlb=on is refused",
            "A kernel with CONFIG_HUGETLBFS is needed.",
        )
        return
    usual = host.meminfo().get("Hugepagesize", sizes[0])
    for size in sizes:
        yield _pool(host, size, size == usual)
    where = host.mounts("hugetlbfs")
    yield Check(
        "hugetlbfs",
        OK,
        f"mounted at {', '.join(where)}" if where else "not mounted: memfd,hugetlb=on needs none",
        "" if where else "For memory-backend-file: mount -t hugetlbfs none /dev/hugepages",
    )


def _pool(host: Host, size: int, usual: bool) -> Check:
    place = f"{_POOLS}/hugepages-{size >> 10}kB"
    name = f"huge pages of {rounded(size)}"
    total = host.number(f"{place}/nr_hugepages") or 0
    extra = host.number(f"{place}/nr_overcommit_hugepages") or 0
    make = f"For 4 GiB of them: echo {max(1, (4 << 30) // size)} > {place}/nr_hugepages"
    if not total and not extra:
        found = "none are set aside"
        if not usual and size > 1 << 29:
            make += ", best at boot: hugepagesz=1G hugepages=4"
        return Check(name, WARN if usual else OK, found, make)
    free = host.number(f"{place}/free_hugepages") or 0
    promised = host.number(f"{place}/resv_hugepages") or 0
    found = f"{total}, {free} free"
    if promised:
        found += f" of which {promised} are promised"
    if extra:
        found += f", up to {extra} more on demand"
    counts = _by_node(host, size)
    if len(counts) > 1:
        found += "; " + ", ".join(f"node {node}: {count}" for node, count in counts)
    if free <= promised and not extra:
        return Check(name, WARN, found, f"None is left. {make}")
    without = [str(node) for node, count in counts if not count]
    if without and total:
        advice = (
            f"Nodes without any: {', '.join(without)}. For each: echo COUNT >"
            f" /sys/devices/system/node/nodeN/hugepages/hugepages-{size >> 10}kB/nr_hugepages"
        )
        return Check(name, WARN, found, advice)
    return Check(name, OK, found)


def _by_node(host: Host, size: int) -> list[tuple[int, int]]:
    found = []
    for node in host.nodes():
        place = f"/sys/devices/system/node/node{node}/hugepages/hugepages-{size >> 10}kB"
        count = host.number(f"{place}/nr_hugepages")
        if count is not None:
            found.append((node, count))
    return found


def transparent(host: Host) -> Iterator[Check]:
    """Transparent huge pages: of private memory, and of memfd and shm."""
    chosen = host.choice(f"{_THP}/enabled")
    if chosen is None:
        yield Check(
            "THP",
            WARN,
            "this kernel has no transparent huge pages",
            "A kernel with CONFIG_TRANSPARENT_HUGEPAGE is needed.",
        )
        return
    if chosen == "never":
        yield Check(
            "THP",
            WARN,
            "never: memory is mapped in small pages",
            f"echo madvise > {_THP}/enabled",
        )
    else:
        yield Check("THP", OK, f"{chosen}: private memory may be in transparent huge pages")
    shared = host.choice(f"{_THP}/shmem_enabled")
    if shared is None:
        return
    off = shared in ("never", "deny")
    yield Check(
        "THP of memfd and shm",
        OK,
        f"{shared}: they are in small pages" if off else f"{shared}: they may have them",
        f"To let them: echo advise > {_THP}/shmem_enabled" if off else "",
    )


def merging(host: Host) -> Iterator[Check]:
    """Whether equal pages are merged (KSM)."""
    run = host.number(f"{_KSM}/run")
    if run is None:
        yield Check(
            "KSM", WARN, "this kernel has none: merge=on has no effect", "CONFIG_KSM is needed."
        )
    elif run == 1:
        pages = host.number(f"{_KSM}/pages_sharing") or 0
        yield Check("KSM", OK, f"on, {pages} pages are others' copies at present")
    else:
        yield Check(
            "KSM",
            OK,
            "off: merge=on has no effect",
            f"To have equal pages merged, if tenants may know of each other's: echo 1 > {_KSM}/run",
        )


CHECKS = (memory, promises, huge_pages, transparent, merging)
"""In the order in which they are told."""
