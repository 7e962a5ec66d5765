"""The numbers of /proc/meminfo (proc_meminfo(5))."""

from __future__ import annotations

from collections.abc import Iterable


def parse_meminfo(rows: Iterable[str]) -> dict[str, int]:
    """The numbers in rows of that file, by name: sizes in bytes, counts of pages as they are."""
    found = {}
    for row in rows:
        name, _, value = row.partition(":")
        words = value.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) << (10 if len(words) > 1 else 0)
    return found
