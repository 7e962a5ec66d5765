"""The real qmp-shell, typed at through a terminal."""

from __future__ import annotations

import ast
import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Side
from tests.differential.server import PATIENCE, Server
from tests.terminal import open_terminal

PROMPT = "(QEMU) "
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x07|\r")


class Shell:
    """A qmp-shell on a terminal of its own.

    Args:
        arguments: its command line.
        home: where it keeps its history.
    """

    def __init__(self, arguments: list[str], home: Path) -> None:
        self.terminal, inside = open_terminal()
        environment = dict(os.environ, HOME=str(home), TERM="dumb", COLUMNS="400")
        command = Path(sys.executable).with_name("qmp-shell")
        self.process = subprocess.Popen(
            [str(command), *arguments],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env=environment,
            start_new_session=True,
        )
        os.close(inside)
        self.text = ""

    def wait_for(self, wanted: str) -> str:
        """Read until a text appears; what came up to and with it."""
        while wanted not in self.text:
            ready, _, _ = select.select([self.terminal], [], [], PATIENCE)
            assert ready, f"no {wanted!r} in {self.text!r}"
            try:
                data = os.read(self.terminal, 1 << 16)
            except OSError as error:
                raise AssertionError(f"ended, and no {wanted!r} in {self.text!r}") from error
            self.text += CONTROL.sub("", data.decode())
        before, _, self.text = self.text.partition(wanted)
        return before + wanted

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.terminal, text.encode())

    def say(self, line: str) -> Any:
        """Enter a command; the answer that is printed, as a value."""
        self.type(line + "\n")
        printed = self.wait_for(PROMPT)
        answers = [row for row in printed.splitlines() if row.startswith("{")]
        assert answers, printed
        return ast.literal_eval(
            re.sub(r"\b(true|false|null)\b", lambda m: NAMES[m[0]], answers[-1])
        )

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        os.close(self.terminal)


NAMES = {"true": "True", "false": "False", "null": "None"}


@pytest.fixture
def shell(memd: Side, directory: Path) -> Iterator[Callable[..., Shell]]:
    """Starts a qmp-shell on the daemon, with options."""
    if not Path(sys.executable).with_name("qmp-shell").exists() and not shutil.which("qmp-shell"):
        pytest.skip("needs qmp-shell of qemu.qmp")
    shells: list[Shell] = []

    def start(*options: str, path: Path = memd.server.path) -> Shell:
        shells.append(Shell([*options, str(path)], directory))
        return shells[-1]

    yield start
    for one in shells:
        one.close()


def test_a_backend_comes_and_goes(shell: Callable[..., Shell]) -> None:
    one = shell()
    greeting = one.wait_for(PROMPT)
    assert "Connected to QEMU 10.0.2" in greeting
    made = one.say("object-add qom-type=memory-backend-ram id=m0 size=1048576 share=true")
    assert made == {"return": {}}
    (listed,) = one.say("query-memdev")["return"]
    assert (listed["id"], listed["size"], listed["share"]) == ("m0", 1048576, True)
    assert one.say("qom-get path=/objects/m0 property=size") == {"return": 1048576}
    nodes = one.say("qom-set path=m0 property=host-nodes value=[0]")
    assert nodes == {"return": {}}
    assert one.say("object-del id=m0") == {"return": {}}
    assert one.say("object-del id=m0") == {
        "error": {"class": "GenericError", "desc": "object 'm0' not found"}
    }


def test_completion(shell: Callable[..., Shell]) -> None:
    """The names come from query-commands."""
    one = shell()
    one.wait_for(PROMPT)
    one.type("query-memd\t")
    one.wait_for("query-memdev")
    one.type("\n")
    assert '{"return": []}' in one.wait_for(PROMPT)
    one.type("object-\t\t")
    one.wait_for("object-add")
    one.wait_for("object-del")


def test_pretty_and_verbose(shell: Callable[..., Shell]) -> None:
    one = shell("-p", "-v")
    one.wait_for(PROMPT)
    one.type("query-status\n")
    printed = one.wait_for(PROMPT)
    assert '"execute": "query-status"' in printed
    assert '    "return": {' in printed


def test_two_shells_at_once(shell: Callable[..., Shell]) -> None:
    first, second = shell(), shell()
    first.wait_for(PROMPT)
    second.wait_for(PROMPT)
    first.say("object-add qom-type=memory-backend-memfd id=m0 size=1048576")
    (seen,) = second.say("query-memdev")["return"]
    assert seen["id"] == "m0"
    assert second.say("stop") == {"return": {}}
    # The shell shows an event with the next answer.
    first.type("\n")
    first.wait_for("STOP")
    second.say("cont")


def test_leaving(shell: Callable[..., Shell], memd: Side) -> None:
    """The end of its input ends the shell, and the daemon goes on."""
    one = shell()
    one.wait_for(PROMPT)
    one.type("\x04")
    assert one.process.wait(PATIENCE) == 0
    assert "return" in memd.ask("query-status")


def test_human_monitor(shell: Callable[..., Shell], start_memd: Callable[..., Server]) -> None:
    """Its -H mode, which speaks through human-monitor-command, and of the first CPU."""
    one = shell("-H", path=start_memd("--machine", "q35").path)
    one.wait_for("(QEMU) ")
    one.type("info version\n")
    assert "10.0.2" in one.wait_for(PROMPT)
