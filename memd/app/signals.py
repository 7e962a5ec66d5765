"""Signals, from the daemon's start to its very end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable


class Signals:
    """Calls what is to be done for a signal, on the loop.

    asyncio's own way (`add_signal_handler`) lets a signal kill the process once the
    loop is closed, which takes the interpreter some milliseconds to survive.

    Args:
        loop: where they are called.
        actions: what to call, by the signal's number.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, actions: dict[int, Callable[[], None]]
    ) -> None:
        self._loop = loop
        self._actions = actions
        self._read, self._write = socket.socketpair()
        for sock in (self._read, self._write):
            sock.setblocking(False)
        # Whichever thread of the process the kernel interrupts, a byte is written.
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in actions:
            signal.signal(number, _nothing)
            signal.siginterrupt(number, False)
        loop.add_reader(self._read.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        with contextlib.suppress(BlockingIOError, InterruptedError):
            for number in self._read.recv(256):
                action = self._actions.get(number)
                if action is not None:
                    action()

    def close(self) -> None:
        """Have the signals do nothing from now on."""
        signal.set_wakeup_fd(-1)
        self._loop.remove_reader(self._read.fileno())
        self._read.close()
        self._write.close()


def _nothing(_number: int, _frame: object) -> None:
    """A handler: the byte that was written says it all."""
