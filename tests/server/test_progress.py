"""Events of a job that takes long: none of quick ones, none past the end."""

from __future__ import annotations

import asyncio

from memd.json_types import JSON
from memd.server.progress import watched
from memd.work import Event, Job


class Watching:
    """A job that is watched, and what is told of it."""

    def __init__(self, *events: Event | None) -> None:
        self._events = list(events)
        self.told: list[tuple[Event, ...]] = []
        self.results: list[JSON] = []
        job = Job(lambda: None, progress=self._ask)
        loop = asyncio.get_running_loop()
        self.done = watched(loop, job, self._end, self.told.append, interval=0.001)

    def _end(self, value: JSON, error: BaseException | None) -> None:
        self.results.append(value)

    def _ask(self) -> Event | None:
        # It may be asked once more before the test sees that it was asked for all.
        return self._events.pop(0) if self._events else None

    async def until_asked(self) -> None:
        while self._events:
            await asyncio.sleep(0.001)


async def test_events_come_while_it_runs() -> None:
    first, second, never = Event("A"), Event("B"), Event("C")
    watching = Watching(first, None, second)
    await watching.until_asked()
    watching.done({}, None)
    watching._events.append(never)
    await asyncio.sleep(0.01)
    assert watching.told == [(first,), (second,)]
    assert watching.results == [{}]


async def test_what_is_done_at_once_is_not_told_of() -> None:
    watching = Watching(Event("A"))
    watching.done({}, None)
    await asyncio.sleep(0.01)
    assert watching.told == []


async def test_what_can_not_tell_is_not_watched() -> None:
    def done(value: JSON, error: BaseException | None) -> None:
        raise AssertionError("it has not ended")

    def tell(_events: tuple[Event, ...]) -> None:
        raise AssertionError("there is nothing to tell")

    job = Job(lambda: None)
    assert watched(asyncio.get_running_loop(), job, done, tell) == done
