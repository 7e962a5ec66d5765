"""A picture of a region: what each part of it takes, and how the kernel has it mapped."""

from __future__ import annotations

from memd.hostmem.pages import PageMap
from memd.hostmem.region import Region
from memd.hostmem.spec import round_up
from memd.hostmem.usage import Taken, each_taken


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
    with PageMap() as pages:
        return each_taken(region, pages, offset, length, size)


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
