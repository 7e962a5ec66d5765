"""What a command comes to: its value, its events, or work that may block.

A handler returns a plain JSON value in the common case, an `Outcome` where
events, descriptors or the daemon's end go with it, a `Constant` where the value
never changes, an `Encoded` where it is long, and a `Blocking` where the kernel
may take its time. Nothing here knows sockets or threads: the session and the
server decide where and when things run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

JSON = Any
"""A JSON value: dict, list, str, int, float, bool or None."""


class Event:
    """An asynchronous message (QMP specification, section 2.5)."""

    __slots__ = ("data", "name")

    def __init__(self, name: str, data: dict[str, JSON] | None = None) -> None:
        self.name = name
        self.data = data


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
        events: tuple[Event, ...] = (),
        fds: tuple[int, ...] = (),
        shutdown: str | None = None,
    ) -> None:
        self.value = {} if value is None else value
        self.events = events
        self.fds = fds
        self.shutdown = shutdown


class Constant:
    """A value that is encoded once: it never changes while the daemon lives.

    Or is so large that it comes encoded from beside the event loop.

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
        value: makes the same as a value.
    """

    __slots__ = ("text", "value")

    def __init__(self, text: bytes, value: Callable[[], JSON]) -> None:
        self.text = text
        self.value = value


class Blocking:
    """Work that may take long, to be run beside the event loop.

    Attributes:
        work: runs in a worker thread; touches no shared state but the kernel's.
        finish: runs on the event loop with what `work` returned, and gives the
            command's value or `Outcome`, or another `Blocking` that is to run
            before there is one; it may raise `QMPError`.
        failed: runs on the event loop when `work` raised, to undo what was
            prepared (a reserved id); the exception is answered afterwards.
        progress: asked on the event loop a few times a second while `work`
            runs; gives an event that tells how far it has come, or None.
        cancel: called on the event loop, it makes `work` raise soon; None
            where nothing can.
        copies: bytes that `work` has to hold copies of, roughly; where that is
            much, it waits for others that do.
    """

    __slots__ = ("cancel", "copies", "failed", "finish", "progress", "work")

    def __init__(
        self,
        work: Callable[[], Any],
        finish: Callable[[Any], JSON],
        failed: Callable[[BaseException], None] = lambda _error: None,
        *,
        progress: Callable[[], Event | None] | None = None,
        cancel: Callable[[], None] | None = None,
        copies: int = 0,
    ) -> None:
        self.work = work
        self.finish = finish
        self.failed = failed
        self.progress = progress
        self.cancel = cancel
        self.copies = copies

    def watched(self, ended: Callable[[BaseException | None], None]) -> Blocking:
        """The same work, and whatever it leads to.

        Args:
            ended: told on the event loop once there is a value (None), or why
                there is none.
        """

        def finish(result: Any) -> JSON:
            try:
                value = self.finish(result)
            except BaseException as error:
                ended(error)
                raise
            if type(value) is Blocking:
                return value.watched(ended)
            ended(None)
            return value

        def failed(error: BaseException) -> None:
            ended(error)
            self.failed(error)

        return self.ending(finish, failed)

    def ending(
        self,
        finish: Callable[[Any], JSON],
        failed: Callable[[BaseException], None] | None = None,
    ) -> Blocking:
        """The same work with another end; see `Blocking`."""
        return Blocking(
            self.work,
            finish,
            self.failed if failed is None else failed,
            progress=self.progress,
            cancel=self.cancel,
            copies=self.copies,
        )
