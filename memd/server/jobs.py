"""Worker threads: one for each running job, reused for the next.

`concurrent.futures` would wait for its threads when the process ends; a job
here may be in the kernel for minutes, and the daemon ends without it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sys
import threading
from collections import Counter, deque
from typing import Any

from memd.errors import QMPError
from memd.named_tuple import NamedTuple
from memd.places import SHARE, USER, Places
from memd.server.progress import watched
from memd.timer import Timer
from memd.work import ELSEWHERE, SHARED_MEMORY, Emit, Job, Resume

log = logging.getLogger("memd")

IDLE_SECONDS = 0.1
"""Seconds after which idle threads end. Beginning one takes 0.1 ms; each keeps its stack's
touched pages, and makes the system calls of an object-add half as expensive again: 36 and
not 25 us (measured)."""

LIGHT = 4
"""Jobs at once on one file system, or on memory, that are soon done where nothing stalls."""

HEAVY = 8
"""Jobs at once on one file system that go through much of it: they wait for its disk."""

HEAVY_ON_MEMORY = max(2, min(HEAVY, os.cpu_count() or 1))
"""Those on memory alone: as many as there are processors, which is what they wait for."""

UNKNOWN = 32
"""Jobs at once that wait for something unknown, such as another process."""

THREADS = 64
"""Jobs at once that wait for file systems, whatever for."""

LINE = 1024
"""Jobs of one user's commands that wait for a thread; no further command begins one then."""

SWITCH = 0.0005
"""Seconds after which a thread lets the event loop go on that waits for the interpreter
(sys.setswitchinterval). While one client writes 16 MiB again and again, the longest wait
of another was 26 ms, with Python's own 5 ms it was 50; with four, 62 and 168."""

COPIES = 256 << 20
"""Bytes of copies (`Job.copies`) in the making at once; what would be more waits. A quarter
of it is one file system's, and as much is left by all of them for memory."""

_MEMORY = -1
"""The number that memory has among the file systems."""

_Place = int | tuple[int, int]
"""What jobs are counted by: the number of a file system, or of memory that other processes
have, and the user."""


class _Task(NamedTuple):
    """A job of a user's, and what is done with its result."""

    job: Job[Any]
    done: Resume
    user: int


_Kind = tuple[frozenset[int], bool, bool]
"""Of jobs of a kind, none of a user's is begun before one that came earlier."""


