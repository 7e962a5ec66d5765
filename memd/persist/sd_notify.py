"""Telling the service manager how the daemon is: sd_notify(3), spoken without its library.

A message is one datagram of `NAME=value` lines to the socket that $NOTIFY_SOCKET
names; descriptors may ride on it. Nothing here is imported where there is none.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from memd.hostmem.datagrams import PATIENCE, Datagrams

log = logging.getLogger("memd")

_LONGEST_ADDRESS = 107
"""Bytes of a socket's path, or of an abstract name (unix(7))."""


@contextmanager
def loss_logged() -> Iterator[None]:
    """Log where the manager can't be reached; it may be back for the next message."""
    try:
        yield
    except OSError as failed:
        log.warning("the service manager can't be reached: %s", os.strerror(failed.errno or 0))


class Notifier:
    """The way to the service manager.

    Args:
        address: what $NOTIFY_SOCKET holds: a path, or an abstract name after "@".
        patience: whole seconds that a sender who can wait does so.

    Raises:
        ValueError: it is neither, or too long for a socket's.
    """

    def __init__(self, address: str, patience: int = PATIENCE) -> None:
        if address[:1] not in ("/", "@") or len(address) < 2:
            raise ValueError(f"NOTIFY_SOCKET='{address}' is neither a path nor an abstract name")
        # A path ends with a zero byte, an abstract name begins with one (unix(7)).
        if len(os.fsencode(address)) > _LONGEST_ADDRESS + (address[0] == "@"):
            raise ValueError(
                f"NOTIFY_SOCKET='{address}' is too long: a socket's path has at most"
                f" {_LONGEST_ADDRESS} bytes"
            )
        name = "\0" + address[1:] if address[0] == "@" else address
        self._datagrams = Datagrams(name, patience)
        # Where nobody is there, the first message says so.
        with suppress(OSError):
            self._datagrams.connect()

    def send(self, *lines: str, fds: Sequence[int] = (), wait: bool = False) -> bool:
        """Send one message.

        Args:
            lines: `NAME=value` each.
            fds: descriptors that go with it; the manager gets duplicates.
            wait: whether the caller can wait for a manager that is behind with
                its reading.

        Returns:
            False where the manager has too much to read yet, or its address can't be
            looked up at once; nothing was sent then.

        Raises:
            OSError: the manager can't be reached.
        """
        about = []
        if fds:
            packed = struct.pack(f"{len(fds)}i", *fds)
            about.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, packed))
        try:
            self._datagrams.send("\n".join(lines).encode(), about, wait=wait)
        except BlockingIOError:
            return False
        return True

    def tell(self, *lines: str) -> None:
        """Send one message; that the manager can't be reached is logged."""
        with loss_logged():
            self.send(*lines)

    def barrier(self) -> None:
        """Wait until the manager has worked off all that was sent before (BARRIER=1).

        Raises:
            OSError: the manager can't be reached.
        """
        seen, sent = os.pipe2(os.O_CLOEXEC)
        try:
            try:
                told = self.send("BARRIER=1", fds=(sent,), wait=True)
            finally:
                os.close(sent)
            if told:
                # It closes its end once it has come to it.
                poll = select.poll()
                poll.register(seen, 0)
                poll.poll(PATIENCE * 1000)
        finally:
            os.close(seen)

    def close(self) -> None:
        """Say nothing more."""
        self._datagrams.close()


def monotonic_usec() -> str:
    """The line that a RELOADING=1 goes with (sd_notify(3)): the time, in microseconds."""
    return f"MONOTONIC_USEC={time.monotonic_ns() // 1000}"


def watchdog_period(environ: Mapping[str, str], pid: int) -> float:
    """Seconds within which the manager wants a sign of life; 0 for never.

    As sd_watchdog_enabled(3) tells: $WATCHDOG_USEC, unless $WATCHDOG_PID is
    another process's.
    """
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return 0.0
    value = environ.get("WATCHDOG_USEC", "")
    return int(value) / 1_000_000 if value.isdecimal() else 0.0


class Watchdog:
    """Signs of life, from the event loop: one that hangs gives none.

    Args:
        loop: the event loop.
        notifier: where they go.
        period: seconds within which one is expected; two are sent.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, notifier: Notifier, period: float) -> None:
        self._loop = loop
        self._notifier = notifier
        self._interval = period / 2
        self._timer = loop.call_soon(self._tick)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._interval, self._tick)
        # The manager may be back by the next one.
        with suppress(OSError):
            self._notifier.send("WATCHDOG=1")

    def close(self) -> None:
        """Give no more."""
        self._timer.cancel()
