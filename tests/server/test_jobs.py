"""Work beside the loop: results, refusals, surprises, many at once."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from functools import partial
from typing import Any

import pytest

from memd.errors import QMPError
from memd.places import SPARE
from memd.server.jobs import COPIES, HEAVY, HEAVY_ON_MEMORY, LIGHT, LINE, THREADS, UNKNOWN, Jobs
from memd.work import ELSEWHERE, MEMORY, SHARED_MEMORY, Event, Job
from tests.conftest import no_more_threads
from tests.differential.server import PATIENCE

USER, OTHER, OWN = (os.geteuid() + more for more in (1, 2, 3))
"""Neither is root or who runs the tests: for these some places are set aside."""


async def result_of(job: Job[Any]) -> Any:
    """What a job comes to, or raises."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
    jobs = Jobs(loop, no_events)
    jobs.start(job, lambda value, error: future.set_result((value, error)))
    value, error = await asyncio.wait_for(future, PATIENCE)
    jobs.close()
    if error is not None:
        raise error
    return value


def no_events(_events: tuple[Event, ...]) -> None:
    """What no client is told."""


class Results(list[Any]):
    """What jobs came to, values and errors."""

    def take(self, value: Any, error: BaseException | None) -> None:
        self.append(value if error is None else error)


_before: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def threads_before() -> None:
    """What other tests of this process have left idle is not counted."""
    _before.clear()
    _before.update(threading.enumerate())


def job_threads() -> int:
    return sum(thread.name == "memd-job" for thread in {*threading.enumerate()} - _before)


async def test_work_runs_beside_the_loop() -> None:
    assert await result_of(Job(threading.get_ident)) != threading.get_ident()


async def test_what_it_raises_is_handed_over() -> None:
    refusal = QMPError("no memory")

    def work() -> None:
        raise refusal

    with pytest.raises(QMPError) as caught:
        await result_of(Job(work))
    assert caught.value is refusal


async def test_a_stuck_job_keeps_no_other_waiting_and_idle_threads_end() -> None:
    loop = asyncio.get_running_loop()
    jobs = Jobs(loop, no_events)
    stuck = threading.Event()
    done = Results()
    jobs.start(Job(stuck.wait), done.take)
    for number in range(1, 41):
        jobs.start(Job(partial(int, number)), done.take)
    while len(done) < 40:
        await asyncio.sleep(0.001)
    assert sorted(done) == list(range(1, 41))
    stuck.set()
    while jobs.running:
        await asyncio.sleep(0.001)

    while job_threads():
        await asyncio.sleep(0.001)
    # The next job begins one again.
    jobs.start(Job(partial(int, 41)), done.take)
    while len(done) < 41:
        await asyncio.sleep(0.001)
    jobs.close()


