"""A record of each command that is not a query: client, command, outcome.

Queries are those of `memd.commands.queries`. A record contains neither content of
memory nor secrets (`memd.commands.redaction`). Records that the journal does not take
at once are queued, and no command waits for them; a file is written by a thread, for
which commands wait, but not for long. If the queue is full, further records are lost;
a record says how many as soon as one is taken again.
"""

from __future__ import annotations

import errno
from asyncio import AbstractEventLoop
from collections import deque
from collections.abc import Callable
from functools import partial
from types import CoroutineType
from typing import Protocol

from memd.commands.daemon import Daemon
from memd.commands.queries import is_query
from memd.commands.redaction import Redaction, Told
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.session import Dispatch, Session
from memd.work import Command, Completion, Job

MOST_HELD = 1000
"""Records that wait to be taken, half a KiB each. The kernel queues ten entries
for the journal where nobody has asked for more (net.unix.max_dgram_qlen), and
clients send hundreds of commands at once."""

RETRY = 0.02
"""Seconds after which records that wait are tried again: less than the journal
needs to be started anew, more than it needs for what is queued."""

Record = JSONObject
"""The names and values of `docs/access.md`, in lower case and without MEMD_."""


PATIENCE = 1.0
"""Seconds that a command waits until the file has its record. What is made meanwhile of
records waits, and no further command does, until the file takes them again."""


class Sink(Protocol):
    """Where records go."""

    on: frozenset[int]
    """The file systems and devices that `write` may wait for; see `Job.on`."""

    def write(self, record: Record) -> None:
        """Take a record, or raise `OSError`.

        With EMSGSIZE it never will.
        """

    def close(self) -> None:
        """Close it."""


