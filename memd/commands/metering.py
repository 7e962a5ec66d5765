"""Counts commands, their errors and how long they take; for `--metrics`."""

from __future__ import annotations

from bisect import bisect_left
from time import perf_counter
from types import CoroutineType

from memd.commands.daemon import Daemon
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.session import Dispatch, Session
from memd.work import Command

BOUNDS = (0.0001, 0.00025, 0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0)
"""Upper bounds of the histogram's buckets, in seconds: what a query takes, and a
preallocation."""

OTHERS = "unknown"
"""Stands for whatever clients call that is not a command: their words are not labels."""


class Counters:
    """The counters of a command.

    Attributes:
        buckets: how many took up to each of `BOUNDS`; the last, how many longer.
        seconds: how long all of them took together.
        errors: how many were refused, by the error's class.
    """

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.errors: dict[str, int] = {}

    def ended(self, seconds: float, error: QMPError | None) -> None:
        """One more has ended, with an error or with none."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds
        if error is not None:
            self.errors[error.error_class] = self.errors.get(error.error_class, 0) + 1


class Meter:
    """Runs commands as `dispatch` does, and counts.

    Args:
        dispatch: runs them.
        daemon: what they are run on.

    Attributes:
        records: of each command that was run, by its name.
    """

    def __init__(self, dispatch: Dispatch, daemon: Daemon) -> None:
        self._dispatch = dispatch
        self._daemon = daemon
        self.records: dict[str, Counters] = {}

    def __call__(self, session: Session, name: str, arguments: JSONObject, oob: bool) -> JSON:
        """Run a command, a `memd.session.Dispatch`, and count it when it has ended."""
        begin = perf_counter()
        record = self._record(name)
        try:
            result = self._dispatch(session, name, arguments, oob)
        except QMPError as error:
            record.ended(perf_counter() - begin, error)
            raise
        if type(result) is CoroutineType:
            return self._timed(result, record, begin)
        record.ended(perf_counter() - begin, None)
        return result

    async def _timed(self, command: Command[JSON], record: Counters, begin: float) -> JSON:
        refusal = None
        try:
            return await command
        except QMPError as error:
            refusal = error
            raise
        finally:
            record.ended(perf_counter() - begin, refusal)

    def _record(self, name: str) -> Counters:
        record = self.records.get(name)
        if record is None:
            if not self._daemon.has_command(name):
                name = OTHERS
            record = self.records.setdefault(name, Counters())
        return record
