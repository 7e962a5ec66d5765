"""How much memory the control groups of this process still allow it.

A process beyond the limit is killed, and so is memd when it populates memory
(observed: SIGKILL, in both versions of the interface); nothing tells it before. So
what is surely too much is not begun. See cgroups(7) and the kernel's
documentation of memory.max and memory.limit_in_bytes.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress

from memd.hostmem import libc
from memd.hostmem.meminfo import parse_meminfo
from memd.hostmem.region import Region
from memd.named_tuple import NamedTuple

MARGIN = 32 << 20
"""Bytes left to the process itself: the tables of what is populated, its heap. Messages of
some MiB fit in between; what many clients send at once is bounded elsewhere."""

_NO_LIMIT = 1 << 60
"""Bytes from which on a limit of version 1 means none."""


class Group(NamedTuple):
    """A control group that limits memory or swap; sizes in bytes.

    Attributes:
        path: its directory.
        limit: what memory may be used in it; _NO_LIMIT or more for any.
        version: of the interface, 1 or 2.
    """

    path: str
    limit: int
    version: int

    def memory_left(self) -> int:
        """Bytes left; raises `OSError` or `ValueError` where the kernel does not tell.

        Pages of files count as left: they are dropped where memory is short.
        """
        left = self.limit - self._used()
        prefix = "" if self.version == 2 else "total_"
        wanted = (f"{prefix}inactive_file", f"{prefix}active_file")
        for row in _text(f"{self.path}/memory.stat").splitlines():
            name, _, value = row.partition(" ")
            if name in wanted:
                left += int(value)
        return left

    def swap(self) -> int:
        """How much swap space its pages may take yet; raises as `memory_left` does.

        With a swappiness of 0 a group's pages are not swapped out to keep to its limit.
        """
        if self.version == 2:
            allowed = _text(f"{self.path}/memory.swap.max").strip()
            if not int(_text("/proc/sys/vm/swappiness")):
                return 0
            if allowed == "max":
                return _NO_LIMIT
            return max(0, int(allowed) - int(_text(f"{self.path}/memory.swap.current")))
        if not int(_text(f"{self.path}/memory.swappiness")):
            return 0
        # What is limited is memory and swap together.
        both = int(_text(f"{self.path}/memory.memsw.limit_in_bytes"))
        left = both - int(_text(f"{self.path}/memory.memsw.usage_in_bytes"))
        return max(0, left - max(0, self.limit - self._used()))

    def _used(self) -> int:
        name = "memory.current" if self.version == 2 else "memory.usage_in_bytes"
        return int(_text(f"{self.path}/{name}"))


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
    names = ("memory.max", "memory.swap.max") if version == 2 else ("memory.limit_in_bytes",)
    found = []
    for group in _upwards(top, path):
        limits = [_limit(f"{group}/{name}") for name in names]
        if min(limits) < _NO_LIMIT:
            found.append(Group(group, limits[0], version))
    return found


def _upwards(top: str, path: str) -> Iterator[str]:
    """A group's directory, and those of the groups above it."""
    while path.startswith(top):
        yield path
        if path == top:
            return
        path = os.path.dirname(path)


def huge_pages_left(page_size: int) -> Iterator[int]:
    """How many huge pages each group of version 2 that limits them allows yet.

    What a group allows to be used is not looked at by the kernel when it sets pages
    aside (hugetlb.<size>.max).
    """
    unit = max(at for at in (10, 20, 30) if page_size >> at)
    name = f"hugetlb.{page_size >> unit}{'KMG'[unit // 10 - 1]}B"
    with suppress(OSError):
        mounts = _text("/proc/self/mountinfo").splitlines()
        for row in _text("/proc/self/cgroup").splitlines():
            where = _place(mounts, row[3:], 2) if row.startswith("0::") else None
            for group in () if where is None else _upwards(*where):
                limit = _limit(f"{group}/{name}.max")
                if limit < _NO_LIMIT:
                    yield max(0, limit - int(_text(f"{group}/{name}.current"))) // page_size


def _limit(path: str) -> int:
    try:
        text = _text(path).strip()
    except OSError:
        # The root has none, and what is seen may lie elsewhere.
        return _NO_LIMIT
    return _NO_LIMIT if text == "max" else int(text)


def memory_left(limited: list[Group]) -> int | None:
    """Bytes that all these groups allow yet; None where none of them limits, or tells."""
    least = None
    for group in limited:
        if group.limit >= _NO_LIMIT:
            continue
        try:
            left = group.memory_left()
        except (OSError, ValueError):
            continue
        least = left if least is None else min(least, left)
    return least