class Audit:
    """Runs commands as `dispatch` does, and records those that act.

    Args:
        dispatch: runs them.
        daemon: what they are run on.
        sink: where the records go.
        loop: where those that wait are tried again.
        spawn: runs a command; see `memd.server.hub.Hub.spawn`.
        warn: writes a line to the log, and its like not too often.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        daemon: Daemon,
        sink: Sink,
        loop: AbstractEventLoop,
        spawn: Callable[[Command[None], str], None],
        warn: Callable[..., None],
    ) -> None:
        self._dispatch = dispatch
        self._daemon = daemon
        self._redaction = Redaction(daemon)
        self._sink = sink
        self._loop = loop
        self._spawn = spawn
        self._warn = warn
        # Of a sink that may wait: whether a thread writes, what happens once all that
        # is held by now is written, and whether that takes too long.
        self._writing = False
        self._written = Completion()
        self._stalled = False
        self._held: deque[Record] = deque()
        self._lost = 0
        self._waiting = False

    def __call__(self, session: Session, name: str, arguments: JSONObject, oob: bool) -> JSON:
        """Run a command, a `memd.session.Dispatch`, and record it when it has ended."""
        # What is not a command's name does nothing, and may be anything.
        if is_query(name, arguments) or not self._daemon.has_command(name):
            return self._dispatch(session, name, arguments, oob)
        try:
            result = self._dispatch(session, name, arguments, oob)
        except QMPError as error:
            result = error
        begun = self._begin(session, name, arguments)
        if type(result) is CoroutineType:
            return self._recorded(result, begun)
        written = self._conclude(begun, result)
        return self._once_written(written, result) if self._sink.on else _given(result)

    async def _recorded(self, command: Command[JSON], begun: tuple[Record, Told]) -> JSON:
        try:
            value = await command
        except QMPError as error:
            value = error
        return await self._once_written(self._conclude(begun, value), value)

    async def _once_written(self, written: Completion, value: JSON | QMPError) -> JSON:
        """The outcome of a command, once its record is written."""
        if self._sink.on and not self._stalled:
            await written
        return _given(value)

    def close(self) -> None:
        """Write what waits, if it is taken by now, and close the sink. May wait."""
        if not self._writing:
            count, too_long, _failed = _write(self._sink, tuple(self._held))
            self._drop(count, too_long)
        if self._held or self._lost:
            self._warn("%d audit records are lost", len(self._held) + self._lost)
        self._held.clear()
        self._lost = 0
        self._sink.close()

    def _begin(self, session: Session, name: str, arguments: JSONObject) -> tuple[Record, Told]:
        told = self._redaction.tell(name, arguments)
        record: Record = {"command": name}
        if type(told.arguments.get("id")) is str:
            record["id"] = told.arguments["id"]
        record["arguments"] = told.arguments
        if told.cut:
            record["cut"] = True
        record["monitor"] = session.monitor.id
        peer = session.peer
        if peer is not None:
            record.update(pid=peer.pid, uid=peer.uid, gid=peer.gid)
        record.update(session.origin)
        return record, told

    def _conclude(self, begun: tuple[Record, Told], value: JSON | QMPError) -> Completion:
        """Have a record written; what happens then, of a sink that may wait."""
        record, told = begun
        written = self._written
        if isinstance(value, QMPError):
            record["outcome"] = value.error_class
            record["error"] = told.error(value.desc)
        else:
            record["outcome"] = "ok"
        if len(self._held) >= MOST_HELD:
            self._lost += 1
            return written
        self._tell_lost()
        self._held.append(record)
        if not self._waiting:
            self._write_held()
        return written

    def _drop(self, count: int, too_long: int) -> None:
        """Wait no more with so many records, of which some are too long ever to be written."""
        for _ in range(count):
            self._held.popleft()
        self._lost += too_long

    def _tell_lost(self) -> bool:
        """Have a record say how many are lost, if any are."""
        lost, self._lost = self._lost, 0
        if lost:
            self._held.append({"lost": lost})
        return lost > 0

    def _write_held(self) -> None:
        """Write what waits, as much of it as is taken."""
        self._waiting = False
        if not self._sink.on:
            self._took(*_write(self._sink, tuple(self._held)))
        elif not self._writing:
            self._writing = True
            self._spawn(self._write_in_thread(), "writing the audit")

    async def _write_in_thread(self) -> None:
        """Have a thread write what waits, and what comes meanwhile."""
        while self._held and not self._waiting:
            written, self._written = self._written, Completion()
            timer = self._loop.call_later(PATIENCE, self._go_on_without, written)
            took = await Job(partial(_write, self._sink, tuple(self._held)), on=self._sink.on)
            timer.cancel()
            self._stalled = False
            written.set()
            self._took(*took)
        self._writing = False

    def _go_on_without(self, written: Completion) -> None:
        """The file does not take records: no command waits for it until it does."""
        self._stalled = True
        written.set()
        self._written.set()
        self._written = Completion()

    def _took(self, count: int, too_long: int, failed: OSError | None) -> None:
        """So many of those that wait are written, or too long ever to be."""
        self._drop(count, too_long)
        if failed is None:
            if self._tell_lost() and not self._sink.on:
                self._write_held()
            return
        if len(self._held) >= MOST_HELD:
            self._warn("audit records are being lost: %s", failed.strerror)
        self._waiting = True
        self._loop.call_later(RETRY, self._write_held)
        if self._sink.on:
            self._go_on_without(self._written)


def _given(value: JSON | QMPError) -> JSON:
    """A command's value, or its error, which is raised."""
    if isinstance(value, QMPError):
        raise value
    return value


def _write(sink: Sink, records: tuple[Record, ...]) -> tuple[int, int, OSError | None]:
    """Write records; how many are done with, how many of these were too long, and why no more."""
    too_long = 0
    for at, record in enumerate(records):
        try:
            sink.write(record)
        except OSError as failed:
            if failed.errno != errno.EMSGSIZE:
                return at, too_long, failed
            # It will never be taken, and is not to keep others from it.
            too_long += 1
    return len(records), too_long, None
