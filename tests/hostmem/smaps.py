"""What the kernel says of one mapping of this process."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """A row of /proc/self/smaps; sizes in bytes.

    Attributes:
        flags: the words of VmFlags (proc(5)).
    """

    start: int
    end: int
    permissions: str
    offset: int
    resident: int
    flags: frozenset[str]


def rows() -> list[Row]:
    """All mappings of this process."""
    return _parsed(_text())


def row_of(address: int) -> Row | None:
    """The mapping that begins at an address, or None."""
    # What is larger than all gaps above the program is below it, in the first row.
    text = f"\n{_text()}"
    # There are a hundred others.
    begin = text.find(f"\n{address:08x}-")
    if begin < 0:
        return None
    flags = text.index("\nVmFlags:", begin) + 1
    return _parsed(text[begin + 1 : text.index("\n", flags)])[0]


def _text() -> str:
    with open("/proc/self/smaps", errors="surrogateescape") as file:
        return file.read()


def _parsed(text: str) -> list[Row]:
    found = []
    head: list[str] = []
    resident = 0
    for line in text.splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            head, resident = words, 0
        elif words[0] in ("Rss:", "Shared_Hugetlb:", "Private_Hugetlb:"):
            resident += int(words[1]) << 10
        elif words[0] == "VmFlags:":
            start, end = (int(part, 16) for part in head[0].split("-"))
            flags = frozenset(words[1:])
            found.append(Row(start, end, head[1], int(head[2], 16), resident, flags))
    return found
