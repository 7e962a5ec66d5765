"""System calls that fail, or take long, by injected faults.

`memd.hostmem` makes its calls through the module `libc` and through `os`. Once
there is a fault of a system call, the functions of the one are replaced, and
its modules get an `os` of their own; before that nothing is. What fails is not
made: it leaves behind what the kernel would, nothing.
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

STEP = 0.02
"""Seconds after which a stalled population looks whether it was given up."""

_OS_CALLS = {
    "ftruncate": "ftruncate",
    "memfd_create": "memfd-create",
    "posix_fallocate": "fallocate",
    "pread": "pread",
    "pwrite": "pwrite",
    "fsync": "fsync",
}
"""Functions of `os`, and the kind of system call that each makes."""


class _Os:
    """The module `os`, as one module of `memd.hostmem` sees it."""

    def __init__(self, kernel: Kernel) -> None:
        for name, kind in _OS_CALLS.items():
            setattr(self, name, kernel.raising(kind, getattr(os, name)))
        self.open = kernel.opening(kernel.raising("open", os.open))

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


class Kernel:
    """The kernel with its faults, from `install` to `restore`.

    Args:
        faults: says what goes wrong.
    """

    __slots__ = ("_faults", "_replaced")

    def __init__(self, faults: FaultRegistry) -> None:
        self._faults = faults
        # What was replaced: the module, the name, what stood there.
        self._replaced: list[tuple[Any, str, Any]] = []

    def install(self) -> None:
        """Have system calls go wrong from now on."""
        if self._replaced:
            return
        from memd.hostmem import export, files, libc, paths, populate, save

        for module in (export, files, paths, populate, save):
            self._replace(module, "os", _Os(self))
        self._replace(libc, "mmap", self.raising("mmap", libc.mmap))
        self._replace(libc, "mbind", self.raising("mbind", libc.mbind))
        self._replace(libc, "punch_hole", self.raising("fallocate", libc.punch_hole))
        self._replace(libc, "openat2", self._openat2(libc.openat2))
        self._replace(libc, "madvise", self._madvise(libc.madvise))

    def restore(self) -> None:
        """Have system calls go right again."""
        for module, name, before in self._replaced:
            setattr(module, name, before)
        self._replaced.clear()

    def _replace(self, module: Any, name: str, by: Any) -> None:
        self._replaced.append((module, name, getattr(module, name)))
        setattr(module, name, by)

    def raising(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """A function that makes a call, or fails by an exception."""

        def made(*args: Any, **more: Any) -> Any:
            number = self._refusal(kind)
            if number:
                raise OSError(number, os.strerror(number))
            return call(*args, **more)

        return made

    def opening(self, failing: Callable[..., int]) -> Callable[..., int]:
        """The `open` of `os`: what only looks, or opens a directory, never fails."""

        def made(path: bytes, flags: int, *args: Any, **more: Any) -> int:
            call = failing if _is_to_be_used(flags) else os.open
            return call(path, flags, *args, **more)

        return made

    def _openat2(self, call: Callable[..., int]) -> Callable[..., int]:
        """Not there for files, so that all are opened by `os.open`, and counted once.

        And beside the event loop, where opening may take as long as it is told to.
        """

        def made(directory: int, path: bytes, flags: int, resolve: int) -> int:
            if self._faults.has_syscall("open") and _is_to_be_used(flags):
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
            return call(directory, path, flags, resolve)

        return made

    def _madvise(self, call: Callable[..., int]) -> Callable[..., int]:
        from memd.hostmem import libc

        populating = (libc.MADV_POPULATE_READ, libc.MADV_POPULATE_WRITE)

        def made(address: int, length: int, advice: int) -> int:
            number = self._refusal("populate" if advice in populating else "madvise")
            return number or call(address, length, advice)

        return made

    def _refusal(self, kind: str) -> int:
        """The error that a call is to fail with, or 0; waits as long as it is to take."""
        effect = self._faults.for_syscall(kind)
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


def _is_to_be_used(flags: int) -> bool:
    """Whether these flags open a file, and not only a place or a directory."""
    unnamed = flags & os.O_TMPFILE == os.O_TMPFILE
    return unnamed or not flags & (os.O_PATH | os.O_DIRECTORY)
