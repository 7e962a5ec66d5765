"""What the service manager keeps while the daemon is not there: its descriptor store.

The manager (systemd's FileDescriptorStoreMax=, sd_notify(3)) holds descriptors by
name and passes them to the next daemon of the unit. One is that of the list of
what there is, see `journal`; each further one is an object's memory. The list
says what counts: memory is parked before its object is listed, and taken out
after it has been struck off. What is found in the store and not on the list was
being made, or deleted, when the daemon was killed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping

from memd.json_types import JSON
from memd.server.journal import Journal, Unreadable, line_of
from memd.server.notify import Notifier
from memd.server.stored import LIST, name_of

LEAST = 2
"""Descriptors that a store has to have room for, to be of use: the list and one more."""

_NAMES_LENGTH = (128 << 10) - 4096
"""Bytes that the names may have together: they are passed in one variable of the
environment, which may have 128 KiB (execve(2), MAX_ARG_STRLEN), and sockets'
names are there too."""

_AGAIN = 0.05
"""Seconds after which it is tried again to take out what the manager had no ear for."""

log = logging.getLogger("memd")


def room(environ: Mapping[str, str]) -> int:
    """How many descriptors the store holds ($FDSTORE, systemd 254); 0 where there is none."""
    value = environ.get("FDSTORE", "")
    return int(value) if value.isdecimal() else 0


class Ledger:
    """What the list's entries come to.

    Attributes:
        objects: the line of each object, by its number.
        clean: numbers of private mappings of which no page had been copied when
            the last daemon ended.
        discards: the ranges of data that are still to be thrown away, offset and
            length in bytes, by the number of the deleted object.
        makings: files that were being made for an object; see `Store.making`.
        lost: what was lost with a daemon's end, by id.
        next: the number of the next object or file.
    """

    __slots__ = ("clean", "discards", "lost", "makings", "next", "objects")

    def __init__(self) -> None:
        self.objects: dict[int, bytes] = {}
        self.clean: set[int] = set()
        self.discards: dict[int, list[int]] = {}
        self.makings: dict[int, dict[str, JSON]] = {}
        self.lost: dict[str, dict[str, JSON]] = {}
        self.next = 1

    def heed(self, entry: dict[str, JSON], line: bytes) -> None:
        """Take an entry into account.

        Raises:
            Unreadable: it is of no kind that is known.
        """
        # The first member says what the entry is about.
        kind, value = next(iter(entry.items()))
        if kind == "is":
            self.objects[value] = line
            self.next = max(self.next, value + 1)
        elif kind == "gone":
            self.objects.pop(value, None)
            if "discard" in entry:
                self.discards[value] = entry["discard"]
        elif kind == "discarded":
            self.discards.pop(value, None)
        elif kind == "clean":
            self.clean.add(value)
        elif kind == "making":
            self.makings[value] = dict(entry)
            self.next = max(self.next, value + 1)
        elif kind == "made":
            self.makings.get(value, {}).update(entry)
        elif kind == "settled":
            self.makings.pop(value, None)
        elif kind == "lost":
            self.objects.pop(entry["was"], None)
            self.lost[value["id"]] = value
        elif kind == "found":
            self.lost.pop(value, None)
        elif kind == "next":
            self.next = max(self.next, value)
        else:
            raise Unreadable(f"an entry is of the unknown kind '{kind}'")

    def lines(self) -> Iterator[bytes]:
        """The entries that say the same in short."""
        yield line_of({"next": self.next})
        yield from self.objects.values()
        for number in self.clean:
            yield line_of({"clean": number})
        for number, span in self.discards.items():
            yield line_of({"gone": number, "discard": span})
        for making in self.makings.values():
            yield line_of({name: making[name] for name in ("making", "path", "time")})
            if "made" in making:
                yield line_of({name: making[name] for name in ("made", "dev", "ino")})
        for lost in self.lost.values():
            yield line_of({"lost": lost, "was": 0})


class Store:
    """The store, and the list in it.

    Args:
        notifier: the way to the manager.
        loop: on which removals are tried again.
        capacity: how many descriptors the store holds; 0 where that is not known.
        found: the descriptors that were in it at the start, by name; the list's
            is taken over.

    Attributes:
        ledger: what the list comes to.

    Raises:
        Unreadable: the list can't be read. Nothing was changed.
        OSError: there is no memory for a list, or the manager can't be reached.
    """

    __slots__ = (
        *("_capacity", "_journal", "_length", "_lock", "_loop", "_names", "_notifier"),
        *("_removals", "_sending", "_timer", "ledger"),
    )

    def __init__(
        self,
        notifier: Notifier,
        loop: asyncio.AbstractEventLoop,
        capacity: int,
        found: Mapping[str, int],
    ) -> None:
        self._notifier = notifier
        self._loop = loop
        self._capacity = capacity
        self._names: set[str] = set(found)
        self._length = sum(len(name) + 1 for name in found)
        self._removals: deque[str] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._lock = threading.Lock()
        # Held by whoever sends removals: they are in the order of their queue.
        self._sending = threading.Lock()
        self.ledger = Ledger()
        if LIST in found:
            self._journal = Journal(found[LIST])
            try:
                for entry in self._journal.read():
                    self.ledger.heed(entry, line_of(entry))
            except (AttributeError, KeyError, StopIteration, TypeError) as wrong:
                raise Unreadable(f"an entry is not what it should be: {wrong}") from None
        elif found:
            raise Unreadable(f"there is no list ({LIST}) with the descriptors in it")
        else:
            self._journal = Journal.create()
            # A list that was parked by one who was killed at once comes to nothing.
            notifier.send("FDSTOREREMOVE=1", f"FDNAME={LIST}", wait=True)
            if not self.park_list(wait=True):
                raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    # The list

    def write(self, entry: dict[str, JSON]) -> None:
        """Note something; from any thread.

        Raises:
            OSError: there is no memory for it; nothing was noted.
        """
        line = line_of(entry)
        with self._lock:
            self._journal.append(line)
            self.ledger.heed(entry, line)
            if self._journal.long:
                try:
                    self._journal.shorten(self.ledger.lines())
                except OSError as failed:
                    log.warning("the list of objects can't be shortened: %s", failed.strerror)

    def shorten(self) -> None:
        """Write the list anew; raises `OSError`, and it is as it was then."""
        with self._lock:
            self._journal.shorten(self.ledger.lines())

    def number(self) -> int:
        """A number that nothing had before."""
        with self._lock:
            number = self.ledger.next
            self.ledger.next += 1
        return number

    # The descriptors

    def has_room(self) -> bool:
        """Whether the manager can take one descriptor more, once it has heard all."""
        return self._length < _NAMES_LENGTH and (
            not self._capacity or len(self._names) - len(self._removals) < self._capacity
        )

    def reserve(self, number: int) -> bool:
        """Keep room for an object's memory, which is going to be parked; False where there is none.

        Several may wait for a manager that has no ear, and it takes no more than it
        has room for.
        """
        if not self.has_room():
            return False
        self._account(name_of(number))
        return True

    def forgo(self, number: int) -> None:
        """Give up room that was reserved, and is not needed."""
        self._discount(name_of(number))

    def has(self, number: int) -> bool:
        """Whether the manager has, or is going to have, a descriptor of an object's memory."""
        return name_of(number) in self._names

    def park(self, number: int, fd: int, wait: bool = False) -> bool:
        """Give a descriptor of an object's memory to the manager.

        What is to be removed is removed first: else much that comes and goes
        would fill the store of a manager that is behind with its reading.

        Args:
            wait: whether the caller can wait.

        Returns:
            False where the manager has no ear for it at present.

        Raises:
            OSError: it can't be reached.
        """
        name = name_of(number)
        if self._removals and not self._send_removals(wait):
            return False
        # With FDPOLL=0 nobody looks whether it is at its end: it is memory.
        sent = self._notifier.send("FDSTORE=1", "FDPOLL=0", f"FDNAME={name}", fds=(fd,), wait=wait)
        if sent:
            self._account(name)
        return sent

    def park_list(self, wait: bool = False) -> bool:
        """Give the list's descriptor to the manager; see `park`."""
        fds = (self._journal.fd,)
        sent = self._notifier.send("FDSTORE=1", "FDPOLL=0", f"FDNAME={LIST}", fds=fds, wait=wait)
        if sent:
            self._account(LIST)
        return sent

    def _account(self, name: str) -> None:
        with self._lock:
            if name not in self._names:
                self._names.add(name)
                self._length += len(name) + 1

    def _discount(self, name: str) -> None:
        with self._lock:
            self._names.discard(name)
            self._length -= len(name) + 1

    def remove(self, number: int) -> None:
        """Have the manager close its descriptor of an object's memory, if it has one.

        If the manager has no ear for that, it is tried again and again: the
        object is off the list, so nothing depends on it but its memory.
        """
        name = name_of(number)
        if name in self._names:
            self._removals.append(name)
            self._remove()

    def _remove(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            self._send_removals()
        except OSError as failed:
            _warn(failed)
        if self._removals:
            self._timer = self._loop.call_later(_AGAIN, self._remove)

    def _send_removals(self, wait: bool = False) -> bool:
        """Whether all of them are sent; from any thread. See `park`."""
        if not self._sending.acquire(blocking=wait):
            return False
        try:
            removals = self._removals
            while removals:
                if not self._notifier.send("FDSTOREREMOVE=1", f"FDNAME={removals[0]}", wait=wait):
                    return False
                self._discount(removals.popleft())
            return True
        finally:
            self._sending.release()

    def settle(self) -> None:
        """Wait until the manager has closed what was removed; in a worker thread."""
        try:
            self._notifier.barrier()
        except OSError as failed:
            _warn(failed)

    # Files that are being made, told by `hostmem.noting`

    def making(self, path: bytes) -> int:
        """Note that a file is going to be made; see `hostmem.noting.Watcher`."""
        import time

        number = self.number()
        absolute = os.fsdecode(os.path.abspath(path))
        self.write({"making": number, "path": absolute, "time": time.time()})
        return number

    def made(self, number: int, fd: int) -> None:
        """Note which file was made, before there is anything in it."""
        there = os.fstat(fd)
        self.write({"made": number, "dev": there.st_dev, "ino": there.st_ino})

    def settled(self, number: int) -> None:
        """Note that the file is an object's from now on, or has gone again."""
        self.write({"settled": number})

    def close(self) -> None:
        """Send what is still to be sent; the list stays where the manager has it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            self._send_removals(wait=True)
        except OSError as failed:
            _warn(failed)
        self._journal.close()


def _warn(failed: OSError) -> None:
    log.warning("the service manager can't be reached: %s", os.strerror(failed.errno or 0))
