"""Where the records of the audit go: the system's journal, or a file."""

from __future__ import annotations

import errno
import os
import struct
import time

from memd.commands.audit import Record
from memd.errors import printable
from memd.hostmem.datagrams import Datagrams
from memd.hostmem.file_systems import number
from memd.hostmem.paths import open_own
from memd.wire import encode
from memd.work import MEMORY

MESSAGE_ID = "5f0b7c1d5d0a4f7b8a3f6d6c2e9b4a71"
"""By which the journal's records of commands are found (journalctl(1),
MESSAGE_ID=)."""

LOST_ID = "d3c4a9e86b0f4c1c9b7e21f05a6d8e34"
"""The same of records that say how many were lost."""

_LONG = frozenset(("arguments", "error", "id"))
"""Members that are left out of a record that is too long for a datagram."""

_INFO, _NOTICE, _WARNING = "6", "5", "4"


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


class JournaldSink:
    """The system's journal, in its native protocol.

    The protocol is described in systemd's "Native Journal Protocol": a datagram
    is an entry; a field whose value may have a line's end in it is given with
    its length.

    Args:
        path: its socket.

    Raises:
        OSError: nobody is there.
    """

    on = MEMORY

    def __init__(self, path: str) -> None:
        self._datagrams = Datagrams(path)
        try:
            self._datagrams.connect()
        except BaseException:
            self._datagrams.close()
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
        self._datagrams.send(entry)

    def close(self) -> None:
        """Close its socket."""
        self._datagrams.close()


def _priority(record: Record) -> str:
    if "lost" in record:
        return _WARNING
    return _INFO if record["outcome"] == "ok" else _NOTICE


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"


class FileSink:
    """A file that records are appended to, a line of JSON each.

    Args:
        path: the file; a missing one is made, with mode 0600.

    Raises:
        OSError: it can't be opened.
    """

    def __init__(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        self._fd = open_own(os.fsencode(path), flags, 0o600)
        found = os.fstat(self._fd)
        self.on = frozenset((number(found.st_mode, found.st_dev, found.st_rdev),))
        self._torn = False

    def write(self, record: Record) -> None:
        """Append a record; raises `OSError` where not all of it fits."""
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 1_000_000_000))
        stamp += f".{now // 1000 % 1_000_000:06}Z"
        line = encode({"time": stamp, **record}).rstrip() + b"\n"
        if self._torn:
            line = b"\n" + line
        written = os.write(self._fd, line)
        # A full disk may have taken a part of it.
        self._torn = written < len(line)
        if self._torn:
            raise OSError(0, "no room for all of it")

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
