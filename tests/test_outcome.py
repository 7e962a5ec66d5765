"""What a command comes to: what is there when nothing is said."""

from __future__ import annotations

import pytest

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


def test_watched_work_is_the_same_work() -> None:
    told: list[BaseException | None] = []
    job = Blocking(lambda: 1, lambda n: n + 1, progress=lambda: None, cancel=lambda: None, copies=7)
    watched = job.watched(told.append)
    assert (watched.progress, watched.cancel, watched.copies) == (job.progress, job.cancel, 7)
    assert watched.finish(watched.work()) == 2
    assert told == [None]


def test_watched_to_its_last_step() -> None:
    told: list[BaseException | None] = []
    last = Blocking(lambda: 5, lambda n: n)
    step = Blocking(lambda: 1, lambda _n: last).watched(told.append)
    step = step.finish(step.work())
    assert told == []
    assert step.finish(step.work()) == 5
    assert told == [None]


def test_why_there_is_no_value() -> None:
    told: list[BaseException | None] = []
    undone: list[BaseException] = []
    error = ValueError("no")

    def refuse(_n: int) -> int:
        raise error

    Blocking(lambda: 1, refuse, undone.append).watched(told.append).failed(error)
    assert (told, undone) == ([error], [error])
    with pytest.raises(ValueError, match="no"):
        Blocking(lambda: 1, refuse).watched(told.append).finish(1)
    assert told == [error, error]
