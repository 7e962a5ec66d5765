"""A record of each command that acts: who, what, and what came of it.

Queries (`memd.commands.queries`) are not recorded. A record never holds
anything of what memory holds, nor of secrets (`memd.commands.redaction`). No command
waits for a record to be taken: the record does, and where too many do, further ones
are lost, which is told as soon as one is taken again.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Protocol

from memd.commands.queries import is_query
from memd.commands.redaction import Redaction, Told
from memd.commands.table import HANDLERS, SESSION_HANDLERS
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.session import Dispatch, Session
from memd.work import Command

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from memd.commands.daemon import Daemon

MOST_HELD = 1000
"""Records that wait to be taken, half a KiB each. The kernel queues ten entries
for the journal where nobody has asked for more (net.unix.max_dgram_qlen), and
clients send hundreds of commands at once."""

RETRY = 0.02
"""Seconds after which records that wait are tried again: less than the journal
needs to be started anew, more than it needs for what is queued."""

Record = JSONObject
"""The names and values of `docs/access.md`, in lower case and without MEMD_."""


class Sink(Protocol):
    """Where records go."""

    def write(self, record: Record) -> None:
        """Take a record, at once or not at all; raises `OSError` if not.

        With EMSGSIZE it never will.
        """

    def close(self) -> None:
        """Let go of it."""


class Audit:
    """Runs commands as `dispatch` does, and records those that act.

    Args:
        dispatch: runs them.
        daemon: what they are run on.
        sink: where the records go.
        loop: where those that wait are tried again.
        warn: writes a line to the log, and its like not too often.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        daemon: Daemon,
        sink: Sink,
        loop: AbstractEventLoop,
        warn: Callable[..., None],
    ) -> None:
        self._dispatch = dispatch
        self._redaction = Redaction(daemon)
        self._sink = sink
        self._loop = loop
        self._warn = warn
        self._held: deque[Record] = deque()
        self._lost = 0
        self._waiting = False

    def __call__(self, session: Session, name: str, arguments: JSONObject, oob: bool) -> JSON:
        """Run a command, a `memd.session.Dispatch`, and record it when it has ended."""
        # What is no command's name does nothing, and may be anything.
        if is_query(name, arguments) or not (name in HANDLERS or name in SESSION_HANDLERS):
            return self._dispatch(session, name, arguments, oob)
        try:
            result = self._dispatch(session, name, arguments, oob)
        except QMPError as error:
            self._conclude(self._begin(session, name, arguments), error)
            raise
        begun = self._begin(session, name, arguments)
        if type(result) is CoroutineType:
            return self._recorded(result, begun)
        self._conclude(begun, None)
        return result

    async def _recorded(self, command: Command[JSON], begun: tuple[Record, Told]) -> JSON:
        try:
            value = await command
        except QMPError as error:
            self._conclude(begun, error)
            raise
        self._conclude(begun, None)
        return value

    def close(self) -> None:
        """Write what waits, if it is taken by now, and let go of the sink."""
        if self._held:
            self._write_held()
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

    def _conclude(self, begun: tuple[Record, Told], error: QMPError | None) -> None:
        record, told = begun
        if error is None:
            record["outcome"] = "ok"
        else:
            record["outcome"] = error.error_class
            record["error"] = told.error(error.desc)
        if len(self._held) >= MOST_HELD:
            self._lost += 1
            return
        if self._lost:
            self._held.append({"lost": self._lost})
            self._lost = 0
        self._held.append(record)
        if not self._waiting:
            self._write_held()

    def _write_held(self) -> None:
        """Write what waits, as much of it as is taken."""
        self._waiting = False
        held = self._held
        try:
            while held:
                try:
                    self._sink.write(held[0])
                except OSError as failed:
                    if failed.errno != errno.EMSGSIZE:
                        raise
                    # It will never be taken, and is not to keep others from it.
                    self._lost += 1
                held.popleft()
            if self._lost:
                self._sink.write({"lost": self._lost})
                self._lost = 0
        except OSError as failed:
            if len(held) >= MOST_HELD:
                self._warn("audit records are being lost: %s", failed.strerror)
            self._waiting = True
            self._loop.call_later(RETRY, self._write_held)
