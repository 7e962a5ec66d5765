"""The result of a command, and what it may wait for.

A handler is a plain function where all that it does is quick; it returns a JSON
value, an `Outcome` where events, descriptors or the daemon's end go with it, a
`Constant` where the value never changes, or `Encoded` or `Pieces` where it is long.
Where something may wait it is a coroutine:

    content = await Job(lambda: read(path))

It releases in a `finally` what it has acquired, and a failure is raised at the
`await`. Such a coroutine is not an asyncio task: its caller steps it. It yields a
`Wait`; it is sent the result, or the exception is thrown in. Most end at the first
step. A session steps its client's command (its jobs
go to the server's threads); `follow` steps any other on the loop; `run_here` runs
one to its end at once. Nothing in here knows sockets or threads.
"""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from contextvars import copy_context
from time import monotonic
from types import CoroutineType
from typing import Any, Generic, TypeVar, cast

from memd.json_types import JSON, JSONObject

T = TypeVar("T")


class Event:
    """An asynchronous message (QMP specification, section 2.5)."""

    __slots__ = ("data", "name")

    def __init__(self, name: str, data: JSONObject | None = None) -> None:
        self.name = name
        self.data = data


Events = tuple[Event, ...]

Emit = Callable[[Events], None]
"""Sends events to all clients."""


class Outcome:
    """A command's value and what goes with it.

    Attributes:
        value: the `return` member.
        events: sent to every negotiated client before the answer.
        fds: descriptors that ride on the answer (SCM_RIGHTS). The session
            closes them once they are sent or the client is gone.
        shutdown: ends the daemon after this answer; the SHUTDOWN event's
            `reason`, such as "host-qmp-quit".
    """

    __slots__ = ("events", "fds", "shutdown", "value")

    def __init__(
        self,
        value: JSON = None,
        events: Events = (),
        fds: tuple[int, ...] = (),
        shutdown: str | None = None,
    ) -> None:
        self.value = {} if value is None else value
        self.events = events
        self.fds = fds
        self.shutdown = shutdown


class Constant:
    """A value that is encoded once: it never changes while the daemon lives.

    Attributes:
        value: the `return` member.
        encoded: `value` in JSON, once it has been asked for.
    """

    __slots__ = ("encoded", "value")

    def __init__(self, value: JSON) -> None:
        self.value = value
        self.encoded: bytes | None = None


class Encoded:
    """A value that comes in JSON, where that is made faster than from the value.

    Attributes:
        text: the `return` member in JSON, as the encoder would write it.
    """

    __slots__ = ("text",)

    def __init__(self, text: bytes) -> None:
        self.text = text

    def value(self) -> JSON:
        """The value."""
        import json

        return json.loads(self.text)


class Pieces:
    """An object of one member, a long text, which is made as its client reads it.

    Args:
        made: gives the text in JSON, some of it at a time, at once or by a job.
        end: is started once nothing more is made.

    Attributes:
        member: the member's name.
        is_stale: whether a client that does not read is not to be waited for.
    """

    __slots__ = ("_end", "_made", "is_stale", "member")

    def __init__(
        self,
        member: str,
        made: Iterator[bytes | Job[bytes]],
        end: Job[None],
        is_stale: Callable[[], bool],
    ) -> None:
        self.member = member
        self.is_stale = is_stale
        self._made = made
        self._end = end

    def next(self, start: Start, then: Resume) -> None:
        """Make more of it; `then` is called with that, or with b"" at the end, or an error."""
        try:
            piece = next(self._made, b"")
        except Exception as failed:
            then(None, failed)
            return
        if isinstance(piece, Job):
            start(piece, then)
        else:
            then(piece, None)

    def close(self, start: Start) -> None:
        """No more of it is wanted."""
        start(self._end, lambda _value, _error: None)


MEMORY: frozenset[int] = frozenset()
"""`Job.on` of a job that works on memory alone."""

ELSEWHERE = frozenset((0,))
"""`Job.on` of one that waits for another process or an unknown file system."""

SHARED_MEMORY = frozenset((-2,))
"""`Job.on` of one that has the kernel lock a file in memory, or a directory there, that other
processes may have open: one whose own memory is on a file system that stalls keeps it locked."""


