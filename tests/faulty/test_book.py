"""The faults that were added: names, order, which a message meets."""

from __future__ import annotations

import pytest

from memd.errors import QMPError
from memd.faulty.book import Book


def test_names() -> None:
    book = Book()
    assert book.add({"id": "fault1", "drop": True}) == "fault1"
    assert book.add({"drop": True}) == "fault2"
    with pytest.raises(QMPError, match="Duplicate ID 'fault2' for fault"):
        book.add({"id": "fault2", "drop": True})
    with pytest.raises(QMPError, match="fault 'x' not found"):
        book.remove("x")
    book.remove("fault1")
    assert [each["id"] for each in book.list()] == ["fault2"]
    assert book.for_command(1, "m", "stop", {}) is not None
    book.clear()
    assert book.list() == []
    assert book.for_command(1, "m", "stop", {}) is None


def test_one_that_is_refused_is_not_there() -> None:
    book = Book()
    with pytest.raises(QMPError):
        book.add({"id": "a", "command": "x"})
    assert book.list() == []


def test_each_scope_by_itself() -> None:
    book = Book()
    version = {"qemu": {"major": 9, "minor": 0, "micro": 0}, "package": ""}
    book.add({"command": "stop", "drop": True})
    book.add({"event": "STOP", "drop": True, "client": 2})
    book.add({"syscall": "mmap", "errno": "ENOMEM", "nth": 2})
    assert book.version() is None
    assert not Book().has_events
    assert book.has_events
    book.add({"greeting": True, "version": version, "monitor": "m"})
    assert book.version() == version
    assert book.for_command(1, "m", "cont", {}) is None
    assert book.for_command(1, "m", "stop", {}) is not None
    assert book.for_event(1, "m", "STOP") is None
    assert book.for_event(2, "m", "STOP") is not None
    assert book.for_greeting(1, "n") is None
    assert book.for_greeting(1, "m") is not None
    assert book.has_syscall("mmap")
    assert not book.has_syscall("open")
    assert [book.for_syscall("mmap") is None for _ in range(3)] == [True, False, True]
    assert book.for_syscall("open") is None
    counts = [(each["seen"], each["applied"]) for each in book.list()]
    # Counted is what the fault is for, and not what another one is for.
    assert counts == [(1, 1), (1, 1), (3, 1), (1, 1)]
