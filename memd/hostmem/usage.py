"""The memory use of regions: resident memory, copies on write, swap, by NUMA node."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress

from memd.hostmem import libc, numa
from memd.hostmem.pages import FILE, HUGE, PRESENT, SWAPPED, ZERO, PageMap, Run
from memd.hostmem.region import Region
from memd.named_tuple import NamedTuple

_ALL = FILE | PRESENT | SWAPPED | ZERO | HUGE


class Taken(NamedTuple):
    """The memory use of a range of a region, in bytes; members as of `Usage`.

    Attributes:
        huge: how much of what is resident is huge pages, as far as they are
            mapped by this process.
    """

    resident: int
    private_dirty: int
    swapped: int
    huge: int


class Usage(NamedTuple):
    """The memory use of a region, in bytes.

    Attributes:
        resident: how much of it is in memory. Of a shared file everything
            counts that the kernel holds of it, no matter which process touched it; of a private
            mapping what is mapped.
        private_dirty: how much of a private mapping is its own, and not a file's.
        swapped: how much of it is swapped out.
        nodes: how much of it each NUMA node holds, those without any left out.
    """

    resident: int
    private_dirty: int
    swapped: int
    nodes: list[tuple[int, int]]


def untouched(region: Region) -> bool:
    """Whether a private mapping has no page of its own."""
    try:
        with PageMap() as pages:
            found = taken(region, pages, 0, region.length)
    except OSError:
        # Where the kernel does not tell, there may be some.
        return False
    return found.private_dirty + found.swapped == 0


def usage(regions: list[Region], where: str = numa.NODES) -> list[Usage]:
    """The memory use of each of the regions, in their order.

    Args:
        where: the kernel tells of NUMA nodes.

    Raises:
        OSError: the kernel does not tell.
    """
    with PageMap() as pages:
        found = [taken(region, pages, 0, region.length) for region in regions]
    nodes = sorted(numa.with_memory(where)) or [0]
    if len(nodes) > 1:
        with open("/proc/self/numa_maps", "rb") as rows:
            shares = by_node(regions, parse_numa_maps(rows.read()))
    else:
        shares = [[(nodes[0], each.resident)] if each.resident else [] for each in found]
    return [Usage(*each[:3], share) for each, share in zip(found, shares, strict=True)]


def taken(region: Region, pages: PageMap, start: int, length: int, *, huge: bool = False) -> Taken:
    """The memory use of a range of a region.

    Args:
        pages: this process's.
        start: where the range begins in the region, in bytes, like `length`.
        huge: whether to count huge pages.

    Raises:
        OSError: the kernel does not tell.
    """
    address = region.address + start
    if region.anonymous:
        if not (huge or region.shared):
            # One look is enough.
            runs = pages.few(address, length, _ALL & ~(FILE | HUGE))
            if runs is not None:
                present = _sum(run for run in runs if run[2] == PRESENT)
                swapped = _sum(run for run in runs if run[2] == SWAPPED)
                return Taken(present, present, swapped, 0)
        return _of_anonymous(pages, address, length, HUGE if huge else 0)
    held = _held(region, start, length) if region.shared and region.fd >= 0 else None
    if held is not None:
        large = 0
        if huge:
            # Kernels before 6.7 do not say it of pages.
            of = HUGE if region.page_size == libc.PAGE_SIZE else PRESENT
            large = _sum(pages.runs(address, length, of=of, kinds=of))
        return Taken(held[0], 0, held[1], min(large, held[0]))
    kinds = _ALL if huge else _ALL & ~HUGE
    return _spread(region, pages.runs(address, length, kinds=kinds), length, 1)[0]


def each_taken(region: Region, pages: PageMap, start: int, length: int, size: int) -> list[Taken]:
    """The memory use of each part of a range, huge pages counted; see `taken`.

    Args:
        size: of a part, in bytes; the last one is what is left.
    """
    address = region.address + start
    parts = [(at, min(size, start + length - at)) for at in range(start, start + length, size)]
    runs: Iterable[Run] | None = None
    if not region.shared:
        if region.anonymous:
            runs = pages.few(address, length, _ALL & ~FILE)
        else:
            runs = pages.runs(address, length, kinds=_ALL)
    elif region.fd >= 0 and length == region.length:
        held = None
        with suppress(OSError):
            held = held_by_blocks(region)
        if held == length and not _sum(pages.runs(address, length, of=HUGE, kinds=HUGE)):
            return [Taken(part, 0, 0, 0) for _at, part in parts]
        if held is not None:
            mapped = pages.few(address, length, PRESENT | HUGE)
            # Where pages are that only others have mapped, the file tells.
            runs = mapped if mapped is not None and _sum(mapped) == held else None
    if runs is None:
        return [taken(region, pages, at, part, huge=True) for at, part in parts]
    return _spread(region, runs, size, len(parts))


def _sum(runs: Iterable[Run]) -> int:
    return sum(end - begin for begin, end, _kinds in runs)


def _spread(region: Region, runs: Iterable[Run], size: int, count: int) -> list[Taken]:
    """The use of so many parts of a size, by the runs of all of them."""
    resident, own, swapped, large = ([0] * count for _ in range(4))
    nothing = ZERO if region.anonymous else ZERO | FILE
    huge = HUGE if region.page_size == libc.PAGE_SIZE else PRESENT
    for begin, end, kinds in runs:
        if kinds & nothing == nothing:
            continue
        while begin < end:
            part = begin // size
            length = min(end, (part + 1) * size) - begin
            if kinds & PRESENT:
                resident[part] += length
                if not (kinds & FILE or region.shared):
                    own[part] += length
                if kinds & huge:
                    large[part] += length
            elif not kinds & FILE:
                swapped[part] += length
            begin += length
    return list(map(Taken, resident, own, swapped, large))


def _of_anonymous(pages: PageMap, address: int, length: int, huge: int) -> Taken:
    """The use of a range without a file; `huge` is HUGE where that is to be counted, or 0."""
    resident = swapped = large = 0
    kinds = ZERO | SWAPPED | huge
    for there in libc.resident_maps(address, length):
        # mincore(2) is several times as fast as a scan, and tells neither of these.
        resident += there.count(1)
        part = len(there) * libc.PAGE_SIZE
        for begin, end, found in pages.runs(address, part, of=kinds, kinds=kinds):
            if found & (ZERO | SWAPPED):
                resident -= there.count(1, begin // libc.PAGE_SIZE, end // libc.PAGE_SIZE)
                if found & SWAPPED:
                    swapped += end - begin
            else:
                large += end - begin
        address += part
    resident *= libc.PAGE_SIZE
    return Taken(resident, resident, swapped, large)


def held_by_blocks(region: Region) -> int | None:
    """The bytes that a region of a whole file in memory holds; None where its blocks don't tell.

    Raises:
        OSError: as `cachestat`.
    """
    opened = region.opened
    if opened is None or opened.magic != libc.TMPFS_MAGIC or region.offset:
        return None
    if region.host.swap_used() or os.fstat(region.fd).st_size > region.length:
        return None
    beyond, _ = region.host.cachestat(region.fd, region.length, 0)
    return os.fstat(region.fd).st_blocks * 512 - beyond * libc.PAGE_SIZE


def _held(region: Region, start: int, length: int) -> tuple[int, int] | None:
    """The bytes in memory and in swap of a range of a file; None if the kernel can't tell."""
    opened = region.opened
    if opened is None or not stat.S_ISREG(opened.mode):
        return None
    if opened.overlaid:
        # The pages are those of the file below, which is what is mapped.
        return libc.resident_pages(region.address + start, length) * libc.PAGE_SIZE, 0
    if opened.magic == libc.HUGETLBFS_MAGIC:
        # Its blocks are pages in memory.
        there = os.fstat(region.fd)
        whole = not region.offset and there.st_size == region.length == length
        return (there.st_blocks * 512, 0) if whole else None
    try:
        if length == region.length and (blocks := held_by_blocks(region)) is not None:
            return blocks, 0
        cached, evicted = region.host.cachestat(region.fd, region.offset + start, length)
    except OSError as failed:
        if failed.errno != errno.ENOSYS:
            # Not memd's to know, and mincore(2) would say that all is there.
            return None
        return libc.resident_pages(region.address + start, length) * libc.PAGE_SIZE, 0
    swapped = evicted if opened.magic == libc.TMPFS_MAGIC else 0
    return cached * libc.PAGE_SIZE, swapped * libc.PAGE_SIZE