class Job(Generic[T]):
    """Work for a thread; `await` it for what it returns or raises.

    For work that may wait for a file system, a device or another process, and for work
    that takes the kernel or the interpreter long. It goes on if its client disconnects; to
    be cancelled, `work` has to check a flag of its own.

    Attributes:
        work: runs in a worker thread; touches no shared state but the kernel's.
        on: the numbers of the file systems and devices that `work` may wait for
            (`hostmem/file_systems.py`): each has a bounded share of the threads.
        heavy: whether `work` goes through much memory or many bytes of a file.
        patience: seconds after which the command continues with None while `work`
            goes on; None to wait for its end.
        progress: asked on the event loop a few times a second while `work`
            runs; gives an event that tells how far it has come, or None.
        copies: bytes that `work` has to hold copies of, roughly; where that is
            much, it waits for others that do.
        release: whether it gives back what was taken: it is begun, however many of its
            user's wait.
        user: whose command it is of; None for the daemon's own.
        is_first: whether a client's command begins with it; no other one is ever refused.
    """

    __slots__ = (
        *("copies", "heavy", "is_first", "on", "patience", "progress", "release", "user"),
        "work",
    )

    def __init__(
        self,
        work: Callable[[], T],
        *,
        on: frozenset[int] = ELSEWHERE,
        heavy: bool = False,
        patience: float | None = None,
        progress: Callable[[], Event | None] | None = None,
        copies: int = 0,
        release: bool = False,
    ) -> None:
        self.work = work
        self.on = on
        self.heavy = heavy
        self.patience = patience
        self.progress = progress
        self.copies = copies
        self.release = release
        self.user: int | None = None
        self.is_first = False

    def __await__(self) -> Generator[Job[T], Any, T]:
        value: T = yield self
        return value


class Completion:
    """A one-shot event, for a command that waits for the end of something else."""

    __slots__ = ("_happened", "_then")

    def __init__(self) -> None:
        self._happened = False
        self._then: list[Callable[[], object]] = []

    def set(self) -> None:
        """It has happened: call those that wait."""
        self._happened = True
        waiting, self._then = self._then, []
        for each in waiting:
            each()

    def then(self, act: Callable[[], object]) -> None:
        """Have `act` called when it happens, or now if it has."""
        if self._happened:
            act()
        else:
            self._then.append(act)

    def __await__(self) -> Generator[Completion, None, None]:
        if not self._happened:
            yield self


class Turn:
    """The turns of other clients, before a command that has much to do goes on."""

    __slots__ = ()

    def __await__(self) -> Generator[Turn, None, None]:
        yield self


TURN = 0.001
"""Seconds after which a command that goes through many items lets others have theirs."""


async def in_turns(items: Iterable[T], turn: float = TURN) -> AsyncIterator[T]:
    """Go through items on the event loop, others having theirs after `turn` seconds."""
    end = monotonic() + turn
    for item in items:
        yield item
        if monotonic() > end:
            await Turn()
            end = monotonic() + turn


Wait = Job[Any] | Completion | Turn
"""The things that a command may wait for."""

Command = Coroutine[Wait, Any, T]
"""A command under way, that ends with a `T`."""

Resume = Callable[[Any, BaseException | None], None]
"""Continues what has waited: with a value, or with an exception."""

Start = Callable[[Wait, Resume], None]
"""Starts a wait; `Resume` is called at its end, later, on the event loop."""

Run = Callable[[Coroutine[Wait, Any, Any]], Awaitable[Any]]
"""Runs a command from asyncio code: returns its value, or raises."""


def _resume(command: Command[T], start: Start, done: Resume) -> Resume:
    """A function that steps a command until it waits again, or has ended."""

    # What wakes it may be another's command.
    run = copy_context().run

    def resume(value: Any, error: BaseException | None) -> None:
        try:
            following = run(command.send, value) if error is None else run(command.throw, error)
        except StopIteration as end:
            done(end.value, None)
        except Exception as failed:
            done(None, failed)
        else:
            start(following, resume)

    return resume


def follow(command: Command[T], wait: Wait, start: Start, done: Resume) -> None:
    """Step a command, that waits, to its end.

    Args:
        wait: what it has yielded.
        start: starts it, and its further waits.
        done: called with its value, or the exception that it raises.
    """
    start(wait, _resume(command, start, done))


def begin(command: Command[T], start: Start, done: Resume) -> None:
    """Run a command; one that does not wait has ended when this returns; see `follow`."""
    _resume(command, start, done)(None, None)


def run_here(command: Command[T]) -> T:
    """Run a command to its end, and its jobs in this very thread.

    Raises:
        RuntimeError: it waits for another command.
    """
    value: Any = None
    error: BaseException | None = None
    while True:
        try:
            wait = command.send(value) if error is None else command.throw(error)
        except StopIteration as end:
            return cast(T, end.value)
        value = error = None
        try:
            if isinstance(wait, Job):
                value = wait.work()
            elif isinstance(wait, Completion):
                raise RuntimeError("what it waits for would never end")
        except BaseException as failed:
            error = failed


async def value_of(result: JSON) -> JSON:
    """A handler's value, whether it is a coroutine or not."""
    return await result if type(result) is CoroutineType else result
