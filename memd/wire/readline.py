"""Lines that are typed to the human monitor: a terminal's bytes in, lines and their echo out.

Keys, echo and the list of completions are QEMU 10.0.2's: after each key that changes the
line, all of it is written anew. A column is a byte there, and so is a step of the cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from memd.json_types import JSON
from memd.wire.decoder import MORE, NEED_DATA, Nothing

PROMPT = b"(qemu) "

_LONGEST = 4095
_REMEMBERED = 64
"""Lines of the history."""

_AT_ONCE = 64
"""Bytes between two looks at the time: each is echoed with all that is in its line."""

_WIDTH = 80
_NARROWEST = 10
"""Columns of a terminal, and of a name in a list."""

_ENTER = b"\r\n"
_ESCAPE, _CSI = 0x1B, 0x9B
_LEFT, _RIGHT = b"\x1b[D", b"\x1b[C"

_KEYS = {
    0x01: "start",
    0x04: "delete",
    0x05: "end",
    0x08: "erase",
    0x09: "complete",
    0x0C: "clear",
    0x0E: "later",
    0x10: "earlier",
    0x15: "erase_to_start",
    0x17: "erase_word",
    0x7F: "erase",
}
_CSI_KEYS = {"A": "earlier", "B": "later", "C": "right", "D": "left", "E": "later", "F": "earlier"}
_NUMBERED = {1: "start", 3: "delete", 4: "end"}
"""The keys whose sequences end with a tilde, by their numbers."""

_SS3_KEYS = {"F": "end", "H": "start"}


class LineReader:
    """A terminal's input, as messages that a `Decoder` would give: each line is one.

    Args:
        echo: writes to the terminal.
        complete: gives the names that may stand where the last word of a line does.
    """

    def __init__(
        self, echo: Callable[[bytes], None], complete: Callable[[str], Iterable[str]]
    ) -> None:
        self._echo = echo
        self._complete_names = complete
        self.reset()

    def reset(self) -> None:
        """Begin anew, as for a new connection."""
        self._data = b""
        self._history: list[bytes] = []
        # Which of its lines was recalled; its length for none. An empty line leaves that alone.
        self._at = 0
        # Bytes of all of it.
        self._remembered = 0
        # What the key belongs to: "" (none), "escape", "csi" or "ss3".
        self._sequence = ""
        self._number = 0
        self._begin()

    def _begin(self) -> None:
        """Begin a line, behind a prompt."""
        self._line, self._cursor = b"", 0
        # As the terminal has them.
        self._shown, self._shown_cursor = b"", 0

    @property
    def pending(self) -> bool:
        """Whether there is input that was not gone through yet."""
        return bool(self._data)

    @property
    def held(self) -> int:
        """Bytes that wait, and those of the lines that are kept."""
        return len(self._data) + len(self._line) + self._remembered

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
            if self._sequence or key not in _ENTER:
                echo += self._type(key) + self._update()
                continue
            self._data = taken[at + 1 :] + self._data
            self._echo(bytes(echo) + b"\r\n")
            line = self._line
            self._remember(line)
            self._begin()
            text = line.decode("utf-8", "surrogateescape")
            return {"execute": "human-monitor-command", "arguments": {"command-line": text}}
        if echo:
            self._echo(bytes(echo))
        return MORE if self._data else NEED_DATA

    def _remember(self, line: bytes) -> None:
        if not line:
            return
        if line in self._history:
            self._history.remove(line)
        self._history = [*self._history, line][-_REMEMBERED:]
        self._remembered = sum(map(len, self._history))
        self._at = len(self._history)

    def _update(self) -> bytes:
        """What shows the line and the cursor as they are now."""
        echo, shown = b"", self._shown_cursor
        if self._line != self._shown:
            echo = _LEFT * shown + self._line + b"\x1b[K"
            shown = len(self._line)
        ahead = self._cursor - shown
        self._shown, self._shown_cursor = self._line, self._cursor
        return echo + (_RIGHT * ahead if ahead > 0 else _LEFT * -ahead)

    def _type(self, key: int) -> bytes:
        """Take a key; gives what is printed besides the line."""
        sequence, self._sequence = self._sequence, ""
        if not sequence:
            if key in (_ESCAPE, _CSI):
                self._sequence = "escape" if key == _ESCAPE else "csi"
                self._number = 0
            elif key in _KEYS:
                return self._press(_KEYS[key])
            elif key >= 0x20:
                self._insert(bytes((key,)))
            return b""
        letter = chr(key)
        if sequence == "escape":
            self._sequence = {"[": "csi", "O": "ss3"}.get(letter, "")
        elif sequence == "ss3":
            return self._press(_SS3_KEYS.get(letter))
        elif "0" <= letter <= "9":
            self._sequence = "csi"
            # No key has three digits.
            self._number = min(self._number * 10 + int(letter), 100)
        else:
            return self._press(
                _NUMBERED.get(self._number) if letter == "~" else _CSI_KEYS.get(letter)
            )
        return b""

    def _press(self, name: str | None) -> bytes:
        line, cursor = self._line, self._cursor
        match name:
            case "start":
                self._cursor = 0
            case "end":
                self._cursor = len(line)
            case "left":
                self._cursor = max(cursor - 1, 0)
            case "right":
                self._cursor = min(cursor + 1, len(line))
            case "delete":
                self._line = line[:cursor] + line[cursor + 1 :]
            case "erase":
                self._erase_from(max(cursor - 1, 0))
            case "erase_to_start":
                self._erase_from(0)
            case "erase_word":
                start = line[:cursor].rstrip(b" ").rfind(b" ") + 1
                # The blank that a line begins with belongs to the word behind it.
                self._erase_from(start if start > 1 else 0)
            case "earlier" if self._at > 0:
                self._recall(self._at - 1)
            case "later" if self._at < len(self._history):
                self._recall(self._at + 1)
            case "clear":
                return b"\x1b[2J\x1b[1;1H" + self._prompt_again()
            case "complete":
                return self._complete()
        return b""

    def _insert(self, text: bytes) -> None:
        line, cursor = self._line, self._cursor
        text = text[: _LONGEST - len(line)]
        self._line = line[:cursor] + text + line[cursor:]
        self._cursor += len(text)

    def _erase_from(self, start: int) -> None:
        self._line = self._line[:start] + self._line[self._cursor :]
        self._cursor = start

    def _recall(self, at: int) -> None:
        self._at = at
        self._line = self._history[at] if at < len(self._history) else b""
        self._cursor = len(self._line)

    def _prompt_again(self) -> bytes:
        self._shown, self._shown_cursor = b"", 0
        return PROMPT

    def _complete(self) -> bytes:
        """Complete the word before the cursor; gives a list where several fit."""
        typed = self._line[: self._cursor].decode("utf-8", "surrogateescape")
        word = typed[typed.rfind(" ") + 1 :]
        names = sorted(each for each in self._complete_names(typed) if each.startswith(word))
        if not names:
            return b""
        if len(names) == 1:
            self._insert(f"{names[0][len(word) :]} ".encode())
            return b""
        # The first and the last of them differ as early as any two.
        common = next(
            (at for at, (a, b) in enumerate(zip(names[0], names[-1], strict=False)) if a != b),
            len(names[0]),
        )
        self._insert(names[0][len(word) : common].encode())
        return b"\r\n" + _in_columns(names) + self._prompt_again()


def _in_columns(names: list[str]) -> bytes:
    width = min(max(*map(len, names), _NARROWEST - 2) + 2, _WIDTH)
    a_line = _WIDTH // width
    lines = (names[at : at + a_line] for at in range(0, len(names), a_line))
    return b"".join(
        b"".join(b"%-*b" % (width, each.encode()) for each in line) + b"\r\n" for line in lines
    )
