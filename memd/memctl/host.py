"""A host as its files describe it: /proc, /sys and /dev, of this one or below another root."""

from __future__ import annotations

import os

from memd.named_tuple import NamedTuple

OK = "ok"
WARN = "warn"
BAD = "bad"


class Check(NamedTuple):
    """The result of one check.

    Attributes:
        name: the thing.
        state: OK; WARN where something does less than it could; BAD where
            something does not work.
        found: how it is, in words.
        advice: what to do to have it otherwise, "" where there is nothing.
    """

    name: str
    state: str
    found: str
    advice: str = ""


def warned(name: str, short: bool, found: str, advice: str) -> Check:
    """A check of something that does less than it could where it falls short."""
    return Check(name, WARN, found, advice) if short else Check(name, OK, found)


class Host:
    """Reads the files of a host; what is not there, or can't be read, is None or nothing.

    Args:
        root: the directory that its paths begin in.

    Attributes:
        here: whether it is the one that this process runs on.
    """

    def __init__(self, root: str = "/") -> None:
        self._root = root.rstrip("/")
        self.here = not self._root

    def path(self, path: str) -> str:
        """A path of the host, below the root."""
        return f"{self._root}{path}"

    def text(self, path: str) -> str | None:
        """A file's content."""
        try:
            with open(self.path(path), encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        """A file's content as a number; None for any other."""
        text = self.text(path)
        try:
            return None if text is None else int(text)
        except ValueError:
            return None

    def choice(self, path: str) -> str | None:
        """The word of a file that stands in brackets, as in `always [madvise] never`."""
        text = self.text(path) or ""
        return next((word[1:-1] for word in text.split() if word.startswith("[")), None)

    def names(self, path: str) -> list[str]:
        """The names in a directory, in alphabetical order."""
        try:
            return sorted(os.listdir(self.path(path)))
        except OSError:
            return []

    def exists(self, path: str) -> bool:
        """Whether there is something."""
        return os.path.lexists(self.path(path))

    def may(self, path: str, mode: int) -> bool:
        """Whether this process may do it (`os.R_OK` and so on)."""
        return os.access(self.path(path), mode, effective_ids=True)

    def space(self, path: str) -> tuple[int, int]:
        """The size of the file system there, and what is free of it, in bytes."""
        try:
            found = os.statvfs(self.path(path))
        except OSError:
            return 0, 0
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize

    def status(self) -> dict[str, str]:
        """The rows of /proc/self/status."""
        lines = (self.text("/proc/self/status") or "").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def meminfo(self) -> dict[str, int]:
        """The rows of /proc/meminfo; sizes in bytes, counts as they are."""
        from memd.hostmem.meminfo import parse_meminfo

        return parse_meminfo((self.text("/proc/meminfo") or "").splitlines())

    def mounts(self, kind: str) -> list[str]:
        """The mount points of file systems of a kind (/proc/self/mountinfo)."""
        found = []
        for line in (self.text("/proc/self/mountinfo") or "").splitlines():
            before, _, after = line.partition(" - ")
            if after.split(" ", 1)[0] == kind:
                # Blanks and the like are written in octal (proc_pid_mountinfo(5)).
                where = before.split()[4].encode("ascii", "replace")
                found.append(where.decode("unicode_escape"))
        return found

    def limit(self, name: str) -> int | None:
        """A row's soft limit in /proc/self/limits; None where there is none."""
        for line in (self.text("/proc/self/limits") or "").splitlines():
            if line.startswith(name):
                word = line[len(name) :].split()[0]
                return int(word) if word.isdigit() else None
        return None

    def group_limit(self) -> tuple[int, str] | None:
        """The least bytes that a control group leaves this process, and the file that says so."""
        found = []
        for line in (self.text("/proc/self/cgroup") or "").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                base, name = "/sys/fs/cgroup", "memory.max"
            elif "memory" in controllers.split(","):
                base, name = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
            else:
                continue
            parts = [part for part in path.split("/") if part not in ("", "..")]
            for depth in range(len(parts), -1, -1):
                where = "/".join([base, *parts[:depth], name])
                limit = self.number(where)
                if limit is not None:
                    found.append((limit, where))
        return min(found, default=None)

    def kernel(self) -> tuple[int, int]:
        """The kernel's version; (0, 0) where it is not known."""
        words = (self.text("/proc/sys/kernel/osrelease") or "").strip().split(".")
        try:
            return int(words[0]), int(words[1].partition("-")[0])
        except (IndexError, ValueError):
            return 0, 0

    def nodes(self) -> list[int]:
        """The NUMA nodes with memory, ascending; none on a kernel without NUMA."""
        from memd.hostmem.numa import parse_list

        return sorted(parse_list(self.text("/sys/devices/system/node/has_memory") or ""))
