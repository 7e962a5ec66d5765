"""What a command line says on standard error, in QEMU's form.

A message is one line: the program's name, the option that it is about, as it
was given, and the text. A hint is what may follow on lines of its own.
"""

from __future__ import annotations

import sys


class CommandLineError(Exception):
    """A command line that can't be run.

    Args:
        texts: the messages, a line each. Mostly one; QEMU has two where a
            monitor's address is wrong.
        where: the option and its argument as given, "" where none is at fault.
        hint: lines that follow the first message, or None.
    """

    def __init__(self, *texts: str, where: str = "", hint: str | None = None) -> None:
        super().__init__(*texts)
        self.texts = texts
        self.where = where
        self.hint = hint


class Answered(Exception):
    """The command line asked a question (`-help`, `-object help`): nothing is to run.

    Args:
        text: the answer, for standard output.
        status: the exit status; QEMU counts some questions as mistakes.
    """

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


class Reporter:
    """Writes messages to standard error.

    Attributes:
        program: the program's name.
        timestamp: whether messages begin with the time (`-msg timestamp=on`).
        name: what messages begin with (`-msg guest-name=on`), None for nothing.
    """

    def __init__(self, program: str) -> None:
        self.program = program
        self.timestamp = False
        self.name: str | None = None

    def error(self, text: str, where: str = "", hint: str | None = None) -> None:
        """Say what went wrong."""
        self._write("", text, where, hint)

    def warning(self, text: str, where: str = "", hint: str | None = None) -> None:
        """Say what may not be as it was meant."""
        self._write("warning: ", text, where, hint)

    def info(self, text: str, where: str = "") -> None:
        """Say what goes on."""
        self._write("info: ", text, where, None)

    def refuse(self, error: CommandLineError) -> None:
        """Say why a command line can't be run."""
        hint = error.hint
        for text in error.texts:
            self.error(text, error.where, hint)
            hint = None

    def _write(self, kind: str, text: str, where: str, hint: str | None) -> None:
        if sys.stderr is None:
            return
        parts = [f"{self.program}: "]
        if self.name is not None:
            parts.insert(0, f"{self.name} ")
        if self.timestamp:
            parts.insert(0, f"{_now()} ")
        if where:
            parts.append(f"{where}: ")
        parts += [kind, text, "\n"]
        if hint is not None:
            parts += [hint, "\n"]
        try:
            sys.stderr.write("".join(parts))
            sys.stderr.flush()
        except OSError:
            # Nobody reads it any more, and that is no reason to stop.
            pass


def _now() -> str:
    from datetime import UTC, datetime

    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
