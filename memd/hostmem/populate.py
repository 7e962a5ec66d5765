"""Preallocation: having the kernel back memory with pages now, in several threads.

Errors come back as errno values, never as SIGBUS. The rule for the number of
threads and the slices was observed on QEMU 10.0.2.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence

from memd.hostmem import cgroup, libc
from memd.hostmem.region import Region

BYTES_PER_THREAD = 64 << 20
"""Below this many bytes for each, another thread is not worth it."""

CHUNK = 8 << 20
"""Bytes populated by one system call: some milliseconds of work, after which the
progress is counted and a cancellation is seen. As long waits what needs the
address space for itself, such as an mmap(2) of the event loop: with 32 MiB the
longest wait of another client was 30 ms, with 8 MiB 6 ms."""

_running: set[Population] = set()
_ended = [0]
"""Bytes that populations have come to which run no more."""

_counting = threading.Lock()
"""Held while a population goes from the one to the other, or both are counted."""


class Cancelled(Exception):
    """The population was given up before its end."""


class Population:
    """One run over a region.

    Attributes:
        bytes_per_thread: see `BYTES_PER_THREAD`; `chunk` as well.
        total: bytes to be populated.
        threads: how many work at it.
    """

    bytes_per_thread = BYTES_PER_THREAD
    chunk = CHUNK

    def __init__(
        self,
        region: Region,
        threads: int,
        affinity: set[int] | None = None,
        nodes: Sequence[int] = (),
    ) -> None:
        """Work it out.

        Args:
            region: pinned, or owned by the caller, until `run` returns.
            threads: how many there may be.
            affinity: the CPUs that they run on; None for where this one runs,
                spread over the nodes.
            nodes: the NUMA nodes that the memory comes from; none for any.
        """
        self.region = region
        self._affinity = affinity
        self._nodes = nodes
        self.total = region.length
        cpus = region.host.cpus()
        self.threads = thread_count(region.length, threads, cpus, self.bytes_per_thread)
        self._done = [0] * self.threads
        self._error = 0
        self._cancelled = False

    @property
    def done(self) -> int:
        """Bytes populated so far."""
        return sum(self._done)

    def cancel(self) -> None:
        """Make `run` give up; to be called from any thread."""
        self._cancelled = True

    def run(self) -> None:
        """Populate everything, for reading where writes are not allowed.

        Raises:
            OSError: the first error; the rest was given up.
            Cancelled: `cancel` or `cancel_all` was called.
        """
        parts = slices(self.total, self.region.page_size, self.threads)
        with cgroup.making(self.region, 0, self.total):
            # What surely does not fit is not begun.
            pass
        with _counting:
            _running.add(self)
        try:
            # An affinity is for threads that are started here, not for the one that calls.
            places = self._places()
            own = [] if places else [0]
            workers = []
            for index in range(len(own), self.threads):
                worker = threading.Thread(
                    target=self._work,
                    args=(places[index % len(places)] if places else None, index, *parts[index]),
                    name="memd-prealloc",
                    daemon=True,
                )
                try:
                    worker.start()
                except RuntimeError:
                    # No more threads available: it takes longer, then.
                    own.append(index)
                else:
                    workers.append(worker)
            for index in own:
                self._fill(index, *parts[index])
            for worker in workers:
                worker.join()
        finally:
            with _counting:
                _running.discard(self)
                _ended[0] += self.done
        if self._error:
            raise libc.os_error(self._error)
        if self._given_up:
            raise Cancelled

    @property
    def _given_up(self) -> bool:
        return self._cancelled or self.region.closed

    def _places(self) -> list[set[int]]:
        """The CPUs that the threads run on, in turn; none for where this one runs."""
        if self._affinity:
            return [self._affinity]
        return self.region.host.places(self._nodes) if self.threads > 1 else []

    def _work(self, cpus: set[int] | None, index: int, start: int, end: int) -> None:
        if cpus:
            try:
                os.sched_setaffinity(0, cpus)
            except OSError:
                # The CPUs have gone since; the memory is wanted all the same.
                pass
        self._fill(index, start, end)

    def _fill(self, index: int, start: int, end: int) -> None:
        try:
            for done in _populating(self.region, start, end, self.chunk):
                self._done[index] += done
                if self._error or self._given_up:
                    return
        except OSError as failed:
            self._error = failed.errno or errno.ENOMEM


def populated() -> int:
    """Bytes that were populated since the process began."""
    with _counting:
        return _ended[0] + sum(each.done for each in _running)


def populate_range(region: Region, start: int, end: int) -> None:
    """Populate whole pages of a region, from `start` up to `end`, in this thread.

    Args:
        region: pinned, or owned by the caller, until this returns; writable.

    Raises:
        OSError: a page is not available, or the region was closed; what there is
            of the range stays.
    """
    for _done in _populating(region, start, end, CHUNK):
        if region.closed:
            raise libc.os_error(errno.ECANCELED)


def _populating(region: Region, start: int, end: int, chunk: int) -> Iterator[int]:
    """Populate whole pages of a region, a chunk at a time.

    Yields:
        before each chunk and at the end, the bytes that were populated since the last time.

    Raises:
        OSError: a page is not available, or the control group allows no more: it would be killed.
    """
    advice = libc.MADV_POPULATE_WRITE if region.writable else libc.MADV_POPULATE_READ
    done = 0
    chunk = max(chunk, region.page_size)
    while start < end:
        yield done
        done = 0
        length = min(chunk, end - start)
        with cgroup.making(region, start, length):
            error = region.host.advise(region.address + start, length, advice)
        if not error:
            start += length
            done = length
        elif error != errno.EINTR:
            raise libc.os_error(error)
    yield done


def cancel(region: Region) -> None:
    """Give up every population of that region that runs."""
    for population in tuple(_running):
        if population.region is region:
            population.cancel()


def cancel_all() -> None:
    """Give up every population that runs, as when the daemon is to end."""
    for population in tuple(_running):
        population.cancel()


def thread_count(length: int, threads: int, cpus: int, each: int = BYTES_PER_THREAD) -> int:
    """How many threads populate `length` bytes.

    Args:
        threads: how many there may be.
        each: bytes that one should have at least.
    """
    return max(1, min(threads, cpus, length // each))


def slices(length: int, page_size: int, count: int) -> list[tuple[int, int]]:
    """Cut `length` bytes into `count` parts of whole pages: their begins and ends.

    The first ones have a page more where it does not divide.
    """
    each, left = divmod(length // page_size, count)
    parts = []
    start = 0
    for index in range(count):
        end = start + (each + (index < left)) * page_size
        parts.append((start, end))
        start = end
    return parts