def swap_left(limited: list[Group]) -> int:
    """Bytes of swap space that may take what the groups' limits do not."""
    left = parse_meminfo(_text("/proc/meminfo").splitlines()).get("SwapFree", 0)
    for group in limited:
        try:
            left = min(left, group.swap())
        except (OSError, ValueError):
            # A kernel that does not count swap by group.
            continue
    return left


_lock = threading.Lock()
_underway = 0
"""Bytes that are being made, and may not be counted by the kernel yet."""
_allowance = 0
"""Bytes that may still be made without asking how much the groups allow."""
_groups: list[Group] = []
_asked = float("-inf")
"""When these were found."""

_ALLOWANCE = 4 << 20
_SECONDS = 1.0
"""Asking takes a tenth of a millisecond and more, which each small write need not wait for."""


@contextmanager
def charged(length: int, missing: Callable[[], int] | None = None) -> Iterator[bool]:
    """While so many bytes of memory are made, which the groups are charged for.

    Yields whether other pages have to be swapped out for them.

    Args:
        length: at most so many.
        missing: counts how many really are; asked where all would be too many.

    Raises:
        OSError: the groups do not allow that (ENOMEM).
    """
    global _underway, _allowance, _groups, _asked
    with _lock:
        now = time.monotonic()
        if now > _asked + _SECONDS:
            _groups, _asked, _allowance = groups(), now, 0
        limited = _groups
        free = not limited or length <= _allowance
        if free:
            _allowance -= length
        else:
            _underway += length
            others = _underway - length
    if free:
        yield False
        return
    try:
        left = _left_beyond(limited, length + others)
        if left < 0:
            wanted = length if missing is None else missing()
            if wanted and _left_beyond(limited, wanted + others, swap=True) < 0:
                raise libc.os_error(errno.ENOMEM)
        _allowance = max(0, min(_ALLOWANCE, left))
        yield left < 0
    finally:
        with _lock:
            _underway -= length


def _left_beyond(limited: list[Group], wanted: int, swap: bool = False) -> int:
    """Bytes that are left once so many are taken, and the margin; less than 0 for too many."""
    left = memory_left(limited)
    if left is None:
        return _NO_LIMIT
    return left + (swap_left(limited) if swap else 0) - wanted - MARGIN


@contextmanager
def making(region: Region, start: int, length: int) -> Iterator[None]:
    """While pages of a range of a region are made, where they are memory.

    Args:
        start: where the range begins in the region, in bytes, like `length`.

    Raises:
        OSError: the groups do not allow so many (ENOMEM).
    """
    if not takes_memory(region):
        yield
        return
    begin, end = libc.whole_pages(region.address + start, length)
    whole = end - begin

    def missing() -> int:
        if region.anonymous or region.shared:
            return whole - libc.resident_pages(begin, whole) * libc.PAGE_SIZE
        # Of a private mapping of a file, the pages that are there are the file's.
        return whole

    with charged(whole, missing) as swapping:
        yield
    if swapping:
        # Pages that MADV_POPULATE_WRITE made count as in use, and a group that has no
        # others is killed in spite of free swap (seen on Linux 6.18).
        libc.madvise(begin, whole, libc.MADV_COLD)


def writing(fd: int, length: int, at: int | None = None) -> AbstractContextManager[object]:
    """While bytes are written to a file, whose pages are memory on a tmpfs.

    Args:
        length: how many, in bytes.
        at: from where on, in bytes; None for the file's position.

    Raises:
        OSError: the groups do not allow so many (ENOMEM).
    """
    if libc.file_system_type(fd) != libc.TMPFS_MAGIC:
        return nullcontext()

    def missing() -> int:
        start = os.lseek(fd, 0, os.SEEK_CUR) if at is None else at
        try:
            there, _evicted = libc.cachestat(fd, start, length)
        except OSError:
            # Before Linux 6.5, or forbidden: of a file that has no hole none is missing.
            found = os.fstat(fd)
            whole = found.st_blocks * 512 >= found.st_size >= start + length
            return 0 if whole else length
        return max(0, length - there * libc.PAGE_SIZE)

    return charged(length, missing)


def takes_memory(region: Region) -> bool:
    """Whether a page of a region is memory that its group is charged for, for good.

    Those of a file on a disk are written back and dropped, huge pages are set
    aside elsewhere.
    """
    if region.page_size > libc.PAGE_SIZE:
        return False
    if region.opened is None or (region.writable and not region.shared):
        return True
    return region.opened.magic == libc.TMPFS_MAGIC or region.only_mapped


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
