"""What clients may take of the daemon, each of them and all together; sizes in bytes.

`docs/limits.md` tells an operator of each, and what a client sees of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from memd.server.turns import Turns

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

HELD_OUTPUT = 64 << 20
"""Default of `--max-held-output`: above the high water mark and the largest
single answer (16 MiB of memory, in base64) together."""

HELD = 512 << 20
"""Default of `--max-held`: eight messages of the size that QEMU takes."""

MIN_MESSAGE = 64 << 10
"""The smallest `--max-message`: what is read at once is gone through at once."""

MIN_HELD = 1 << 20
"""The smallest `--max-held-output` and `--max-held`: some answers are 200 KiB."""

LOG_PAUSE = 1.0
"""Seconds between two lines of the log on the same matter."""


class Limits:
    """What is allowed.

    Attributes:
        clients: how many may be connected.
        message: bytes of all tokens in one message; None for as many as QEMU takes.
        held_output: what is held for one client that does not read, before it is
            disconnected.
        held: what is held for all clients together, unfinished messages and
            answers that nobody has read, before who holds most is disconnected.
        negotiation: seconds until a client has to have negotiated; 0 for ever.
    """

    __slots__ = ("clients", "held", "held_output", "message", "negotiation")

    def __init__(
        self,
        *,
        clients: int | None = None,
        message: int | None = None,
        held_output: int = HELD_OUTPUT,
        held: int = HELD,
        negotiation: float = 0,
    ) -> None:
        self.clients = default_clients() if clients is None else clients
        self.message = message
        self.held_output = held_output
        self.held = held
        self.negotiation = negotiation


def default_clients() -> int:
    """Half of the descriptors that this process may have: the others are for memory."""
    return max(1, os.sysconf("SC_OPEN_MAX") // 2)


class Seldom:
    """Writes warnings to the log, of each kind no more than one a second."""

    __slots__ = ("_last", "_loop", "_untold")

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._last: dict[str, float] = {}
        self._untold: dict[str, int] = {}

    def warn(self, text: str, *values: object) -> None:
        """Write a line, unless one of the same `text` was written just now."""
        # A command line has limits, and no log yet.
        import logging

        now = self._loop.time()
        if now - self._last.get(text, -LOG_PAUSE) < LOG_PAUSE:
            self._untold[text] = self._untold.get(text, 0) + 1
            return
        self._last[text] = now
        untold = self._untold.pop(text, 0)
        if untold:
            text += f" (as {untold} times before, since the last line on it)"
        logging.getLogger("memd").warning(text, *values)


class Shared:
    """What the connections share.

    Attributes:
        limits: what they may take.
        turns: when they are served.
        held: bytes held for all of them.
        relieve: called when that is too much.
    """

    __slots__ = ("held", "limits", "relieve", "turns")

    def __init__(
        self,
        loop: AbstractEventLoop,
        limits: Limits | None = None,
        relieve: Callable[[], None] = lambda: None,
    ) -> None:
        self.limits = Limits() if limits is None else limits
        self.turns = Turns(loop)
        self.held = 0
        self.relieve = relieve
