"""The host whose system calls fail, or take long, by injected faults.

A failing call is not made, so it leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable

from memd.faulty.fault import errno_of
from memd.faulty.registry import FaultRegistry
from memd.hostmem import libc
from memd.hostmem.host import Host, Mapping
from memd.hostmem.paths import Entry
from memd.hostmem.spec import MapSpec

STEP = 0.02
"""Seconds after which a stalled population looks whether it was given up."""

_POPULATING = (libc.MADV_POPULATE_READ, libc.MADV_POPULATE_WRITE)


class FaultyHost(Host):
    """The kernel with injected faults.

    Args:
        refusal: asked before each system call, by its kind in `TestFaultSyscall`; gives
            the errno value that it is to fail with, or 0.
    """

    def __init__(self, refusal: Callable[[str], int]) -> None:
        super().__init__()
        self._refusal = refusal

    def _may_fail(self, kind: str) -> None:
        number = self._refusal(kind)
        if number:
            raise libc.os_error(number)

    def open(self, path: bytes, flags: int) -> int:
        """What only looks never fails."""
        if not flags & os.O_PATH:
            self._may_fail("open")
        return super().open(path, flags)

    def open_near(self, entry: Entry, flags: int) -> int:
        """What has to be waited for is opened by `open` afterwards, and fails there."""
        try:
            fd = super().open_near(entry, flags)
        except BlockingIOError:
            raise
        except OSError:
            self._may_fail("open")
            raise
        try:
            self._may_fail("open")
        except OSError:
            os.close(fd)
            raise
        return fd

    def open_at(self, directory: int, name: bytes, flags: int, mode: int = 0) -> int:
        """Opening a directory never fails; making a file without a name in it may."""
        if flags & os.O_TMPFILE == os.O_TMPFILE or not flags & os.O_DIRECTORY:
            self._may_fail("open")
        return super().open_at(directory, name, flags, mode)

    def create(self, entry: Entry, mode: int) -> tuple[int, int | None]:
        """See `Host`."""
        self._may_fail("open")
        return super().create(entry, mode)

    def truncate(self, fd: int, size: int) -> None:
        """See `Host`."""
        self._may_fail("ftruncate")
        super().truncate(fd, size)

    def allocate(self, fd: int, offset: int, length: int) -> None:
        """See `Host`."""
        self._may_fail("fallocate")
        super().allocate(fd, offset, length)

    def punch_hole(self, fd: int, offset: int, length: int) -> None:
        """See `Host`."""
        self._may_fail("fallocate")
        super().punch_hole(fd, offset, length)

    def read(self, fd: int, into: bytearray | memoryview, offset: int) -> int:
        """See `Host`."""
        self._may_fail("pread")
        return super().read(fd, into, offset)

    def write(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """See `Host`."""
        self._may_fail("pwrite")
        return super().write(fd, data, offset)

    def sync(self, fd: int) -> None:
        """See `Host`."""
        self._may_fail("fsync")
        super().sync(fd)

    def memfd(self, label: str, flags: int) -> int:
        """See `Host`."""
        self._may_fail("memfd-create")
        return super().memfd(label, flags)

    def map(self, spec: MapSpec, fd: int) -> Mapping:
        """See `Host`."""
        self._may_fail("mmap")
        return super().map(spec, fd)

    def advise(self, address: int, length: int, advice: int) -> int:
        """See `Host`."""
        number = self._refusal("populate" if advice in _POPULATING else "madvise")
        return number or super().advise(address, length, advice)

    def bind(self, address: int, length: int, policy: str, nodes: list[int]) -> None:
        """See `Host`."""
        self._may_fail("mbind")
        super().bind(address, length, policy, nodes)


def refusal_of(faults: FaultRegistry) -> Callable[[str], int]:
    """What a `FaultyHost` asks, as the faults say; it waits as long as a call is to take."""

    def refusal(kind: str) -> int:
        effect = faults.for_syscall(kind)
        if effect is None:
            return 0
        beside = threading.current_thread() is not threading.main_thread()
        if effect.delay and beside:
            time.sleep(effect.delay / 1000)
        if effect.spec.get("stall") and beside:
            # Interrupted: populating is tried again, unless it was given up.
            time.sleep(STEP)
            return errno.EINTR
        return errno_of(effect.spec.get("errno", ""))

    return refusal
