"""The faults that were added: names, order, which a message meets."""

from __future__ import annotations

import pytest

from memd.errors import QMPError
from memd.faulty.registry import FaultRegistry
from memd.places import Account


def test_names() -> None:
    faults = FaultRegistry(Account())
    assert faults.add({"id": "fault1", "drop": True}) == "fault1"
    assert faults.add({"drop": True}) == "fault2"
    with pytest.raises(QMPError, match="Duplicate ID 'fault2' for fault"):
        faults.add({"id": "fault2", "drop": True})
    with pytest.raises(QMPError, match="fault 'x' not found"):
        faults.remove("x")
    faults.remove("fault1")
    assert [each["id"] for each in faults.list()] == ["fault2"]
    assert faults.effect("command", {}, client=1, monitor="m", command="stop") is not None
    faults.clear()
    assert faults.list() == []
    assert faults.effect("command", {}, client=1, monitor="m", command="stop") is None


def test_one_that_is_refused_is_not_there() -> None:
    faults = FaultRegistry(Account())
    with pytest.raises(QMPError):
        faults.add({"id": "a", "command": "x"})
    assert faults.list() == []


def test_each_scope_by_itself() -> None:
    faults = FaultRegistry(Account())
    version = {"qemu": {"major": 9, "minor": 0, "micro": 0}, "package": ""}
    faults.add({"command": "stop", "drop": True})
    faults.add({"event": "STOP", "drop": True, "client": 2})
    faults.add({"syscall": "mmap", "errno": "ENOMEM", "nth": 2})
    assert faults.version() is None
    assert not FaultRegistry(Account()).has_events
    assert faults.has_events
    faults.add({"greeting": True, "version": version, "monitor": "m"})
    assert faults.version() == version
    assert faults.effect("command", {}, client=1, monitor="m", command="cont") is None
    assert faults.effect("command", {}, client=1, monitor="m", command="stop") is not None
    assert faults.effect("event", client=1, monitor="m", event="STOP") is None
    assert faults.effect("event", client=2, monitor="m", event="RESUME") is None
    assert faults.effect("event", client=2, monitor="m", event="STOP") is not None
    every = FaultRegistry(Account())
    every.add({"event": "", "drop": True})
    assert every.effect("event", client=1, monitor="m", event="RESUME") is not None
    assert faults.effect("greeting", client=1, monitor="n") is None
    assert faults.effect("greeting", client=1, monitor="m") is not None
    assert [faults.effect("syscall", syscall="mmap") is None for _ in range(3)] == [
        True,
        False,
        True,
    ]
    assert faults.effect("syscall", syscall="open") is None
    counts = [(each["seen"], each["applied"]) for each in faults.list()]
    # Counted is what the fault is for, and not what another one is for.
    assert counts == [(1, 1), (1, 1), (3, 1), (1, 1)]
