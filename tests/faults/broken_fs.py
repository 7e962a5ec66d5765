"""A file system in memory whose calls fail as told.

`python -m tests.faults.broken_fs MOUNT CONTROL` serves it at the directory MOUNT.
A file of a call's name in the directory CONTROL (`read`, `write`, `fsync`,
`create`) makes that call fail, with the errno that it holds.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

from mfusepy import FUSE, Operations


class BrokenFiles(Operations):  # type: ignore[misc]  # it has no types
    """Files and directories."""

    use_ns = True

    def __init__(self, control: Path) -> None:
        self._control = control
        self._files: dict[str, bytearray] = {}
        self._sockets: set[str] = set()
        self._directories = {"/"}

    def _may_fail(self, call: str) -> None:
        try:
            while (text := (self._control / call).read_text()) == "stall":
                time.sleep(0.01)
            number = int(text or "0")
        except FileNotFoundError:
            return
        if not number:
            return
        raise OSError(number, os.strerror(number))

    def _file(self, path: str) -> bytearray:
        try:
            return self._files[path]
        except KeyError:
            raise OSError(errno.ENOENT, path) from None

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        self._may_fail("getattr")
        if path in self._directories:
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        held = self._file(path)
        kind = stat.S_IFSOCK if path in self._sockets else stat.S_IFREG
        # Two links are to one file.
        return {"st_mode": kind | 0o644, "st_nlink": 1, "st_size": len(held), "st_ino": id(held)}

    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        there = {*self._files, *self._directories} - {"/"}
        names = map(os.path.split, there)
        listed = [".", "..", *(name for directory, name in names if directory == path)]
        return [(name, {"st_ino": 1}, 0) for name in listed]

    def mkdir(self, path: str, mode: int) -> int:
        self._directories.add(path)
        return 0

    def rmdir(self, path: str) -> int:
        if len(self.readdir(path, 0)) > 2:
            raise OSError(errno.ENOTEMPTY, path)
        self._directories.remove(path)
        return 0

    def link(self, target: str, source: str) -> int:
        self._files[target] = self._file(source)
        return 0

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        self._may_fail("create")
        self._files[path] = bytearray()
        return 0

    def mknod(self, path: str, mode: int, dev: int) -> int:
        self._may_fail("mknod")
        self._files[path] = bytearray()
        self._sockets.add(path)
        return 0

    def open(self, path: str, flags: int) -> int:
        self._may_fail("open")
        self._file(path)
        return 0

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._may_fail("read")
        return bytes(self._file(path)[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._may_fail("write")
        held = self._file(path)
        held.extend(bytes(max(0, offset - len(held))))
        held[offset : offset + len(data)] = data
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        held = self._file(path)
        del held[length:]
        held.extend(bytes(length - len(held)))
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._may_fail("fsync")
        return 0

    def flush(self, path: str, fh: int) -> int:
        self._may_fail("flush")
        return 0

    def release(self, path: str, fh: int) -> int:
        self._may_fail("release")
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        self._may_fail("statfs")
        return {"f_bsize": 4096, "f_blocks": 1 << 20, "f_bfree": 1 << 20, "f_bavail": 1 << 20}

    def unlink(self, path: str) -> int:
        self._may_fail("unlink")
        self._file(path)
        del self._files[path]
        return 0

    def poll(self, path: str, fh: int, *more: Any) -> int:
        self._may_fail("poll")
        return 0

    def rename(self, old: str, new: str) -> int:
        self._files[new] = self._file(old)
        del self._files[old]
        return 0

    def chmod(self, path: str, mode: int) -> int:
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        return 0


def main() -> None:
    """Serve until it is unmounted."""
    where, control = sys.argv[1:]
    FUSE(BrokenFiles(Path(control)), where, foreground=True, nothreads=True, use_ino=True)


if __name__ == "__main__":
    main()
