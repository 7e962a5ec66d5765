"""Lines that are typed to the human monitor: a terminal's bytes in, lines and their echo out.

The echo is QEMU 10.0.2's: after each key the whole line is written anew. Keys that move
in a line, its history and completion are left out; they change nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from memd.json_types import JSON
from memd.wire.decoder import MORE, NEED_DATA, Nothing

_LONGEST = 4095
_AT_ONCE = 64
"""Bytes between two looks at the time: each is echoed with all that is in its line."""

_ENTER, _ERASE, _ESCAPE = b"\r\n", b"\b\x7f", 0x1B


class LineReader:
    """A terminal's input, as messages that a `Decoder` would give: each line is one.

    Args:
        echo: writes to the terminal.
    """

    def __init__(self, echo: Callable[[bytes], None]) -> None:
        self._echo = echo
        self.reset()

    def reset(self) -> None:
        """Begin anew, as for a new connection."""
        self._data = b""
        self._line = bytearray()
        # Whether a sequence has begun that a key of a terminal sends.
        self._escaped = False

    @property
    def pending(self) -> bool:
        """Whether there is input that was not gone through yet."""
        return bool(self._data)

    @property
    def held(self) -> int:
        """Bytes that wait, and those of the line that is being typed."""
        return len(self._data) + len(self._line)

    unfinished = 0
    """Bytes of a line that is being typed, which are never many."""

    def put(self, data: bytes) -> None:
        """Take what was typed; `next` goes through it."""
        self._data += data

    def next(self) -> JSON | Nothing:
        """The next line, as the command that runs it, or `Nothing`."""
        taken, self._data = self._data[:_AT_ONCE], self._data[_AT_ONCE:]
        echo = bytearray()
        for at, key in enumerate(taken):
            if key not in _ENTER:
                echo += self._type(key)
                continue
            self._data = taken[at + 1 :] + self._data
            self._echo(bytes(echo) + b"\r\n")
            line = self._line.decode("utf-8", "surrogateescape")
            self._line.clear()
            return {"execute": "human-monitor-command", "arguments": {"command-line": line}}
        if echo:
            self._echo(bytes(echo))
        return MORE if self._data else NEED_DATA

    def _type(self, key: int) -> bytes:
        """Take a key; gives its echo."""
        before = len(self._line)
        if self._escaped:
            self._escaped = not (chr(key).isalpha() or key == ord("~"))
        elif key == _ESCAPE:
            self._escaped = True
        elif key in _ERASE:
            del self._line[-1:]
        elif key >= 0x20 and before < _LONGEST:
            self._line.append(key)
        if len(self._line) == before:
            return b""
        return b"\x1b[D" * before + self._line + b"\x1b[K"
