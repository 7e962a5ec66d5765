"""Work beside the event loop: a thread per job under way, kept for the next.

`concurrent.futures` would wait for its threads when the process ends; a job
here may be in the kernel for minutes, and the daemon's end does not wait.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable

from memd.errors import QMPError
from memd.outcome import JSON, Blocking

log = logging.getLogger("memd")

IDLE_THREADS = 4
"""Threads kept waiting for work; each costs its stack's touched pages."""


class Jobs:
    """Runs `Blocking` work in threads and its end on the loop."""

    __slots__ = ("_idle", "_loop", "_work", "running")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._work: queue.SimpleQueue[tuple[Blocking, Callable[[JSON], None]] | None] = (
            queue.SimpleQueue()
        )
        self._idle = 0
        self.running = 0
        """Jobs whose work has not ended yet."""

    def start(self, job: Blocking, done: Callable[[JSON], None]) -> None:
        """Run `job`; `done` gets its value, its `Outcome` or a `QMPError`, on the loop."""
        self.running += 1
        if self._idle:
            self._idle -= 1
        else:
            threading.Thread(target=self._serve, name="memd-job", daemon=True).start()
        self._work.put((job, done))

    def close(self) -> None:
        """Let the waiting threads go; a job under way ends by itself."""
        for _ in range(self._idle):
            self._work.put(None)
        self._idle = 0

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

    def _end(
        self,
        job: Blocking,
        done: Callable[[JSON], None],
        value: object,
        error: BaseException | None,
    ) -> None:
        self.running -= 1
        if self._idle < IDLE_THREADS:
            self._idle += 1
        else:
            self._work.put(None)
        result = conclude(job, value, error)
        if type(result) is Blocking:
            self.start(result, done)
        else:
            done(result)


def conclude(job: Blocking, value: object, error: BaseException | None) -> JSON:
    """Turn how a job's work ended into what its client is answered, or more work."""
    try:
        if error is not None:
            job.failed(error)
            raise error
        return job.finish(value)
    except QMPError as refusal:
        return refusal
    except Exception:
        log.exception("a command failed unexpectedly")
        return QMPError("internal error, see the log")
