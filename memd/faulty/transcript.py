"""The messages between clients and the daemon, in order.

The form is that of `TestMessage` in `schemas/test.json`, one a line in files.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice, starmap

from memd.errors import QMPError, refusing
from memd.json_types import JSONObject

Entry = JSONObject

LENGTH = 100_000
"""Messages that are known at most; the oldest are forgotten first."""

BYTES = 64 << 20
"""Bytes of messages that are known at most."""

AT_ONCE = 1 << 16
"""Bytes of messages that are told at once, unless a single one has more: milliseconds of work."""

ABOUT = 100
"""Bytes that are told of each message besides."""


class Transcript:
    """The latest of what was said; messages are counted from 0, from the last reset on.

    Attributes:
        length: see `LENGTH`; `size` (for `BYTES`) and `at_once` as well.
    """

    length = LENGTH
    size = BYTES
    at_once = AT_ONCE

    def __init__(self) -> None:
        self._began = time.monotonic_ns()
        # With what was sent, which stays in bytes until somebody asks, and the size.
        self._said: deque[tuple[Entry, bytes, int]] = deque()
        self._held = 0
        # Of all messages: how many are no longer known, and which came first after the reset.
        self._dropped = 0
        self._start = 0

    def heard(self, connection: int, item: object, size: int) -> None:
        """A client's message, or a `QMPError` where it sent none.

        Args:
            size: in bytes, roughly.
        """
        entry = self._entry(connection, "client")
        if isinstance(item, QMPError):
            entry["text"] = item.desc
        else:
            entry["message"] = item
        self._add(entry, b"", size)

    def sent(self, connection: int, data: bytes, command: str | None, fault: bool) -> None:
        """A message to a client.

        Args:
            command: the command that it answers.
            fault: whether a fault answered it.
        """
        entry = self._entry(connection, "server")
        if command is not None:
            entry["command"] = command
        if fault:
            entry["fault"] = True
        self._add(entry, data, len(data))

    def ended(self, connection: int, side: str) -> None:
        """A connection was closed, by the client or the server."""
        self._add({**self._entry(connection, side), "end": True}, b"", 0)

    def reset(self) -> None:
        """Begin to count anew; what was said before is told to those alone who ask for all."""
        self._start = self._dropped + len(self._said)

    def lost(self, *, all: bool = False) -> int:
        """The number of messages that are no longer known.

        Args:
            all: with those before the last reset, from the very first on.
        """
        return max(0, self._dropped - (0 if all else self._start))

    def since(self, number: int, *, all: bool = False) -> tuple[list[Entry], int]:
        """Messages from that number on, as `TestMessage`, and the number of the next one.

        They need not be all: the answer is to be of a size that can be sent.

        Args:
            number: of the first message.
            all: count from the very first message on, as for `lost`.
        """
        base = 0 if all else self._start
        start = max(0, base + number - self._dropped)
        found: list[Entry] = []
        size = 0
        for entry, data, length in islice(self._said, start, None):
            size += length + ABOUT
            if found and size > self.at_once:
                break
            found.append(_shown(entry, data))
        return found, self._dropped + min(start, len(self._said)) + len(found) - base

    def all(self) -> Iterator[Entry]:
        """Every message since the last reset until now, as `TestMessage`.

        They are parsed one by one, which another thread may do.
        """
        start = max(0, self._start - self._dropped)
        said = [(entry, data) for entry, data, _size in islice(self._said, start, None)]
        return starmap(_shown, said)

    def _entry(self, connection: int, side: str) -> Entry:
        now = (time.monotonic_ns() - self._began) // 1000
        return {"time": now, "connection": connection, "from": side}

    def _add(self, entry: Entry, data: bytes, size: int) -> None:
        if not entry["connection"]:
            return
        self._said.append((entry, data, size))
        self._held += size
        while len(self._said) > self.length or self._held > self.size:
            _entry, _data, oldest = self._said.popleft()
            self._held -= oldest
            self._dropped += 1


def _shown(entry: Entry, data: bytes) -> Entry:
    if not data:
        return entry
    try:
        return {**entry, "message": json.loads(data)}
    except ValueError:
        return {**entry, "text": data.decode("utf-8", "replace")}


def load_transcript(filename: str) -> list[list[Entry]]:
    """The conversations in a file; see `read_transcript`.

    Raises:
        QMPError: it can't be read, or is not a transcript.
    """
    try:
        with refusing(f"cannot read '{filename}'"), open(filename, encoding="utf-8") as file:
            return read_transcript(file.read())
    except ValueError as error:
        raise QMPError(f"'{filename}' is not a transcript: {error}") from None


def read_transcript(text: str) -> list[list[Entry]]:
    """The conversations of a transcript, a list of entries for each connection.

    Raises:
        ValueError: what is wrong with it, and in which line.
    """
    entries: list[Entry] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
        wrong = _wrong(entry)
        if wrong:
            raise ValueError(f"line {number}: {wrong}")
        entry["line"] = number
        entries.append(entry)
    if not entries:
        raise ValueError("there is nothing in it")
    return conversations(entries)


def conversations(entries: Iterable[Entry]) -> list[list[Entry]]:
    """The entries of each connection, by its number."""
    found: dict[int, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.get("connection", 1), []).append(entry)
    return [found[number] for number in sorted(found)]


def _wrong(entry: object) -> str:
    if not isinstance(entry, dict):
        return "not an object"
    if entry.get("from") not in ("client", "server"):
        return "'from' is neither client nor server"
    if not isinstance(entry.get("connection", 1), int):
        return "'connection' is not a number"
    if not {"message", "text", "end"} & set(entry):
        return "neither 'message' nor 'text' nor 'end'"
    if not isinstance(entry.get("text", ""), str):
        return "'text' is not a string"
    return ""
