"""How the log looks: warnings, and what is worse, on standard error, a line each."""

from __future__ import annotations

import logging

from memd.errors import printable


class OneLine(logging.Formatter):
    """Has each message on one line, whatever clients have named; tracebacks follow it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return printable(record.message)


def log_in_lines() -> None:
    """Format what goes to standard error where nobody has set up anything else."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(OneLine())
