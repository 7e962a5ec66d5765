"""What comes of a command line: QEMU's and memd's exit status, messages and first answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from memd.json_types import JSON
from tests import prefork

Question = tuple[str, dict[str, Any]]

_BEGIN = ("-S", "-display", "none", "-nodefaults")
_PROGRAM = re.compile(r"^(qemu(-system-\w+)?): ", re.MULTILINE)


class Start(NamedTuple):
    """A process that was started with a command line, asked some questions, and ended.

    Attributes:
        status: its exit status, negative for a signal.
        messages: the lines of its standard error, without the program's name.
        answers: to the questions, in their order.
    """

    status: int
    messages: list[str]
    answers: list[JSON]

    @property
    def crashed(self) -> bool:
        """Whether a signal has ended it."""
        return self.status < 0


def start(
    argv: Sequence[str],
    options: Sequence[str],
    questions: Sequence[Question] = (),
    cwd: Path | None = None,
) -> Start:
    """Start one, with a monitor on its standard input and output.

    Args:
        argv: the program.
        options: its own, besides.
        questions: the commands that it gets, and their arguments.
        cwd: where it runs.
    """
    commands: list[Question] = [("qmp_capabilities", {}), *questions, ("quit", {})]
    text = "".join(json.dumps({"execute": name, "arguments": each}) for name, each in commands)
    done = prefork.run([*argv, *_BEGIN, *options, "-qmp", "stdio"], text=text, cwd=cwd)
    told = [json.loads(line) for line in done.stdout.splitlines() if line[:1] == "{"]
    answers = [each for each in told if "return" in each or "error" in each]
    return Start(
        done.returncode, _PROGRAM.sub("", done.stderr).splitlines(), answers[1 : len(questions) + 1]
    )


def print_differences(found: Iterable[str | None]) -> None:
    """Print what differs as it is found, None being nothing, and of how many."""
    asked = differing = 0
    with prefork.forked():
        for each in found:
            asked += 1
            if each is not None:
                differing += 1
                print(each, flush=True)
    print(f"{differing} of {asked} differ")
