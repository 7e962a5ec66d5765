"""Power: the same events, states and answers as of a QEMU whose guest does nothing."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.differential.server import Died, Server, qemu_binary, qemu_compat, qemu_system_memd

Step = str | tuple[str, dict[str, Any]]


def story(server: Server, steps: list[Step]) -> list[Any]:
    """The events and the answer of each command, and how it ended."""
    monitor = server.monitor()
    said: list[Any] = []
    for step in steps:
        command, arguments = (step, None) if isinstance(step, str) else step
        try:
            answer = monitor.execute(command, arguments)
            # What comes later has come before the answer to this.
            monitor.execute("query-name")
        except Died:
            said.append("ends")
            break
        events = [(event["event"], event.get("data")) for event in monitor.events]
        said.append((command, answer, events))
        monitor.events.clear()
    return said


PAUSE: Step = ("set-action", {"shutdown": "pause", "reboot": "shutdown"})
RESET: Step = ("set-action", {"reboot": "reset"})
WATCHDOG: Step = ("watchdog-set-action", {"action": "pause"})


@pytest.mark.parametrize("machine", ["none", "q35"])
@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ("", ["system_powerdown", "system_wakeup", "system_reset", "query-status"]),
        ("", ["cont", "stop", "query-status", "system_reset", "query-status", "cont"]),
        ("", ["system_powerdown", "query-status", WATCHDOG]),
        ("", [PAUSE, "system_reset", "query-status", "cont", "stop", "system_reset", RESET]),
        ("", [PAUSE, "system_reset", RESET, "system_reset", "query-status", "cont"]),
        ("-action reboot=shutdown,shutdown=pause", ["system_reset", "query-status", "cont"]),
        ("-no-shutdown -no-reboot", ["system_reset", "query-status", "cont", "quit"]),
        ("-no-shutdown", ["system_powerdown", "system_reset", "query-status"]),
        ("-watchdog-action pause", ["query-status"]),
    ],
)
def test_power(tmp_path: Path, machine: str, options: str, steps: list[Step]) -> None:
    common = ["-S", "-machine", machine, "-display", "none", "-nodefaults", *shlex.split(options)]
    told = []
    for name, argv in (("QEMU", qemu_binary()), ("memd", qemu_system_memd(qemu_compat()))):
        place = tmp_path / name
        place.mkdir()
        more = ["-guest-reacts", "never"] if name == "memd" else []
        server = Server(name, [*argv, *common, *more], place)
        try:
            told.append(story(server, steps))
        finally:
            server.stop()
    assert told[0] == told[1]
