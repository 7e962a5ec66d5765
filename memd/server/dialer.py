"""A connection that memd makes itself, and makes again when it is lost."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from memd.errors import QMPError, answer_to
from memd.timer import Timer
from memd.work import Command, Job


class Dialer:
    """Connects after a delay, time and again until it succeeds (`reconnect`).

    Args:
        connect: gives a connected socket, or raises `QMPError`; runs in a thread.
        adopt: takes the socket.
        delay: seconds before each attempt.
        spawn: runs a command; see `memd.server.hub.Hub.spawn`.
        failed: told of the first failure after a success, or of the first at all.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connect: Callable[[], socket.socket],
        adopt: Callable[[socket.socket], None],
        delay: float,
        spawn: Callable[[Command[None], str], None],
        failed: Callable[[QMPError], None],
    ) -> None:
        self._connect = connect
        self._adopt = adopt
        self._delay = delay
        self._spawn = spawn
        self._failed = failed
        self._timer = Timer(loop, self._try)
        self._told = False
        self._closed = False

    def dial(self) -> None:
        """Connect after the delay, since there is no connection now."""
        if not self._closed:
            self._timer.start(self._delay)

    def refused(self, error: QMPError) -> None:
        """An attempt failed: say so once, and try again."""
        if not self._told:
            self._told = True
            self._failed(error)
        self.dial()

    def _try(self) -> None:
        self._spawn(self._attempt(), "connecting")

    async def _attempt(self) -> None:
        try:
            sock = await Job(self._connect)
        except Exception as error:
            self.refused(answer_to(error, "connecting"))
            return
        if self._closed:
            sock.close()
        else:
            self._told = False
            self._adopt(sock)

    def close(self) -> None:
        """Try no more."""
        self._closed = True
        self._timer.cancel()
