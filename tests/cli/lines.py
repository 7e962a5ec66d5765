"""Command lines for tests, and what comes of them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr

from memd.cli import options, qemu_system
from memd.cli.report import Answered, CommandLineError
from memd.config import Config, Report

Parse = Callable[[Sequence[str], Report], Config]

PROGRAM = "PROGRAM"
"""What messages begin with here."""


class Outcome:
    """What a command line comes to.

    Attributes:
        config: what is to run, or None.
        status: the exit status; 0 where it runs.
        stdout: what it answers.
        stderr: what it says, without the program's name.
    """

    def __init__(self, parse: Parse, argv: Sequence[str]) -> None:
        self.config: Config | None = None
        self.status = 0
        self.stdout = ""
        written = io.StringIO()
        with redirect_stderr(written):
            report = Report(PROGRAM)
            try:
                self.config = parse(argv, report)
            except CommandLineError as error:
                error.tell(report)
                self.status = 1
            except Answered as answer:
                self.stdout = answer.text
                self.status = answer.status
        self.stderr = written.getvalue().replace(f"{PROGRAM}: ", "")


def memd(*argv: str) -> Outcome:
    """What `memd ARGV...` comes to."""
    return Outcome(options.parse_arguments, argv)


def qemu(*argv: str) -> Outcome:
    """What `qemu-system-memd ARGV...` comes to."""
    return Outcome(qemu_system.parse_arguments, argv)


def config(outcome: Outcome) -> Config:
    """The config of a command line that runs, and says nothing about it."""
    assert outcome.stderr == ""
    assert outcome.config is not None
    return outcome.config
