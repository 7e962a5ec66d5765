"""Work beside the loop: results, refusals, surprises, many at once."""

from __future__ import annotations

import asyncio
import logging
import threading
from functools import partial

import pytest

from memd.errors import QMPError
from memd.outcome import JSON, Blocking
from memd.server.jobs import IDLE_THREADS, Jobs


async def result_of(job: Blocking) -> JSON:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[JSON] = loop.create_future()
    jobs = Jobs(loop)
    jobs.start(job, future.set_result)
    result = await asyncio.wait_for(future, 10)
    jobs.close()
    return result


def job_threads() -> int:
    return sum(thread.name == "memd-job" for thread in threading.enumerate())


async def test_work_runs_beside_the_loop_and_its_end_on_it() -> None:
    where: list[int] = []

    def work() -> int:
        where.append(threading.get_ident())
        return 7

    def finish(value: int) -> int:
        where.append(threading.get_ident())
        return value * 6

    assert await result_of(Blocking(work, finish)) == 42
    assert where[0] != threading.get_ident()
    assert where[1] == threading.get_ident()


async def test_an_end_may_ask_for_more_work() -> None:
    more = Blocking(lambda: 2, lambda value: value * 10)
    assert await result_of(Blocking(lambda: None, lambda _value: more)) == 20


async def test_a_refusal_is_undone_and_answered() -> None:
    undone: list[BaseException] = []
    refusal = QMPError("no memory")

    def work() -> None:
        raise refusal

    result = await result_of(Blocking(work, lambda _value: {}, undone.append))
    assert result is refusal
    assert undone == [refusal]


@pytest.mark.parametrize("where", ["work", "finish"])
async def test_a_surprise_is_logged_and_not_told(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_args: object) -> None:
        raise ZeroDivisionError("secret")

    def pass_on(*_args: object) -> None:
        return None

    job = Blocking(fail, pass_on) if where == "work" else Blocking(pass_on, fail)
    with caplog.at_level(logging.ERROR):
        result = await result_of(job)
    assert isinstance(result, QMPError)
    assert result.desc == "internal error, see the log"
    assert "secret" in caplog.text


async def test_a_stuck_job_keeps_no_other_waiting_and_threads_are_kept() -> None:
    loop = asyncio.get_running_loop()
    jobs = Jobs(loop)
    stuck = threading.Event()
    done: list[int] = []
    jobs.start(Blocking(stuck.wait, lambda _value: 0), done.append)
    for number in range(1, 41):
        jobs.start(Blocking(partial(int, number), lambda value: value), done.append)
    while len(done) < 40:
        await asyncio.sleep(0.001)
    assert sorted(done) == list(range(1, 41))
    stuck.set()
    while jobs.running:
        await asyncio.sleep(0.001)

    while job_threads() > IDLE_THREADS:
        await asyncio.sleep(0.001)
    jobs.close()
    while job_threads():
        await asyncio.sleep(0.001)