Rows = list[tuple[int, dict[int, int]]]
"""The address of each mapping, and what each node holds of it in bytes; ascending."""


def parse_numa_maps(text: bytes) -> Rows:
    """Parse /proc/PID/numa_maps (numa(7)).

    Each row begins with an address, and has `N<node>=<pages>` and
    `kernelpagesize_kB=<size>` among its words.
    """
    rows = []
    for row in text.splitlines():
        address, *words = row.split()
        held: dict[int, int] = {}
        unit = libc.PAGE_SIZE
        for word in words:
            key, _, value = word.partition(b"=")
            if key == b"kernelpagesize_kB":
                unit = int(value) << 10
            elif key[:1] == b"N" and key[1:].isdigit():
                held[int(key[1:])] = int(value)
        rows.append((int(address, 16), {node: count * unit for node, count in held.items()}))
    return rows


def by_node(regions: list[Region], rows: Rows) -> list[list[tuple[int, int]]]:
    """The bytes of each region by node; memory that only others have mapped is not known."""
    held = dict(rows)
    # A region is as a rule one mapping; a policy on a part of it makes it several.
    addresses = sorted(held)
    found = []
    from bisect import bisect_left

    for region in regions:
        total: dict[int, int] = {}
        first = bisect_left(addresses, region.address)
        last = bisect_left(addresses, region.address + region.length)
        for address in addresses[first:last]:
            for node, size in held[address].items():
                total[node] = total.get(node, 0) + size
        found.append(sorted(total.items()))
    return found