class Jobs:
    """Runs jobs in threads, and continues their commands on the loop.

    Each file system has a bounded share of the threads, and so has each user, so that
    a stalled one does not delay jobs on others. Further jobs wait in line: next is that
    of the user with the fewest running jobs, and of these the first.

    Where the system refuses a thread, a job waits for an existing one, or runs on the
    loop if there is none.

    Args:
        loop: where commands continue.
        tell: sends events of how far jobs are.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, tell: Emit) -> None:
        self._loop = loop
        self._tell = tell
        self._work: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        # Threads; those with nothing to do; jobs that no thread was available for.
        self._threads = 0
        self._idle = 0
        self._refused = 0
        self._ending = Timer(loop, self.close)
        # Under way: jobs by what they wait on and whether they are heavy, bytes of copies
        # by what they wait on, jobs of each user, and of each user on file systems.
        self._busy: Counter[tuple[_Place, bool]] = Counter()
        self._copies: Counter[_Place] = Counter()
        self._users: Counter[int] = Counter()
        self._places = Places(THREADS, SHARE)
        self._elsewhere = Places(UNKNOWN, SHARE)
        # Jobs that wait for a thread, by kind and user, each with its number.
        self._line: dict[tuple[_Kind, int], deque[tuple[int, _Task]]] = {}
        self._number = 0
        self._begun = False
        self.running = 0
        """Jobs whose work has not ended yet."""

    def prepare(self) -> None:
        """See whether there are threads available, and set how they take turns.

        Raises:
            RuntimeError: the system has none to give.
        """
        sys.setswitchinterval(SWITCH)
        trial = threading.Thread(target=int)
        trial.start()
        trial.join()

    def start(self, job: Job[Any], done: Resume) -> None:
        """Run `job`; `done` is called on the loop with its value, or what it raised."""
        user = os.geteuid() if job.user is None else job.user
        if job.is_first and not job.release and self._in_line(user) >= LINE:
            text = f"{LINE} commands of this client's user wait already, see docs/limits.md"
            self._loop.call_soon(done, None, QMPError(text))
            return
        if job.patience is not None:
            done = self._for_so_long(job.patience, done)
        self.running += 1
        kind, task = (job.on, job.heavy, job.copies > 0), _Task(job, done, user)
        if self._fits(task) and all(each != kind for each, _user in self._line):
            self._begin(task)
        else:
            self._number += 1
            self._line.setdefault((kind, user), deque()).append((self._number, task))
            if self._fits(task):
                # What came before it may wait for its user's share.
                self._go_on()

    def _in_line(self, user: int) -> int:
        """How many of a user's jobs wait for a thread."""
        return sum(len(line) for (_kind, of), line in self._line.items() if of == user)

    def _for_so_long(self, seconds: float, done: Resume) -> Resume:
        """Calls `done` once: at the end, or with None after so many seconds."""
        timer = self._loop.call_later(seconds, lambda: tell(None, None))
        told = False

        def tell(value: Any, error: BaseException | None) -> None:
            nonlocal told
            timer.cancel()
            if not told:
                told = True
                done(value, error)

        return tell

    # Shares

    def _fits(self, task: _Task) -> bool:
        """Whether there is a place for it now."""
        job = task.job
        busy, heavy = self._busy, job.heavy
        for each in _places(task):
            most = LIGHT
            if heavy:
                most = HEAVY_ON_MEMORY if each == _MEMORY or type(each) is tuple else HEAVY
            if each and busy[each, heavy] >= most:
                return False
        if job.on & ELSEWHERE and not self._elsewhere.has_free_place(task.user):
            return False
        if job.on and not self._places.has_free_place(task.user):
            return False
        return self._may_copy(task)

    def _may_copy(self, task: _Task) -> bool:
        """Whether its copies may be made now; what is more than there may ever be is made alone."""
        job = task.job
        copies, size = self._copies, job.copies
        if not size:
            return True
        quarter, taken = COPIES // 4, copies.total()
        for each in _places(task):
            if each != _MEMORY and copies[each] and copies[each] + size > quarter:
                return False
        files = taken - copies[_MEMORY]
        if job.on and files and files + size > COPIES - quarter:
            return False
        return not taken or taken + size <= COPIES

    def _count(self, task: _Task, by: int) -> None:
        """Count it as under way, or with -1 as ended."""
        job, _done, user = task
        for each in _places(task):
            self._busy[each, job.heavy] += by
            if job.copies:
                # Whole for each: to whichever a stall belongs.
                self._copies[each] += by * job.copies
        self._users[user] += by
        for places, on in ((self._places, job.on), (self._elsewhere, job.on & ELSEWHERE)):
            if on:
                places.take(user) if by > 0 else places.give_back(user)

    def _go_on(self) -> None:
        """Begin what waits and has a place by now."""
        while fitting := [
            (self._users[key[1]], line[0][0], key)
            for key, line in self._line.items()
            if self._fits(line[0][1])
        ]:
            # No two have the same number.
            _running, _number, key = min(fitting)
            line = self._line[key]
            _number, task = line.popleft()
            if not line:
                del self._line[key]
            self._begin(task)

    def give_up_waiting(self) -> None:
        """Begin nothing more of what waits: the daemon ends."""
        lines, self._line = self._line, {}
        for line in lines.values():
            for _number, task in line:
                self.running -= 1
                task.done(None, QMPError("the daemon ends"))

    # Threads

    def _begin(self, task: _Task) -> None:
        if not self._begun:
            # Brings ctypes along, which a start need not pay for.
            from memd.hostmem.libc import use_one_heap

            self._begun = True
            use_one_heap()
        # Not before: what waits in line has nothing to tell.
        task = task._replace(done=watched(self._loop, task.job, task.done, self._tell))
        self._count(task, 1)
        if self._idle:
            self._idle -= 1
        else:
            try:
                self._begin_thread()
            except (RuntimeError, MemoryError):
                if not self._threads:
                    log.warning("cannot start a thread: a command keeps others waiting")
                    # Slow is better than not at all.
                    self._loop.call_soon(lambda: self._ended(task, *_do(task.job)))
                    return
                if not self._refused:
                    log.warning("cannot start a thread: commands wait for one another")
                self._refused += 1
        self._work.put(task)

    def _begin_thread(self) -> None:
        threading.Thread(target=self._serve, name="memd-job", daemon=True).start()
        self._threads += 1

    def close(self) -> None:
        """End the idle threads; a running job ends by itself."""
        self._ending.cancel()
        for _ in range(self._idle):
            self._work.put(None)
        self._threads -= self._idle
        self._idle = 0

    def _serve(self) -> None:
        while (task := self._work.get()) is not None:
            try:
                # Nothing of it is held here until the next job, which may come much later:
                # it may refer to megabytes.
                self._loop.call_soon_threadsafe(self._end, task, *_do(task.job))
            except RuntimeError:
                return  # The loop is closed: the daemon has ended.
            del task

    def _end(self, task: _Task, value: object, error: BaseException | None) -> None:
        if self._refused:
            # The thread has taken it by now.
            self._refused -= 1
        else:
            self._idle += 1
            self._ending.start(IDLE_SECONDS)
        self._ended(task, value, error)

    def _ended(self, task: _Task, value: object, error: BaseException | None) -> None:
        self.running -= 1
        self._count(task, -1)
        self._go_on()
        task.done(value, error)


def _places(task: _Task) -> list[_Place]:
    """What a job is counted by."""
    on = task.job.on or (_MEMORY,)
    return [(each, task.user) if each in SHARED_MEMORY else each for each in on]


def _do(job: Job[Any]) -> tuple[object, BaseException | None]:
    """A job's value, or what it raised."""
    USER.set(job.user)
    try:
        return job.work(), None
    except BaseException as error:
        return None, error
