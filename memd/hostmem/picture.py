"""A picture of a region: what each part of it takes, and how the kernel has it mapped."""

from __future__ import annotations

from contextlib import suppress

from memd.hostmem import libc
from memd.hostmem.pages import HUGE, PageMap
from memd.hostmem.region import Region
from memd.hostmem.spec import round_up
from memd.hostmem.usage import Taken, held_by_blocks, taken


def cell_size(region: Region, length: int, cells: int) -> int:
    """Bytes of each part, in whole pages, where a range is to be at most so many parts."""
    return max(region.page_size, round_up(-(-length // cells), region.page_size))


def cells(region: Region, offset: int, length: int, size: int) -> list[Taken]:
    """What each part of a range takes.

    Args:
        offset: where the range begins, in bytes; a multiple of the page size.
        length: of the range, in bytes; the last part is what is left.
        size: of a part, as `cell_size` gives it.

    Raises:
        OSError: the kernel does not tell.
    """
    end = offset + length
    parts = [(at, min(size, end - at)) for at in range(offset, end, size)]
    with PageMap() as pages:
        huge = True
        if region.shared and region.page_size == libc.PAGE_SIZE:
            # As a rule there are none of these, and the whole is of one kind.
            runs = pages.runs(region.address + offset, length, of=HUGE, kinds=HUGE)
            huge = any(True for _ in runs)
            with suppress(OSError):
                if not huge and (held := held_by_blocks(region)) in (0, region.length):
                    return [Taken(part if held else 0, 0, 0, 0) for _at, part in parts]
        return [taken(region, pages, at, part, huge=huge) for at, part in parts]


def mapping(region: Region) -> list[str]:
    """The rows of /proc/PID/maps (proc_pid_maps(5)) that a region is.

    As a rule it is one; a NUMA policy on a part of it makes it several.

    Raises:
        OSError: the kernel does not tell.
    """
    end = region.address + region.length
    found = []
    with open("/proc/self/maps", "rb") as rows:
        for row in rows:
            start = int(row[: row.index(b"-")], 16)
            if start >= end:
                break
            if start >= region.address:
                found.append(row.decode("utf-8", "backslashreplace").rstrip("\n"))
    return found
