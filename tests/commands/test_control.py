"""The conversation's own commands."""

from __future__ import annotations

import pytest

from memd import __version__
from memd.commands.control import greeting
from memd.compat import Compat
from memd.work import Constant, Outcome
from tests.commands.fakes import Console, make_daemon


@pytest.mark.parametrize(
    ("compat", "version"),
    [
        (Compat.V10_0, {"major": 10, "minor": 0, "micro": 2}),
        (Compat.V11_1, {"major": 11, "minor": 1, "micro": 3}),
    ],
)
def test_greeting_and_version_agree(compat: Compat, version: dict[str, int]) -> None:
    told = {"qemu": version, "package": f"memd {__version__}"}
    assert greeting(make_daemon(compat)) == {"QMP": {"version": told, "capabilities": ["oob"]}}
    assert Console(compat)("query-version") == told


@pytest.mark.parametrize("command", ["query-commands", "query-qmp-schema"])
def test_what_never_changes_is_made_once(command: str) -> None:
    console = Console()
    first = console(command)
    assert isinstance(first, Constant)
    assert console(command) is first


def test_commands_are_those_of_the_schema() -> None:
    console = Console()
    names = {entry["name"] for entry in console("query-commands").value}
    introspected = {
        entity["name"]
        for entity in console("query-qmp-schema").value
        if entity["meta-type"] == "command"
    }
    assert names == introspected
    assert {"object-add", "qom-get", "quit"} <= names
    assert "qom-list-get" not in names
    later = Console(Compat.V11_1)
    assert "qom-list-get" in {entry["name"] for entry in later("query-commands").value}


def test_quit_tells_everybody_and_ends() -> None:
    outcome = Console()("quit")
    assert isinstance(outcome, Outcome)
    (event,) = outcome.events
    assert (event.name, event.data) == ("SHUTDOWN", {"guest": False, "reason": "host-qmp-quit"})
    assert outcome.shutdown == "host-qmp-quit"
    assert outcome.value == {}
