"""Work beside the event loop: a thread per job under way, kept for the next.

`concurrent.futures` would wait for its threads when the process ends; a job
here may be in the kernel for minutes, and the daemon's end does not wait.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sys
import threading
from collections import deque
from typing import Any

from memd.work import Job, Resume

log = logging.getLogger("memd")

IDLE_THREADS = 4
"""Threads kept waiting for work; each costs its stack's touched pages."""


SWITCH = 0.0005
"""Seconds after which a thread lets the event loop go on that waits for the interpreter
(sys.setswitchinterval). While one client writes 16 MiB again and again, the longest wait
of another was 26 ms, with Python's own 5 ms it was 50; with four, 62 and 168."""

COPIES = 256 << 20
"""Bytes of copies (`Job.copies`) in the making at once; what would be more waits."""


class Jobs:
    """Runs jobs in threads, and on the loop what follows.

    Where the system refuses a thread, work waits for one that is there, and is
    done on the loop where there is none. None is begun before there is work: a
    second thread, even an idle one, makes what the loop asks of the kernel for an
    object-add half as dear again (25 and 36 us, measured).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._work: queue.SimpleQueue[tuple[Job[Any], Resume] | None] = queue.SimpleQueue()
        # Threads; those with nothing to do; jobs that no thread was to be had for.
        self._threads = 0
        self._idle = 0
        self._waiting = 0
        # Bytes of copies in the making, and jobs that wait until there are fewer.
        self._copies = 0
        self._postponed: deque[tuple[Job[Any], Resume]] = deque()
        self._begun = False
        self.running = 0
        """Jobs whose work has not ended yet."""

    def prepare(self) -> None:
        """See whether there are threads to be had, and set how they take turns.

        Raises:
            RuntimeError: the system has none to give.
        """
        sys.setswitchinterval(SWITCH)
        trial = threading.Thread(target=int)
        trial.start()
        trial.join()

    def start(self, job: Job[Any], done: Resume) -> None:
        """Run `job`; `done` is called on the loop with its value, or what it raised."""
        if job.copies and self._copies and self._copies + job.copies > COPIES:
            self.running += 1
            self._postponed.append((job, done))
            return
        self._begin(job, done)
        self.running += 1

    def _begin(self, job: Job[Any], done: Resume) -> None:
        if not self._begun:
            # Brings ctypes along, which a start need not pay for.
            from memd.hostmem.libc import use_one_heap

            self._begun = True
            use_one_heap()
        if self._idle:
            self._idle -= 1
        else:
            try:
                self._begin_thread()
            except (RuntimeError, MemoryError):
                if not self._threads:
                    log.warning("cannot start a thread: a command keeps others waiting")
                    self._loop.call_soon(self._do_here, job, done)
                    return
                if not self._waiting:
                    log.warning("cannot start a thread: commands wait for one another")
                self._waiting += 1
        self._copies += job.copies
        self._work.put((job, done))

    def _begin_thread(self) -> None:
        threading.Thread(target=self._serve, name="memd-job", daemon=True).start()
        self._threads += 1

    def close(self) -> None:
        """Let the waiting threads go; a job under way ends by itself."""
        for _ in range(self._idle):
            self._work.put(None)
        self._threads -= self._idle
        self._idle = 0

    def _do_here(self, job: Job[Any], done: Resume) -> None:
        """Do it on the loop: slow is better than not at all."""
        try:
            value, error = job.work(), None
        except BaseException as exc:
            value, error = None, exc
        self._ended(done, value, error)

    def _serve(self) -> None:
        while (item := self._work.get()) is not None:
            job, done = item
            try:
                value, error = job.work(), None
            except BaseException as exc:
                value, error = None, exc
            try:
                self._loop.call_soon_threadsafe(self._end, job, done, value, error)
            except RuntimeError:
                return  # The loop is closed: the daemon has ended.
            # Megabytes may hang on it, and the next job may be long in coming.
            del item, job, done, value, error

    def _end(
        self,
        job: Job[Any],
        done: Resume,
        value: object,
        error: BaseException | None,
    ) -> None:
        if self._waiting:
            # The thread has taken it by now.
            self._waiting -= 1
        elif self._idle < IDLE_THREADS:
            self._idle += 1
        else:
            self._threads -= 1
            self._work.put(None)
        self._copies -= job.copies
        self._ended(done, value, error)

    def _ended(self, done: Resume, value: object, error: BaseException | None) -> None:
        self.running -= 1
        while self._postponed:
            first = self._postponed[0]
            if self._copies and self._copies + first[0].copies > COPIES:
                break
            self._begin(*self._postponed.popleft())
        done(value, error)
