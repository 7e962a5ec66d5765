"""What a command comes to, and what it waits for."""

from __future__ import annotations

from typing import Any

import pytest

from memd.work import (
    Completion,
    Constant,
    Event,
    Job,
    Outcome,
    Resume,
    Turn,
    Wait,
    begin,
    in_turns,
    run_here,
    value_of,
)


def test_an_outcome_is_an_empty_object_unless_told() -> None:
    first, second = Outcome(), Outcome()
    assert (first.value, first.events, first.fds, first.shutdown) == ({}, (), (), None)
    first.value["a"] = 1
    assert second.value == {}
    assert [Outcome("").value, Outcome(0).value, Outcome([]).value] == ["", 0, []]


def test_events_may_have_data() -> None:
    assert Event("STOP").data is None
    assert Event("SHUTDOWN", {"guest": False}).data == {"guest": False}


def test_a_constant_is_not_encoded_yet() -> None:
    assert Constant([1]).encoded is None


def fail() -> int:
    raise ValueError("no")


class Command:
    """A command that notes what happens to it."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    async def run(self, *works: Any) -> int:
        self.seen.append("begun")
        last = 0
        try:
            for work in works:
                last = await Job(work)
                self.seen.append(last)
        except ValueError as error:
            self.seen.append(str(error))
            raise
        finally:
            self.seen.append("undone")
        return last


class Loop:
    """Ends waits when it is told to."""

    def __init__(self) -> None:
        self.waits: list[tuple[Wait, Resume]] = []
        self.ended: list[tuple[Any, BaseException | None]] = []

    def start(self, wait: Wait, resume: Resume) -> None:
        self.waits.append((wait, resume))

    def done(self, value: Any, error: BaseException | None) -> None:
        self.ended.append((value, error))


def test_what_waits_for_nothing_ends_at_once() -> None:
    loop, command = Loop(), Command()
    begin(command.run(), loop.start, loop.done)
    assert (loop.waits, loop.ended) == ([], [(0, None)])
    assert command.seen == ["begun", "undone"]


def test_step_by_step() -> None:
    loop, command = Loop(), Command()
    begin(command.run(lambda: 1, lambda: 2), loop.start, loop.done)
    for number in (1, 2):
        assert loop.ended == []
        [(wait, resume)] = loop.waits
        loop.waits.clear()
        assert isinstance(wait, Job)
        resume(wait.work(), None)
        assert number in command.seen
    assert loop.ended == [(2, None)]


def test_what_goes_wrong_is_raised_where_it_waits() -> None:
    loop, command, error = Loop(), Command(), ValueError("gone")
    begin(command.run(lambda: 1, lambda: 2), loop.start, loop.done)
    [(_wait, resume)] = loop.waits
    resume(None, error)
    assert command.seen == ["begun", "gone", "undone"]
    assert loop.ended == [(None, error)]


def test_here() -> None:
    command = Command()
    assert run_here(command.run(lambda: 1, lambda: 2)) == 2
    assert command.seen == ["begun", 1, 2, "undone"]
    command = Command()
    with pytest.raises(ValueError, match="no"):
        run_here(command.run(lambda: 1, fail, lambda: 2))
    assert command.seen == ["begun", 1, "no", "undone"]


def test_a_value_whether_it_takes_time_or_not() -> None:
    assert run_here(value_of({"a": 1})) == {"a": 1}
    assert run_here(value_of(Command().run(lambda: 7))) == 7


def test_much_is_gone_through_in_turns() -> None:
    async def add_up(items: list[int], turn: float) -> int:
        total = 0
        async for item in in_turns(items, turn):
            total += item
        return total

    loop = Loop()
    begin(add_up([1, 2, 3], 60), loop.start, loop.done)
    assert (loop.waits, loop.ended) == ([], [(6, None)])
    begin(add_up([1, 2, 3], -1), loop.start, loop.done)
    for count in range(3):
        assert len(loop.ended) == 1, count
        wait, resume = loop.waits.pop()
        assert isinstance(wait, Turn)
        resume(None, None)
    assert loop.ended == [(6, None)] * 2
    assert run_here(add_up([1, 2, 3], -1)) == 6


def test_waiting_for_another_command() -> None:
    async def wait(other: Completion) -> str:
        await other
        return "there"

    other, loop = Completion(), Loop()
    for _ in range(2):
        begin(wait(other), loop.start, loop.done)
    for ended, resume in loop.waits:
        assert isinstance(ended, Completion)
        ended.then(lambda resume=resume: resume(None, None))  # type: ignore[misc]
    assert loop.ended == []
    other.set()
    assert loop.ended == [("there", None)] * 2
    # It has happened: nobody waits any more.
    assert run_here(wait(other)) == "there"
    with pytest.raises(RuntimeError):
        run_here(wait(Completion()))
