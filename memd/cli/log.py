"""How the log looks, how much of it clients can cause, and who waits for it: nobody.

Warnings, and what is worse, go to standard error, a line each. That may be a pipe
whose reader sleeps, or a file on a file system that stalls: a thread of its own writes
there, for as long as there is something to write.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
from collections import deque
from time import monotonic

from memd.errors import printable

MOST_LINES = 1000
"""Records that wait to be written; further ones are counted."""

BURST = 256
"""Records from one place in the code that are taken at once."""

RATE = 5.0
"""Records a second that are taken from it beyond these."""

PATIENCE = 0.5
"""Seconds that the process waits at its end for what is not written yet."""


class OneLine(logging.Formatter):
    """Has each message on one line, whatever clients have named; tracebacks follow it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return printable(record.message)


class Rate(logging.Filter):
    """Lets so many records pass from each place in the code, and counts the others."""

    def __init__(self) -> None:
        super().__init__()
        # How many may pass at a time (monotonic), and how many did not since the last.
        self._places: dict[tuple[str, int], tuple[float, float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it may pass; the next one that may says how many did not."""
        place = record.pathname, record.lineno
        now = monotonic()
        room, since, left_out = self._places.get(place, (BURST, now, 0))
        room = min(BURST, room + (now - since) * RATE)
        if room < 1:
            self._places[place] = room, now, left_out + 1
            return False
        self._places[place] = room - 1, now, 0
        if left_out:
            record.msg = f"{record.msg} ({left_out} like it were left out)"
        return True


class Writer(logging.Handler):
    """Writes records to a descriptor, in a thread that ends when all is written.

    (An idle thread would make system calls of the daemon's dearer.)

    Args:
        fd: where to.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(logging.WARNING)
        self._fd = fd
        self._waiting: deque[str] = deque()
        self._lost = 0
        self._idle = threading.Event()
        self._idle.set()
        # The handler's own lock is held while `flush` waits.
        self._changing = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """Have it written."""
        try:
            line = self.format(record) + "\n"
        except Exception:
            self.handleError(record)
            return
        with self._changing:
            if len(self._waiting) >= MOST_LINES:
                self._lost += 1
                return
            self._waiting.append(line)
            if not self._idle.is_set():
                return
            self._idle.clear()
        try:
            threading.Thread(target=self._write, name="memd-log", daemon=True).start()
        except RuntimeError:
            # There is none to be had. What goes without waiting is written here.
            self._write_some()
            self._idle.set()

    def _write_some(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        with self._changing:
            while self._waiting and any(flags & select.POLLOUT for _fd, flags in poll.poll(0)):
                data = self._waiting.popleft().encode("utf-8", "backslashreplace")
                with contextlib.suppress(OSError):
                    # A pipe that takes something takes as much as this at once (pipe(7)).
                    os.write(self._fd, data[: select.PIPE_BUF])

    def _write(self) -> None:
        while True:
            with self._changing:
                text = "".join(self._waiting)
                self._waiting.clear()
                if self._lost:
                    text += f"{self._lost} lines are lost: nobody read the log\n"
                    self._lost = 0
                if not text:
                    self._idle.set()
                    return
            data = memoryview(text.encode("utf-8", "backslashreplace"))
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
            except OSError:
                # Nobody reads it any more, and that is no reason to stop.
                pass

    def flush(self) -> None:
        """Wait until all is written, but not for long."""
        self._idle.wait(PATIENCE)


def log_in_lines() -> None:
    """Write what goes to standard error, where nobody has set up anything else."""
    writer = Writer(2)
    writer.setFormatter(OneLine())
    writer.addFilter(Rate())
    logging.lastResort = writer
