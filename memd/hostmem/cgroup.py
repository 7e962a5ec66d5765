"""How much memory the control groups of this process still allow it.

Whoever goes beyond the limit is killed, and so is memd when it populates memory
(observed: SIGKILL, in both versions of the interface); nothing tells it before. So
what is surely too much is not begun. See cgroups(7) and the kernel's
documentation of memory.max and memory.limit_in_bytes.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from memd.hostmem import libc
from memd.hostmem.region import Region

MARGIN = 32 << 20
"""Bytes left to the process itself: the tables of what is populated, its heap. Messages of
some MiB fit in between; what many clients send at once is bounded elsewhere."""

_NO_LIMIT = 1 << 60
"""Bytes from which on a limit of version 1 means none."""


class Group(NamedTuple):
    """A control group that limits memory; sizes in bytes.

    Attributes:
        path: its directory.
        limit: what may be used in it.
        version: of the interface, 1 or 2.
    """

    path: str
    limit: int
    version: int

    def room(self) -> int:
        """What is left; raises `OSError` or `ValueError` where the kernel does not tell.

        Pages of files count as left: they are dropped where memory is short.
        """
        used = "memory.current" if self.version == 2 else "memory.usage_in_bytes"
        prefix = "" if self.version == 2 else "total_"
        wanted = (f"{prefix}inactive_file", f"{prefix}active_file")
        left = self.limit - int(_text(f"{self.path}/{used}"))
        for row in _text(f"{self.path}/memory.stat").splitlines():
            name, _, value = row.partition(" ")
            if name in wanted:
                left += int(value)
        return left


def groups() -> list[Group]:
    """The control groups that limit this process's memory, its own and those above."""
    try:
        memberships = _text("/proc/self/cgroup").splitlines()
        mounts = _text("/proc/self/mountinfo").splitlines()
    except OSError:
        return []
    found = []
    for row in memberships:
        _number, controllers, path = row.split(":", 2)
        version = 1 if "memory" in controllers.split(",") else 2
        if version == 1 or not controllers:
            where = _place(mounts, path, version)
            if where is not None:
                found += _limited(*where, version)
    return found


def _place(mounts: list[str], path: str, version: int) -> tuple[str, str] | None:
    """Where the hierarchy is mounted, and where the group of that path is below it."""
    for row in mounts:
        before, _, after = row.partition(" - ")
        fields, (kind, _source, options) = before.split(), after.split(" ", 2)
        root, top = fields[3], fields[4]
        if version == 2 and kind != "cgroup2":
            continue
        if version == 1 and (kind != "cgroup" or "memory" not in options.split(",")):
            continue
        # What is mounted may be a part of the hierarchy: that of a container.
        if root != "/" and (path == root or path.startswith(f"{root}/")):
            path = path[len(root) :]
        return top, os.path.normpath(f"{top}/{path}")
    return None


def _limited(top: str, path: str, version: int) -> list[Group]:
    """The group at `path`, and those above it up to `top`, that have a limit."""
    name = "memory.max" if version == 2 else "memory.limit_in_bytes"
    found = []
    while path.startswith(top):
        try:
            text = _text(f"{path}/{name}").strip()
        except OSError:
            # The root has none, and what is seen may lie elsewhere.
            text = "max"
        if text != "max" and int(text) < _NO_LIMIT:
            found.append(Group(path, int(text), version))
        if path == top:
            break
        path = os.path.dirname(path)
    return found


def room(limited: list[Group]) -> int | None:
    """Bytes that all these groups allow yet; None where none of them limits, or tells."""
    least = None
    for group in limited:
        try:
            left = group.room()
        except (OSError, ValueError):
            continue
        least = left if least is None else min(least, left)
    return least


def swap_left() -> int:
    """Bytes of free swap space, which may take what a group's limit does not."""
    for row in _text("/proc/meminfo").splitlines():
        if row.startswith("SwapFree:"):
            return int(row.split()[1]) << 10
    return 0


def takes_memory(region: Region) -> bool:
    """Whether a page of a region is memory that its group is charged for, for good.

    Those of a file on a disk are written back and dropped, huge pages are set
    aside elsewhere.
    """
    if region.page_size > libc.PAGE_SIZE:
        return False
    if region.fd < 0 or (region.writable and not region.shared):
        return True
    return libc.file_system_type(region.fd) == libc.TMPFS_MAGIC


def fits(limited: list[Group], region: Region, start: int, length: int, margin: int) -> bool:
    """Whether a range's pages can be made without going beyond a limit.

    Args:
        limited: the groups, as `groups` gives them.
        region: for which `takes_memory` holds.
        start: where the range begins in the region, in bytes, like `length`.
        margin: bytes to leave.
    """
    left = room(limited)
    if left is None or length + margin <= left:
        return True
    begin = (region.address + start) & -libc.PAGE_SIZE
    end = region.address + start + length
    whole = end - begin + -(end - begin) % libc.PAGE_SIZE
    missing = whole
    if region.fd < 0 or region.shared:
        # Of a private mapping of a file, the pages that are there are the file's.
        missing -= libc.resident_pages(begin, whole) * libc.PAGE_SIZE
    return missing == 0 or missing + margin <= left + swap_left()


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
