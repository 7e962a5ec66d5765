"""A command whose jobs the test runs when it wants to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from memd import backends
from memd.json_types import JSON
from memd.places import USER
from memd.qom import Tree
from memd.work import Command, Completion, Encoded, Job, Pieces, Resume, Turn, Wait


class Running:
    """A command that was begun, and has come to its end or to what it waits for.

    Args:
        command: what it raises before it waits is raised here.

    Attributes:
        wait: what it waits for; None once it has ended.
        value: what it came to.
    """

    def __init__(self, command: Command[Any]) -> None:
        self._command = command
        self.wait: Wait | None = None
        self.value: JSON = None
        self._advance(partial(command.send, None))

    @property
    def job(self) -> Job[Any]:
        """The job that it waits for."""
        assert isinstance(self.wait, Job)
        return self.wait

    def _advance(self, advance: Callable[[], Wait]) -> None:
        self.wait = None
        try:
            self.wait = advance()
        except StopIteration as end:
            self.value = end.value

    def resume(self, value: Any = None) -> None:
        """What it waits for is done, and came to that."""
        self._advance(partial(self._command.send, value))

    def fail(self, error: BaseException) -> None:
        """What it waits for has failed; raises what comes of it."""
        self._advance(partial(self._command.throw, error))

    def step(self) -> None:
        """Do what it waits for; raises what comes of it."""
        if isinstance(self.wait, Completion):
            happened = threading.Event()
            self.wait.then(happened.set)
            assert happened.wait(60)
            self.resume()
            return
        if isinstance(self.wait, Turn):
            self.resume()
            return
        try:
            value = self.job.work()
        except BaseException as error:
            self.fail(error)
        else:
            self.resume(value)

    def finish(self) -> JSON:
        """Run it to its end; its value."""
        while self.wait is not None:
            self.step()
        return self.value


def here(wait: Wait, resume: Resume) -> None:
    """Have a wait end at once, in this very thread: a `memd.work.Start`."""
    if isinstance(wait, Completion):
        wait.then(partial(resume, None, None))
        return
    if isinstance(wait, Turn):
        resume(None, None)
        return
    try:
        value = wait.work()
    except BaseException as error:
        resume(None, error)
    else:
        resume(value, None)


def made(value: JSON | Encoded | Pieces) -> JSON:
    """A command's value, all of it."""
    if isinstance(value, Encoded):
        return value.value()
    if isinstance(value, Pieces):
        text = made_text(value)
        value.close(here)
        return {value.member: text.decode()}
    return value


def made_text(pieces: Pieces) -> bytes:
    """The text that is made piece by piece; raises what making it raises."""
    text: list[bytes] = []
    errors: list[BaseException] = []

    def take(piece: bytes, error: BaseException | None) -> None:
        text.append(piece)
        errors.extend([error] if error else [])

    while not text or text[-1]:
        pieces.next(here, take)
        for error in errors:
            raise error
    return b"".join(text)


def close_all(tree: Tree) -> None:
    """Delete everything, as at the daemon's end."""
    Running(backends.close_all(tree, here)).finish()


@contextmanager
def as_user(user: int | None) -> Iterator[None]:
    """A context in which commands are those of a user's client."""
    token = USER.set(user)
    try:
        yield
    finally:
        USER.reset(token)
