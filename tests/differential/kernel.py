"""What the kernel says about a process and its files: mappings, descriptors, blocks."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.descriptors import wait_for_closing

PLACE = "@DIR@"
"""Stands for a side's own scratch directory in commands, answers and names."""

_RANDOM_NAMES = (
    # An unnamed file in a directory: six random characters (mkostemp(3)).
    (re.compile(r"(qemu_back_mem\.[^/]*\.)[A-Za-z0-9_]{6}\b"), r"\1XXXXXX"),
    # A POSIX shared memory object carries its maker's process id and a count.
    (re.compile(r"/dev/shm/\S+"), "/dev/shm/XXXXXX"),
)

_PAGE_TABLE_FLAGS = frozenset({"sd"})
"""VmFlags that tell of the kernel's bookkeeping (soft-dirty), not of the mapping."""

_WHOLE_FILE = 8 << 20
"""Bytes up to which a file's content is compared too."""


def place(text: str, directory: Path) -> str:
    """Replace a side's scratch directory and names with a random part."""
    text = text.replace(str(directory), PLACE)
    for pattern, replacement in _RANDOM_NAMES:
        text = pattern.sub(replacement, text)
    return text


@dataclass(frozen=True, order=True)
class Mapping:
    """A row of /proc/PID/maps with the VmFlags of smaps (proc(5)); sizes in bytes."""

    name: str
    size: int
    permissions: str
    offset: int
    flags: tuple[str, ...]

    def __str__(self) -> str:
        name = self.name or "anonymous"
        return f"{self.permissions} {self.size:#x} at {self.offset:#x} of {name} {self.flags}"


_looked: dict[int, tuple[set[bytes], set[bytes]]] = {}
"""Of each process the rows of maps when it was last looked at, and those of backends."""


def mapped(pid: int) -> set[bytes]:
    """The rows of maps that are mappings of memory backends."""
    rows, backends = _known(pid)
    return {_head(each) for each in _entries(pid, rows)} if backends is None else backends


def _known(pid: int) -> tuple[set[bytes], set[bytes] | None]:
    """The rows of maps, and those of backends; None where smaps has to be read for that.

    Reading smaps takes some 5 ms for each 100 MiB that the process has. It is read where
    maps has a row that was not there the last time: without one, nothing was mapped.
    """
    rows = set(Path(f"/proc/{pid}/maps").read_bytes().splitlines())
    before, backends = _looked.get(pid, (set(), set()))
    # The heap grows, and a stack does.
    if any(not row.endswith((b"[heap]", b"[stack]")) for row in rows - before):
        return rows, None
    _looked[pid] = rows, backends & rows
    return _looked[pid]


def _entries(pid: int, rows: set[bytes]) -> list[bytes]:
    """The entries of smaps that are backends' mappings.

    They are told from the rest by being left out of a fork (MADV_DONTFORK,
    the flag `dc`), which QEMU does to guest RAM and nothing else in either
    process does.
    """
    text = Path(f"/proc/{pid}/smaps").read_bytes()
    entries = []
    # A process has hundreds, and tests look again and again.
    for found in re.finditer(rb"\nVmFlags:.* dc .*\n", text):
        begin = text.rfind(b"\nVmFlags:", 0, found.start())
        begin = text.index(b"\n", begin + 1) + 1 if begin >= 0 else 0
        entries.append(text[begin : found.end()])
    _looked[pid] = rows, rows.intersection(map(_head, entries))
    return entries


def _head(entry: bytes) -> bytes:
    return entry.partition(b"\n")[0]


def _rows(pid: int) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Of each backend's mapping the words of maps, and the fields of smaps."""
    rows, backends = _known(pid)
    for entry in _entries(pid, rows) if backends != set() else ():
        head, *lines = entry.decode("utf-8", "surrogateescape").splitlines()
        fields = (line.partition(":") for line in lines)
        yield head.split(maxsplit=5), {name: value.strip() for name, _, value in fields}


def _size(head: list[str]) -> int:
    start, end = head[0].split("-")
    return int(end, 16) - int(start, 16)


def regions(pid: int, directory: Path) -> list[Mapping]:
    """The mappings of memory backends in a process, sorted."""
    return sorted(
        Mapping(
            place(head[5].strip(), directory) if len(head) > 5 else "",
            _size(head),
            head[1],
            int(head[2], 16),
            tuple(sorted(set(fields["VmFlags"].split()) - _PAGE_TABLE_FLAGS)),
        )
        for head, fields in _rows(pid)
    )


def resident(pid: int) -> list[tuple[int, int]]:
    """The size and the resident bytes of each backend's mapping, sorted."""
    return sorted(
        (
            _size(head),
            sum(
                int(fields.get(name, "0 kB").split()[0]) << 10
                for name in ("Rss", "Shared_Hugetlb", "Private_Hugetlb")
            ),
        )
        for head, fields in _rows(pid)
    )


def descriptors(pid: int) -> Counter[str]:
    """What the process's descriptors refer to, and how often.

    Of this process: once those that it is closing are closed (`Host.close_in_thread`).
    """
    if pid == os.getpid():
        wait_for_closing()
    found: Counter[str] = Counter()
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[os.readlink(f"/proc/{pid}/fd/{number}")] += 1
        except FileNotFoundError:
            continue
    return found


def children(pid: int) -> list[int]:
    """The processes that a process, or a thread of it, has started; none of one that is gone."""
    found: list[int] = []
    for each in Path(f"/proc/{pid}/task").glob("*/children"):
        # A thread may end meanwhile.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.extend(map(int, each.read_text().split()))
    return found


def command_of(pid: int) -> bytes:
    """A process's command, a zero byte after each word; nothing of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def is_exiting(pid: int) -> bool:
    """Whether a process's first thread has called exit(2), or was killed (PF_EXITING)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return bool(int(fields[6]) & 0x4)


@dataclass(frozen=True)
class File:
    """A file left in a scratch directory; sizes in bytes."""

    kind: str
    mode: int
    size: int
    allocated: int
    content: str


def files(directory: Path) -> dict[str, File]:
    """Everything under a scratch directory, by relative name."""
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        kind = stat.filemode(status.st_mode)[0]
        content = ""
        if kind == "l":
            content = place(os.readlink(path), directory)
        elif kind == "-" and status.st_size <= _WHOLE_FILE:
            content = f"{zlib.crc32(path.read_bytes()):08x}"
        name = place(str(path.relative_to(directory)), directory)
        # A directory's size is the file system's own affair.
        size = 0 if kind == "d" else status.st_size
        allocated = 0 if kind == "d" else status.st_blocks * 512
        found[name] = File(kind, stat.S_IMODE(status.st_mode), size, allocated, content)
    return found


def open_files(pid: int, directory: Path) -> list[tuple[str, str]]:
    """The files of a scratch directory that a process has open, each with its access mode."""
    modes = {os.O_RDONLY: "read-only", os.O_WRONLY: "write-only", os.O_RDWR: "read-write"}
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{number}")
            info = Path(f"/proc/{pid}/fdinfo/{number}").read_text(encoding="ascii")
        except FileNotFoundError:
            continue
        if target.startswith(f"{directory}/"):
            flags = int(next(row for row in info.splitlines() if row.startswith("flags:"))[6:], 8)
            found.append((place(target, directory), modes[flags & os.O_ACCMODE]))
    return sorted(found)
