"""A record of each command that acts: who, what, and what came of it.

Queries (`memd.commands.queries`) are not recorded. A record never holds
anything of what memory holds, nor of secrets (`memd.server.redaction`). No command
waits for a record to be taken: the record does, and where too many do, further ones
are lost, which is told as soon as one is taken again.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections import deque
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Protocol

from memd.commands.queries import is_query
from memd.commands.table import HANDLERS, SESSION_HANDLERS
from memd.errors import QMPError, printable
from memd.json_types import JSON
from memd.server.limits import Seldom
from memd.server.redaction import Redaction, Told
from memd.session import Dispatch, Session
from memd.wire import encode
from memd.work import Command

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from memd.commands.daemon import Daemon

MESSAGE_ID = "5f0b7c1d5d0a4f7b8a3f6d6c2e9b4a71"
"""By which the journal's records of commands are found (journalctl(1),
MESSAGE_ID=)."""

LOST_ID = "d3c4a9e86b0f4c1c9b7e21f05a6d8e34"
"""The same of records that say how many were lost."""

MOST_HELD = 1000
"""Records that wait to be taken, half a KiB each. The kernel queues ten entries
for the journal where nobody has asked for more (net.unix.max_dgram_qlen), and
clients send hundreds of commands at once."""

RETRY = 0.02
"""Seconds after which records that wait are tried again: less than the journal
needs to be started anew, more than it needs for what is queued."""

_LONG = frozenset(("arguments", "error", "id"))
"""What a record can do without, if need be."""

_INFO, _NOTICE, _WARNING = "6", "5", "4"

Record = dict[str, JSON]
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
    """

    __slots__ = (
        *("_dispatch", "_held", "_loop", "_lost", "_redaction", "_seldom", "_sink", "_waiting"),
    )

    def __init__(
        self, dispatch: Dispatch, daemon: Daemon, sink: Sink, loop: AbstractEventLoop
    ) -> None:
        self._dispatch = dispatch
        self._redaction = Redaction(daemon)
        self._sink = sink
        self._loop = loop
        self._seldom = Seldom(loop)
        self._held: deque[Record] = deque()
        self._lost = 0
        self._waiting = False

    def __call__(self, session: Session, name: str, arguments: dict[str, Any], oob: bool) -> JSON:
        """See `memd.session.Dispatch`."""
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
            self._seldom.warn("%d audit records are lost", len(self._held) + self._lost)
        self._held.clear()
        self._lost = 0
        self._sink.close()

    def _begin(self, session: Session, name: str, arguments: dict[str, Any]) -> tuple[Record, Told]:
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
                self._seldom.warn("audit records are being lost: %s", failed.strerror)
            self._waiting = True
            self._loop.call_later(RETRY, self._write_held)


def _message(record: Record) -> str:
    """A record in a line for people."""
    if "lost" in record:
        return f"{record['lost']} audit records were lost before this one"
    which = record.get("id", record.get("arguments", {}).get("path", ""))
    what = f"{record['command']} {which}" if which else record["command"]
    if "uid" in record:
        who = f"uid {record['uid']}, pid {record['pid']}"
    else:
        who = record.get("certificate") or record.get("address") or record["monitor"]
    error = f": {record['error']}" if "error" in record else ""
    return printable(f"{what} by {who}: {record['outcome']}{error}")


class Journal:
    """The system's journal, in its native protocol.

    The protocol is described in systemd's "Native Journal Protocol": a datagram
    is an entry; a field whose value may have a line's end in it is given with
    its length.

    Args:
        path: its socket.

    Raises:
        OSError: nobody is there.
    """

    __slots__ = ("_path", "_socket")

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                probe.connect(path)
        except BaseException:
            self._socket.close()
            raise

    def write(self, record: Record) -> None:
        """Take a record; one that is too long for a datagram is cut. See `Sink`."""
        try:
            self._send(record)
        except OSError as failed:
            if failed.errno != errno.EMSGSIZE:
                raise
            without = record.keys() - _LONG
            self._send({"cut": True, **{name: record[name] for name in without}})

    def _send(self, record: Record) -> None:
        fields = {
            "MESSAGE": _message(record),
            "MESSAGE_ID": LOST_ID if "lost" in record else MESSAGE_ID,
            "PRIORITY": _priority(record),
            "SYSLOG_IDENTIFIER": "memd",
        }
        for name, value in record.items():
            text = value if type(value) is str else encode(value).decode().rstrip()
            fields[f"MEMD_{name.upper()}"] = text
        entry = b"".join([_field(name, value) for name, value in fields.items()])
        # By its path each time: a journal that was started anew has another socket.
        self._socket.sendto(entry, self._path)

    def close(self) -> None:
        """See `Sink`."""
        self._socket.close()


def _priority(record: Record) -> str:
    if "lost" in record:
        return _WARNING
    return _INFO if record["outcome"] == "ok" else _NOTICE


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"


class File:
    """A file that records are appended to, a line of JSON each.

    Args:
        path: the file; a missing one is made, with mode 0600.

    Raises:
        OSError: it can't be opened.
    """

    __slots__ = ("_fd", "_torn")

    def __init__(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o600)
        self._torn = False

    def write(self, record: Record) -> None:
        """See `Sink`."""
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000))
        stamp += f".{now // 1000 % 1_000_000:06}Z"
        line = encode({"time": stamp, **record}).rstrip() + b"\n"
        if self._torn:
            line = b"\n" + line
        written = os.write(self._fd, line)
        # A disk that is full may have had room for a part of it.
        self._torn = written < len(line)
        if self._torn:
            raise OSError(0, "no room for all of it")

    def close(self) -> None:
        """See `Sink`."""
        os.close(self._fd)
