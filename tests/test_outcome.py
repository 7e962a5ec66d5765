"""What a command comes to: what is there when nothing is said."""

from __future__ import annotations

from memd.outcome import Blocking, Constant, Event, Outcome


def test_an_outcome_is_an_empty_object_unless_told() -> None:
    first, second = Outcome(), Outcome()
    assert (first.value, first.events, first.fds, first.shutdown) == ({}, (), (), None)
    first.value["a"] = 1
    assert second.value == {}
    assert [Outcome("").value, Outcome(0).value, Outcome([]).value] == ["", 0, []]


def test_blocking_work_needs_nothing_undone_unless_told() -> None:
    job = Blocking(lambda: 1, lambda value: value)
    job.failed(ValueError())
    assert job.finish(job.work()) == 1


def test_events_may_have_data() -> None:
    assert Event("STOP").data is None
    assert Event("SHUTDOWN", {"guest": False}).data == {"guest": False}


def test_a_constant_is_not_encoded_yet() -> None:
    assert Constant([1]).encoded is None
