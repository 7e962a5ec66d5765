"""FairScheduler: who sends much goes on later, one after another, and nobody is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from memd.server.scheduler import SLICE, FairScheduler


async def test_turns_shorten_the_more_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    # No time passes: a round ends when all have had their turn.
    monkeypatch.setattr("memd.server.scheduler.monotonic", lambda: 7.0)
    turns = FairScheduler(asyncio.get_running_loop())
    assert turns.begin() == 7 + SLICE
    for _ in range(99):
        turns.wait(lambda: None)
    assert turns.waiting == 99
    assert turns.begin() == 7 + SLICE / 100
    await asyncio.sleep(0)
    assert turns.waiting == 0


async def test_one_turn_at_most_is_claimed_between_two_looks_at_who_has_come() -> None:
    turns = FairScheduler(asyncio.get_running_loop())
    assert turns.claim()
    assert not turns.claim()
    await asyncio.sleep(0)
    turns.wait(lambda: None)
    assert not turns.claim()
    await asyncio.sleep(0)
    assert turns.claim()


class ShortRounds(FairScheduler):
    """One turn a round."""

    round = 0.0


async def test_one_after_another() -> None:
    """Between two rounds the loop looks at everything else."""
    turns = ShortRounds(asyncio.get_running_loop())
    done: list[str] = []

    def work(name: str, times: int) -> None:
        done.append(name)
        if times > 1:
            turns.wait(lambda: work(name, times - 1))

    turns.wait(lambda: work("a", 3))
    turns.wait(lambda: work("b", 2))
    turns.wait(lambda: work("c", 1))
    others = 0
    while turns.waiting:
        await asyncio.sleep(0)
        others += 1
    assert done == ["a", "b", "c", "a", "b", "a"]
    assert others >= len(done)


async def test_a_turn_that_fails_does_not_end_the_others() -> None:
    loop = asyncio.get_running_loop()
    told: list[object] = []
    loop.set_exception_handler(lambda _loop, context: told.append(context["exception"]))
    turns = FairScheduler(loop)
    failure = ZeroDivisionError()
    done: list[int] = []

    def fail() -> None:
        raise failure

    turns.wait(fail)
    turns.wait(lambda: done.append(1))
    for _ in range(4):
        await asyncio.sleep(0)
    assert done == [1]
    assert told == [failure]
    turns.wait(lambda: done.append(2))
    await asyncio.sleep(0)
    assert done == [1, 2]
