"""The host whose system calls fail, or take long, by injected faults.

A failing call is not made, so it leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from memd.faulty.fault import errno_of
from memd.faulty.registry import FaultRegistry
from memd.hostmem import libc
from memd.hostmem.host import Host
from memd.hostmem.paths import Entry

STEP = 0.02
"""Seconds after which a stalled population looks whether it was given up."""

_POPULATING = (libc.MADV_POPULATE_READ, libc.MADV_POPULATE_WRITE)


_KINDS = {
    "create": "open",
    "truncate": "ftruncate",
    "punch_hole": "fallocate",
    "read": "pread",
    "write": "pwrite",
    "sync": "fsync",
    "memfd": "memfd-create",
    "map": "mmap",
    "bind": "mbind",
}
"""The methods of `Host` that are one system call each, and its kind."""


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
        """Open a file; with O_PATH it never fails."""
        if not flags & os.O_PATH:
            self._may_fail("open")
        return super().open(path, flags)

    def open_near(self, entry: Entry, flags: int) -> int:
        """Open a file without waiting; one that has to be waited for fails later, in `open`."""
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

    def copy(self, source: int, offset: int, to: int, at: int, length: int) -> int:
        """Nothing is copied without calls that may fail."""
        return 0

    def advise(self, address: int, length: int, advice: int) -> int:
        number = self._refusal("populate" if advice in _POPULATING else "madvise")
        return number or super().advise(address, length, advice)


def _failing(name: str, kind: str) -> Callable[..., Any]:
    """A method of `Host` that fails where a call of its kind is to."""
    call = getattr(Host, name)

    def method(self: FaultyHost, *arguments: Any) -> Any:
        self._may_fail(kind)
        return call(self, *arguments)

    return method


for _name, _kind in _KINDS.items():
    setattr(FaultyHost, _name, _failing(_name, _kind))


def refusal_of(faults: FaultRegistry) -> Callable[[str], int]:
    """The `refusal` of a `FaultyHost` by the faults; it waits as long as a call is to take."""

    def refusal(kind: str) -> int:
        effect = faults.effect("syscall", syscall=kind)
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
