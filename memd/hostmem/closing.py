"""Closing descriptors: that may wait for a file's server, a device or a socket's peer.

What is closed quickly is closed at once, all else by one thread for each file system
or device: a server that stalls takes up no more, for however many files. Of what is on
none, such as sockets and pipes, there is one for each user who sent some. A socket waits for
its peer for as long as its user has told it to (SO_LINGER), unless many more wait behind it.
A pipe, and a socket of most families, waits for another process that has it locked: that is
copying its own memory, which may be of a file whose server stalls.
"""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from memd.hostmem import libc
from memd.hostmem.file_systems import number

_AT_ONCE = (64 << 20) // 512
"""Blocks of memory up to which a memfd is closed at once; it may be the last to hold it."""

_FILES = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFBLK, stat.S_IFCHR)
"""The kinds of what a file's server or a device is waited for."""

Then = Callable[[], object]

_MOST_WAITING = 16
"""Descriptors of a user's that wait behind one that waits for its peer: it waits no longer then."""

HURRY = signal.SIGURG
"""The signal that ends the wait for a peer, in whose place nothing is to happen: where a process
handles it, it is told to do nothing, else it has no effect."""


class _Line:
    """What is to be done one after the other, and the thread that does it."""

    def __init__(self) -> None:
        self.waiting: deque[Then] = deque()
        self.thread: int | None = None


_lock = threading.Lock()
_lines: dict[tuple[int, int], _Line] = {}
"""What is to be done, by what it waits for and by user; a line is there while its
thread is."""

_memory: list[int] = []
"""The device that memfds are on, once it is known."""


def close(fd: int, then: Then | None = None, user: int = 0) -> None:
    """Close a descriptor, at once or soon.

    Args:
        then: called once it is closed, in whatever thread.
        user: who sent it.
    """
    found = libc.known(fd)
    if found is not None and _is_quick(found):
        os.close(fd)
        if then is not None:
            then()
        return
    # The kernel has sockets of all users, and what has no name, on file systems of its own.
    if found is None or stat.S_IFMT(found.mode) not in _FILES:
        close_in_thread(fd, 0, then, user)
    else:
        close_in_thread(fd, number(*found[:3]), then)


def close_in_thread(fd: int, where: int, then: Then | None = None, user: int = 0) -> None:
    """Close a descriptor in the thread of what it may wait for; see `file_systems.number`.

    Args:
        where: 0 for what is on no file system, of which each user has a thread.
    """
    do_in_thread(partial(_close, fd, then), where, user)


def do_in_thread(work: Then, where: int, user: int = 0) -> None:
    """Have something done in the thread that closes what is there; see `close_in_thread`."""
    key = where, 0 if where else user
    with _lock:
        line = _lines.get(key)
        if line is not None:
            line.waiting.append(work)
            if not where and len(line.waiting) > _MOST_WAITING and line.thread is not None:
                signal.pthread_kill(line.thread, HURRY)
            return
        _lines[key] = line = _Line()
        line.waiting.append(work)
    try:
        threading.Thread(target=_work, args=(key,), name="memd-close", daemon=True).start()
    except RuntimeError:
        _work(key)


def _is_quick(found: libc.Known) -> bool:
    if not stat.S_ISREG(found.mode) or found.blocks > _AT_ONCE:
        return False
    if not _memory:
        fd = os.memfd_create("", os.MFD_CLOEXEC)
        _memory.append(os.fstat(fd).st_dev)
        os.close(fd)
    return found.device == _memory[0]


def _work(key: tuple[int, int]) -> None:
    line = _lines[key]
    line.thread = threading.get_ident()
    while True:
        with _lock:
            if not line.waiting:
                del _lines[key]
                return
            work = line.waiting.popleft()
        work()


def _close(fd: int, then: Then | None) -> None:
    with suppress(OSError):
        os.close(fd)
    if then is not None:
        then()
