"""The run state, and the facts about a machine that is not there."""

from __future__ import annotations

import os

import pytest

from memd.work import Outcome
from tests.commands.fakes import Console
from tests.conftest import NOT_HERE


def events(value: object) -> list[str]:
    return [event.name for event in value.events] if isinstance(value, Outcome) else []


def test_stop_and_cont_change_the_state_and_say_so_once() -> None:
    console = Console()
    assert console("query-status") == {"running": True, "status": "running"}
    assert events(console("cont")) == []
    assert events(console("stop")) == ["STOP"]
    assert console("query-status") == {"running": False, "status": "paused"}
    assert events(console("stop")) == []
    assert events(console("cont")) == ["RESUME"]
    assert events(console("cont")) == []
    assert console("query-status") == {"running": True, "status": "running"}


def test_a_daemon_started_stopped_is_not_paused() -> None:
    console = Console(stopped=True)
    assert events(console("stop")) == []
    assert console("query-status") == {"running": False, "status": "prelaunch"}
    assert events(console("cont")) == ["RESUME"]


def test_name_and_uuid() -> None:
    assert Console()("query-name") == {}
    assert Console(name="store")("query-name") == {"name": "store"}
    assert Console()("query-uuid") == {"UUID": "00000000-0000-0000-0000-000000000000"}


def test_the_target_is_this_host() -> None:
    if os.uname().machine != "x86_64":
        pytest.skip(f"{NOT_HERE}an x86_64: the expected name is its own")
    assert Console()("query-target") == {"arch": "x86_64"}


def test_kvm_is_known_and_told_once_it_is_used() -> None:
    """As in QEMU, whether or not this machine has it."""
    assert Console()("query-kvm") == {"enabled": False, "present": True}
    console = Console()
    console.daemon.accel = "kvm"
    assert console("query-kvm")["enabled"] is True
