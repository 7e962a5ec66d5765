"""Work beside the loop: results, refusals, surprises, many at once."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from functools import partial

import pytest

from memd.errors import QMPError
from memd.outcome import JSON, Blocking
from memd.server.jobs import COPIES, IDLE_THREADS, Jobs


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


async def test_where_there_is_no_further_thread_jobs_wait_for_one_another(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    jobs = Jobs(loop)
    ready = asyncio.Event()
    # One to have a thread.
    jobs.start(Blocking(int, lambda value: value), lambda _value: ready.set())
    await ready.wait()

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    begin, done = threading.Event(), list[int]()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        jobs.start(Blocking(begin.wait, lambda _value: 0), done.append)
        for number in range(1, 6):
            jobs.start(Blocking(partial(int, number), lambda value: value), done.append)
        assert jobs.running == 6
        begin.set()
        while jobs.running:
            await asyncio.sleep(0.001)
        assert done == list(range(6))
        # The same once more: the one thread is free again.
        jobs.start(Blocking(lambda: 7, lambda value: value), done.append)
        while jobs.running:
            await asyncio.sleep(0.001)
    assert done[-1] == 7
    assert caplog.messages == ["cannot start a thread: commands wait for one another"]
    jobs.close()
    while job_threads():
        await asyncio.sleep(0.001)


async def test_where_there_is_no_thread_at_all_the_loop_does_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = Jobs(asyncio.get_running_loop())
    jobs.prepare()
    assert job_threads() == 0

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def fail() -> int:
        raise QMPError("no")

    done: list[JSON] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for number in range(3):
            job = Blocking(partial(int, number), lambda value: value, copies=COPIES)
            jobs.start(job, done.append)
        jobs.start(Blocking(fail, lambda value: value), done.append)
        assert (jobs.running, done) == (4, [])
        while jobs.running:
            await asyncio.sleep(0.001)
    assert done[:3] == [0, 1, 2]
    assert str(done[3]) == "no"
    assert "cannot start a thread: a command keeps others waiting" in caplog.messages
    # Once there are threads, they do it.
    jobs.start(Blocking(threading.get_ident, lambda value: value), done.append)
    while jobs.running:
        await asyncio.sleep(0.001)
    assert done[-1] != threading.get_ident()
    jobs.close()
    while job_threads():
        await asyncio.sleep(0.001)


async def test_a_thread_that_waits_keeps_nothing_of_its_last_job() -> None:
    class Large:
        pass

    loop = asyncio.get_running_loop()
    jobs = Jobs(loop)
    large = Large()
    gone = weakref.ref(large)
    done: list[JSON] = []
    jobs.start(Blocking(partial(id, large), lambda _value: {}), done.append)
    del large
    while not done:
        await asyncio.sleep(0.001)
    while gone() is not None:
        await asyncio.sleep(0.001)
    jobs.close()


async def test_a_shortage_is_told() -> None:
    def fail() -> None:
        raise OSError(24, "Too many open files")

    result = await result_of(Blocking(fail, lambda _value: {}))
    assert isinstance(result, QMPError)
    assert result.desc == "Too many open files"


async def test_a_refusal_keeps_nothing_of_what_was_refused() -> None:
    class Large:
        pass

    def refuse(_large: Large) -> None:
        raise QMPError("no") from None

    large = Large()
    gone = weakref.ref(large)
    gc.disable()
    try:
        result = await result_of(Blocking(partial(refuse, large), lambda _value: {}))
        del large
        while gone() is not None:
            await asyncio.sleep(0.001)
    finally:
        gc.enable()
    assert isinstance(result, QMPError)


async def test_copies_of_much_memory_are_made_one_after_the_other() -> None:
    loop = asyncio.get_running_loop()
    jobs = Jobs(loop)
    lock, now, most = threading.Lock(), 0, 0
    go_on = threading.Event()

    def copy() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        go_on.wait()
        with lock:
            now -= 1

    done: list[JSON] = []
    for _ in range(10):
        jobs.start(Blocking(copy, lambda _value: "large", copies=COPIES // 3), done.append)
    jobs.start(Blocking(lambda: None, lambda _value: "small"), done.append)
    while "small" not in done:
        await asyncio.sleep(0.001)
    assert done == ["small"]
    go_on.set()
    while jobs.running:
        await asyncio.sleep(0.001)
    assert done.count("large") == 10
    assert most <= 3
    # More than there may be is made alone.
    jobs.start(Blocking(lambda: None, lambda _value: "huge", copies=2 * COPIES), done.append)
    while jobs.running:
        await asyncio.sleep(0.001)
    assert done[-1] == "huge"
    jobs.close()
