"""The log: its form, and limits on how much clients can cause. Nobody waits for it.

Warnings, and what is worse, go to standard error, a line each. That may be a pipe
whose reader sleeps, or a file on a file system that stalls: a thread writes there.
"""

from __future__ import annotations

import logging
from time import monotonic

from memd.errors import printable
from memd.hostmem.writer import LineWriter

BURST = 256
"""Records from one place in the code that are taken at once."""

RATE = 5.0
"""Records a second that are taken from it beyond these."""

PATIENCE = 0.5
"""Seconds that the process waits at its end for what is not written yet."""


class OneLine(logging.Formatter):
    """Has each message on one line, whatever clients have named; tracebacks follow it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message, with what is not printable escaped."""
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
    """Has records written to a descriptor.

    Args:
        fd: where to.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(logging.WARNING)
        self._lines = LineWriter(fd, b"lines are lost: nobody read the log")

    def emit(self, record: logging.LogRecord) -> None:
        """Have it written."""
        try:
            line = self.format(record) + "\n"
        except Exception:
            self.handleError(record)
            return
        self._lines.write(line.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Wait until all is written, but not for long."""
        self._lines.flush(PATIENCE)


def log_in_lines() -> None:
    """Write what goes to standard error, where nobody has set up anything else."""
    writer = Writer(2)
    writer.setFormatter(OneLine())
    writer.addFilter(Rate())
    logging.lastResort = writer
