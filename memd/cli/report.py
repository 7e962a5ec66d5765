"""Messages on standard error about a command line, in QEMU's form.

A message is one line: the program's name, the option that it is about, as it
was given, and the text. A hint is what may follow on lines of its own.
"""

from __future__ import annotations

from memd.config import Report


class CommandLineError(Exception):
    """A command line that can't be run.

    Args:
        texts: the messages, a line each. Mostly one; QEMU has two where a
            monitor's address is wrong.
        where: the option and its argument as given, "" where none is at fault.
        hint: lines that follow the first message, or None.
        status: the exit status; QEMU counts some mistakes in questions as none.
    """

    def __init__(
        self, *texts: str, where: str = "", hint: str | None = None, status: int = 1
    ) -> None:
        super().__init__(*texts)
        self.texts = texts
        self.where = where
        self.hint = hint
        self.status = status

    def tell(self, report: Report) -> None:
        """Say why the command line can't be run."""
        hint = self.hint
        for text in self.texts:
            report.error(text, self.where, hint)
            hint = None


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
