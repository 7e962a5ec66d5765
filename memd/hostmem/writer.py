"""Lines for a file, a pipe or a terminal that may not take them: nobody waits for it.

A thread writes for as long as there is something to write. (An idle thread would make
system calls of the daemon's dearer.)
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import deque

MOST_LINES = 1000
"""Lines that wait to be written; further ones are counted."""


class LineWriter:
    """Writes lines to a descriptor, which stays its caller's.

    Args:
        fd: where to.
        lost: what is written, after their number, of lines that did not fit.
    """

    def __init__(self, fd: int, lost: bytes) -> None:
        self._fd = fd
        self._told = lost
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._idle = threading.Event()
        self._idle.set()
        self._changing = threading.Lock()

    def write(self, line: bytes) -> None:
        """Have a line written, its end included."""
        with self._changing:
            if len(self._waiting) >= MOST_LINES:
                self._lost += 1
                return
            self._waiting.append(line)
            if not self._idle.is_set():
                return
            self._idle.clear()
        try:
            threading.Thread(target=self._write, name="memd-lines", daemon=True).start()
        except RuntimeError:
            # There is none. What goes without waiting is written here.
            self._write_some()
            self._idle.set()

    def _write_some(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        with self._changing:
            while self._waiting and any(flags & select.POLLOUT for _fd, flags in poll.poll(0)):
                line = self._waiting.popleft()
                with contextlib.suppress(OSError):
                    # A pipe that takes something takes as much as this at once (pipe(7)).
                    os.write(self._fd, line[: select.PIPE_BUF])

    def _write(self) -> None:
        while True:
            with self._changing:
                text = b"".join(self._waiting)
                self._waiting.clear()
                if self._lost:
                    text += b"%d %s\n" % (self._lost, self._told)
                    self._lost = 0
                if not text:
                    self._idle.set()
                    return
            data = memoryview(text)
            try:
                while data:
                    data = data[os.write(self._fd, data) :]
            except OSError:
                # Nobody reads it any more, or the disk is full: no reason to stop.
                pass

    def flush(self, patience: float) -> bool:
        """Wait until all is written, but not for long; whether it is."""
        return self._idle.wait(patience)
