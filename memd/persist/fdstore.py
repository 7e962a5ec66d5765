"""The service manager's descriptor store, which survives the daemon.

The manager (systemd's FileDescriptorStoreMax=, sd_notify(3)) holds descriptors by
name and passes them to the next daemon of the unit. One is that of the log of
objects; each further one is an object's memory. The log is authoritative:
memory is stored before its object is logged, and removed after the entry is. A
descriptor without an entry is of an object that was being made or deleted when the
daemon was killed.

Names are short, as all of them are passed in one variable of the environment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
import threading
from collections import deque
from collections.abc import Iterable, Mapping

from memd.hostmem.deadline import within
from memd.persist.sd_notify import Notifier, loss_logged
from memd.timer import Timer

LIST = "memd-list"
"""The name of the log of objects."""

_NAME = re.compile("memd-[0-9a-f]+")

LEAST = 2
"""The least useful capacity of a store, in descriptors: the log and one more."""

_NAMES_LENGTH = (128 << 10) - 4096
"""Bytes that the names may have together: they are passed in one variable of the
environment, which may have 128 KiB (execve(2), MAX_ARG_STRLEN), and sockets'
names are there too."""

_AGAIN = 0.05
"""Seconds after which it is tried again to take out what the manager was too busy to read."""

_END_PATIENCE = 1.0
"""Seconds that the end of the daemon waits for a manager that does not read."""

log = logging.getLogger("memd")


def capacity_of(environ: Mapping[str, str]) -> int:
    """The capacity of the store, in descriptors ($FDSTORE, systemd 254); 0 where there is none."""
    value = environ.get("FDSTORE", "")
    return int(value) if value.isdecimal() else 0


def name_of(number: int) -> str:
    """The name for an object's memory."""
    return f"memd-{number:x}"


def is_stored(name: str, fd: int) -> bool:
    """Whether a descriptor that was passed is out of the store, and no socket to be served.

    Args:
        name: the one that it was passed with; a socket's may look like any.
    """
    if name != LIST and not _NAME.fullmatch(name):
        return False
    try:
        return not stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


def let_more_be_opened(found: Mapping[str, int]) -> None:
    """Raise the soft limit of descriptors where those that were passed come near it."""
    from memd.hostmem.descriptor_limit import raise_limit

    try:
        raise_limit(near=max(found.values(), default=0))
    except OSError as failed:
        log.warning("the limit of descriptors stays as it is: %s", failed.strerror)


class FdStore:
    """The descriptors that the manager has, or is going to have.

    Args:
        notifier: the way to the manager.
        loop: on which removals are tried again.
        capacity: how many descriptors the store holds; 0 where that is not known.
        found: the names of those that were in it at the start.
    """

    def __init__(
        self,
        notifier: Notifier,
        loop: asyncio.AbstractEventLoop,
        capacity: int,
        found: Iterable[str],
    ) -> None:
        self._notifier = notifier
        self._capacity = capacity
        self._names: set[str] = set(found)
        self._length = sum(len(name) + 1 for name in self._names)
        self._removals: deque[str] = deque()
        self._timer = Timer(loop, self._remove)
        self._lock = threading.Lock()
        # Held while removals are sent: they are in the order of their queue.
        self._sending = threading.Lock()

    def has_free_place(self) -> bool:
        """Whether the manager can take one more descriptor, once it has read all messages."""
        return self._length < _NAMES_LENGTH and (
            not self._capacity or len(self._names) - len(self._removals) < self._capacity
        )

    def reserve(self, name: str) -> bool:
        """Reserve a place for an object's memory; False if the store is full.

        A manager that is slow to read would drop descriptors beyond its capacity.
        """
        if not self.has_free_place():
            return False
        self._account(name)
        return True

    def has(self, name: str) -> bool:
        """Whether the manager has, or is going to have, a descriptor of that name."""
        return name in self._names

    def store(self, name: str, fd: int, wait: bool = False) -> bool:
        """Give a descriptor to the manager.

        What is to be removed is removed first: else much that comes and goes
        would fill the store of a manager that is behind with its reading.

        Args:
            wait: whether the caller can wait.

        Returns:
            False where the manager's socket is full at present.

        Raises:
            OSError: it can't be reached.
        """
        if self._removals and not self._send_removals(wait):
            return False
        # With FDPOLL=0 nobody looks whether it is at its end: it is memory.
        sent = self._notifier.send("FDSTORE=1", "FDPOLL=0", f"FDNAME={name}", fds=(fd,), wait=wait)
        if sent:
            self._account(name)
        return sent

    def _account(self, name: str) -> None:
        with self._lock:
            if name not in self._names:
                self._names.add(name)
                self._length += len(name) + 1

    def release(self, name: str) -> None:
        """Release a place, reserved or not needed any more."""
        with self._lock:
            self._names.discard(name)
            self._length -= len(name) + 1

    def remove(self, name: str) -> None:
        """Have the manager close its descriptor of an object's memory, if it has one.

        If the manager is behind with its reading, it is tried again and again: the
        object is off the log, so nothing depends on it but its memory.
        """
        if name in self._names:
            self._removals.append(name)
            self._remove()

    def _remove(self) -> None:
        with loss_logged():
            self._send_removals()
        if self._removals:
            self._timer.start(_AGAIN)

    def _send_removals(self, wait: bool = False) -> bool:
        """Whether all of them are sent; from any thread."""
        if not self._sending.acquire(blocking=wait):
            return False
        try:
            removals = self._removals
            while removals:
                if not self._notifier.send("FDSTOREREMOVE=1", f"FDNAME={removals[0]}", wait=wait):
                    return False
                self.release(removals.popleft())
            return True
        finally:
            self._sending.release()

    def wait_for_manager(self) -> None:
        """Wait until the manager has closed what was removed; in a worker thread."""
        with loss_logged():
            self._notifier.barrier()

    def close(self) -> None:
        """Send what is still to be sent, if the manager takes it soon.

        What it does not take is removed by the next start: no log has it.
        """
        self._timer.cancel()
        with loss_logged():
            within(_END_PATIENCE, lambda: self._send_removals(wait=True))