async def test_where_there_is_no_further_thread_jobs_wait_for_one_another(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The thread stays, however long a busy machine takes from one job to the next.
    monkeypatch.setattr("memd.server.jobs.IDLE_SECONDS", PATIENCE)
    loop = asyncio.get_running_loop()
    jobs = Jobs(loop, no_events)
    ready = asyncio.Event()
    # One to have a thread.
    jobs.start(Job(int), lambda _value, _error: ready.set())
    await ready.wait()

    begin, done = threading.Event(), Results()
    with no_more_threads():
        jobs.start(Job(lambda: int(not begin.wait())), done.take)
        for number in range(1, 6):
            jobs.start(Job(partial(int, number)), done.take)
        assert jobs.running == 6
        begin.set()
        while jobs.running:
            await asyncio.sleep(0.001)
        assert done == list(range(6))
        # The same once more: the one thread is free again.
        jobs.start(Job(lambda: 7), done.take)
        while jobs.running:
            await asyncio.sleep(0.001)
    assert done[-1] == 7
    assert caplog.messages == ["cannot start a thread: commands wait for one another"]
    jobs.close()
    while job_threads():
        await asyncio.sleep(0.001)


async def test_where_there_is_no_thread_at_all_the_loop_does_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    jobs = Jobs(asyncio.get_running_loop(), no_events)
    jobs.prepare()
    assert job_threads() == 0

    def fail() -> int:
        raise QMPError("no")

    done = Results()
    with no_more_threads():
        for number in range(3):
            jobs.start(Job(partial(int, number), copies=COPIES), done.take)
        jobs.start(Job(fail), done.take)
        assert (jobs.running, done) == (4, [])
        while jobs.running:
            await asyncio.sleep(0.001)
    assert [value for value in done if type(value) is int] == [0, 1, 2]
    assert [str(value) for value in done if type(value) is QMPError] == ["no"]
    assert "cannot start a thread: a command keeps others waiting" in caplog.messages
    # Once there are threads, they do it.
    jobs.start(Job(threading.get_ident), done.take)
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
    jobs = Jobs(loop, no_events)
    large = Large()
    gone = weakref.ref(large)
    done = Results()
    jobs.start(Job(partial(id, large)), done.take)
    del large
    while not done:
        await asyncio.sleep(0.001)
    while gone() is not None:
        await asyncio.sleep(0.001)
    jobs.close()


async def test_copies_of_much_memory_are_made_one_after_the_other() -> None:
    loop = asyncio.get_running_loop()
    jobs = Jobs(loop, no_events)
    lock, now, most = threading.Lock(), 0, 0
    go_on = threading.Event()

    def copy() -> str:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        go_on.wait()
        with lock:
            now -= 1
        return "large"

    done = Results()
    for _ in range(10):
        jobs.start(Job(copy, copies=COPIES // 3), done.take)
    jobs.start(Job(lambda: "small"), done.take)
    while "small" not in done:
        await asyncio.sleep(0.001)
    assert done == ["small"]
    go_on.set()
    while jobs.running:
        await asyncio.sleep(0.001)
    assert done.count("large") == 10
    assert most <= 3
    # More than there may be is made alone.
    jobs.start(Job(lambda: "huge", copies=2 * COPIES), done.take)
    while jobs.running:
        await asyncio.sleep(0.001)
    assert done[-1] == "huge"
    jobs.close()


class Stalled:
    """Jobs that stay in their threads until they are let go."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._go_on = threading.Event()
        self._lock = threading.Lock()
        self.begun = 0
        self.done = Results()

    def _work(self) -> str:
        with self._lock:
            self.begun += 1
        self._go_on.wait()
        return "stalled"

    def start(self, count: int, on: frozenset[int], user: int, *, heavy: bool = False) -> None:
        for _ in range(count):
            job = Job(self._work, on=on, heavy=heavy)
            job.user = user
            self._jobs.start(job, self.done.take)

    async def are_begun(self, count: int) -> bool:
        """Whether just that many are: a thread may have its job and not be at its work."""
        while self.begun < count:
            await asyncio.sleep(0.001)
        return self.begun == count

    async def end(self) -> None:
        self._go_on.set()
        while self._jobs.running:
            await asyncio.sleep(0.001)
        self._jobs.close()


def one_file_system(number: int) -> frozenset[int]:
    return frozenset((number,))


async def test_a_file_system_that_stalls_has_its_share_and_no_more() -> None:
    jobs = Jobs(asyncio.get_running_loop(), no_events)
    stalled = Stalled(jobs)
    stalled.start(50, one_file_system(7), USER)
    stalled.start(50, one_file_system(7), USER, heavy=True)
    # What needs it among others waits with it.
    stalled.start(1, frozenset((7, 8)), USER)
    others = Results()
    for on in (MEMORY, one_file_system(8), one_file_system(9)):
        for heavy in (False, True):
            jobs.start(Job(lambda: "other", on=on, heavy=heavy), others.take)
    while len(others) < 6:
        await asyncio.sleep(0.001)
    assert await stalled.are_begun(LIGHT + HEAVY)
    assert not stalled.done
    await stalled.end()
    assert stalled.begun == 101


async def test_what_one_user_keeps_locked_in_memory_is_waited_for_by_that_user_alone() -> None:
    jobs = Jobs(asyncio.get_running_loop(), no_events)
    stalled = Stalled(jobs)
    for heavy in (False, True):
        stalled.start(50, SHARED_MEMORY, USER, heavy=heavy)
    others = Results()
    for user, on in ((USER, MEMORY), (USER, one_file_system(7)), (OTHER, SHARED_MEMORY)):
        for heavy in (False, True):
            job = Job(lambda: "other", on=on, heavy=heavy)
            job.user = user
            jobs.start(job, others.take)
    while len(others) < 6:
        await asyncio.sleep(0.001)
    assert await stalled.are_begun(LIGHT + HEAVY_ON_MEMORY)
    await stalled.end()
    assert stalled.begun == 100


@pytest.mark.parametrize("own", [0, OWN])
async def test_many_file_systems_that_stall_for_one_user(
    own: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: own)
    jobs = Jobs(asyncio.get_running_loop(), no_events)
    stalled = Stalled(jobs)
    for number in range(1, 60):
        stalled.start(2, one_file_system(number), USER)
    job = Job(lambda: "another user's", on=one_file_system(100))
    job.user = OTHER
    done = Results()
    jobs.start(job, done.take)
    while not done:
        await asyncio.sleep(0.001)
    assert await stalled.are_begun((THREADS - SPARE * len({0, own})) * 3 // 4)
    await stalled.end()
    assert stalled.begun == 118


@pytest.mark.parametrize("own", [0, OWN])
async def test_what_stalls_elsewhere_for_one_user_leaves_room_for_others(
    own: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: own)
    jobs = Jobs(asyncio.get_running_loop(), no_events)
    stalled = Stalled(jobs)
    stalled.start(UNKNOWN, ELSEWHERE, USER)
    job = Job(lambda: "another user's", on=ELSEWHERE)
    job.user = OTHER
    done = Results()
    jobs.start(job, done.take)
    while not done:
        await asyncio.sleep(0.001)
    assert await stalled.are_begun((UNKNOWN - SPARE * len({0, own})) * 3 // 4)
    await stalled.end()
    assert stalled.begun == UNKNOWN


async def test_next_in_line_is_who_has_fewest_under_way() -> None:
    jobs = Jobs(asyncio.get_running_loop(), no_events)
    on, go_on, ended = one_file_system(7), threading.Semaphore(0), Results()
    begun: list[int] = []

    def work(user: int) -> None:
        begun.append(user)
        go_on.acquire()

    users = [USER] * 20 + [OTHER]
    for user in users:
        job = Job(partial(work, user), on=on)
        job.user = user
        jobs.start(job, ended.take)
    for count in range(len(users) + 1):
        # One begins for each that has ended.
        while len(ended) < count or len(begun) < min(LIGHT + count, len(users)):
            await asyncio.sleep(0.001)
        go_on.release()
    # The one that came last is begun as soon as one has ended.
    assert begun.index(OTHER) == LIGHT
    jobs.close()


async def test_too_many_of_a_user_in_line() -> None:
    jobs = Jobs(asyncio.get_running_loop(), no_events)
    stalled = Stalled(jobs)
    stalled.start(LIGHT + LINE, one_file_system(7), USER)
    refused = Job(int, on=one_file_system(8))
    refused.user, refused.is_first = USER, True
    done = Results()
    jobs.start(refused, done.take)
    while not done:
        await asyncio.sleep(0.001)
    text = f"{LINE} commands of this client's user wait already, see docs/limits.md"
    assert str(done[0]) == text
    # Another user's is not, nor what gives something back, nor what goes on.
    others = Job(lambda: 1, on=one_file_system(8))
    releasing = Job(lambda: 2, on=one_file_system(8), release=True)
    following = Job(lambda: 3, on=one_file_system(8))
    others.is_first = releasing.is_first = True
    releasing.user = following.user = USER
    for job in (others, releasing, following):
        jobs.start(job, done.take)
    while len(done) < 4:
        await asyncio.sleep(0.001)
    assert sorted(done[1:]) == [1, 2, 3]
    # The end of the daemon begins nothing more.
    jobs.give_up_waiting()
    assert len(stalled.done) == LINE
    await stalled.end()
    assert stalled.begun == LIGHT


async def test_who_waits_goes_on_and_the_work_too() -> None:
    jobs = Jobs(asyncio.get_running_loop(), no_events)
    go_on, worked, done = threading.Event(), threading.Event(), Results()

    def work() -> int:
        go_on.wait()
        worked.set()
        return 7

    jobs.start(Job(work, patience=0.001), done.take)
    while not done:
        await asyncio.sleep(0.001)
    assert (done, worked.is_set(), jobs.running) == ([None], False, 1)
    go_on.set()
    while jobs.running:
        await asyncio.sleep(0.001)
    assert (done, worked.is_set()) == ([None], True)
    jobs.start(Job(lambda: 8, patience=60), done.take)
    while jobs.running:
        await asyncio.sleep(0.001)
    assert done == [None, 8]
    jobs.close()
