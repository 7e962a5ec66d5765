"""Limits on what the daemon holds for one client and for all; sizes in bytes.

`docs/limits.md` tells an operator of each, and what a client sees of it.
"""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from memd.fd_passing import MOST_FDS
from memd.places import SHARE, Places, operators
from memd.server.scheduler import FairScheduler

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

MESSAGE = 24 << 20
"""Default of `--max-message`: the largest command of memd's takes 22.4 MiB (16 MiB of
memory to write, in base64)."""

TOKENS = 16_384
"""Tokens in one message. QEMU takes 2,097,152; no command needs as many as a thousand, but
those that name a list of objects."""

UNREAD_DESCRIPTORS = 16
"""Descriptors on their way to one client, from which on its commands wait until it has
read them."""

OWN = 32
"""Descriptors that are not for clients but for what the daemon opens for itself, a quarter
of all at most."""

MOST_REFUSED = 32
"""Descriptors of a user's that were not taken and are not closed yet, from which on no further
ones are received."""

HELD_OUTPUT = 64 << 20
"""Default of `--max-held-output`: above the high water mark and the largest
single answer (16 MiB of memory, in base64) together."""

HELD = 512 << 20
"""Default of `--max-held`: eight messages of the size that QEMU takes."""

MIN_MESSAGE = 64 << 10
"""The smallest `--max-message`: what is read at once is gone through at once."""

MIN_TOKENS = 4096
"""The smallest `--max-tokens`: what is shorter is not counted."""

MIN_HELD = 1 << 20
"""The smallest `--max-held-output` and `--max-held`: some answers are 200 KiB."""

UNFROZEN = 8 << 20
"""Bytes that are held for clients which the garbage collector goes through: some 40,000
lists of unfinished messages, 5 ms. They are freed without it; with 500 MiB of them it took
0.2 s each time."""

LEFT_FROZEN = 20_000
"""Objects that the garbage collector may leave alone once the messages among them are gone,
beyond those of the first time. To go through all again takes 30 ms; never to would keep what
refers to itself."""

LOG_PAUSE = 1.0
"""Seconds between two lines of the log on the same matter."""


class Limits:
    """The limits.

    Attributes:
        clients: how many may be connected; 0 for any number.
        clients_per_user: of one user; 0 for any number, None for a share. Three quarters of
            them may be such that have not negotiated.
        descriptors: that clients have left with the daemon, or have been sent and have
            not read.
        descriptors_per_user: of one user's clients; 0 for any number, None for a share.
        message: bytes of all tokens in one message.
        tokens: in one message.
        held_output: what is held for one client that does not read, before it is
            disconnected.
        held: what is held for all clients together, unfinished messages and
            answers that nobody has read, before who holds most is disconnected.
        negotiation: seconds until a client has to have negotiated; 0 for ever.
    """

    def __init__(
        self,
        *,
        clients: int | None = None,
        clients_per_user: int | None = None,
        descriptors: int | None = None,
        descriptors_per_user: int | None = None,
        message: int = MESSAGE,
        tokens: int = TOKENS,
        held_output: int = HELD_OUTPUT,
        held: int = HELD,
        negotiation: float = 0,
    ) -> None:
        self.clients = default_clients() if clients is None else clients
        self.clients_per_user = clients_per_user
        if descriptors is None:
            # Two messages' at least.
            descriptors = max(32, os.sysconf("SC_OPEN_MAX") // 4)
        self.descriptors = descriptors
        self.descriptors_per_user = descriptors_per_user
        self.message = message
        self.tokens = tokens
        self.held_output = held_output
        self.held = held
        self.negotiation = negotiation


def default_clients() -> int:
    """Half of the descriptors that this process may have: the others are for memory."""
    return max(1, os.sysconf("SC_OPEN_MAX") // 2)


def _places(total: int, share: float, each: int | None, within: Places) -> Places:
    return Places(total, 1 if each is not None else share, each or 0, within=within)


class LimitedLog:
    """Writes warnings to the log, of each kind no more than one a second."""

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


class ConnectionBudget:
    """State that all connections share.

    Attributes:
        limits: what they may take.
        turns: when they are served.
        opened: places for all descriptors that are open for anybody.
        kept: places for all descriptors that are open for clients but for those of their
            connections: who has all that it may can still connect.
        clients: places for connections.
        descriptors: places for those that clients have left, or have been sent.
        refused: places for those that clients have sent, that are not taken, and that are not
            closed yet.
        unread: closed connections whose descriptors have not been read.
        held: bytes held for all of them.
        log: writes warnings.
        relieve: called when that is too much, or (with True) when there is no memory.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        limits: Limits | None = None,
        relieve: Callable[[bool], None] = lambda _at_once: None,
    ) -> None:
        self.limits = limits = Limits() if limits is None else limits
        self.turns = FairScheduler(loop)
        self.log = LimitedLog(loop)
        most = os.sysconf("SC_OPEN_MAX")
        most -= min(OWN, most // 4)
        self.opened = Places(most, SHARE)
        self.kept = Places(most - most // 8, SHARE, within=self.opened)
        self.clients = _places(limits.clients, SHARE, limits.clients_per_user, self.opened)
        self.descriptors = _places(
            limits.descriptors, 1 / 2, limits.descriptors_per_user, self.kept
        )
        self.refused = Places(within=self.opened)
        self._room = most - MOST_FDS
        # A command line has limits, and no loop.
        from memd.server.unread import Unread

        self.unread = Unread(loop, self.descriptors)
        self.held = 0
        self.relieve = relieve
        # What was held when last the garbage collector was told to leave it alone.
        self._frozen = 0
        # The objects that it left alone when nothing much was held any more; 0 for none.
        self._left = 0

    def make_room(self) -> None:
        """Have the system let this process have those of one more message."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        more = min(MOST_FDS, hard - soft)
        # The system may forbid it: there is that much less for clients.
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft + more, hard))
            self._room += more

    def takes_fds(self, user: int) -> bool:
        """Whether a user's client may send any, for which there has to be room to receive them."""
        if self.refused.of(user) >= MOST_REFUSED:
            return False
        return self.opened.taken <= self._room or user in operators()

    def hold(self, more: int) -> None:
        """Count bytes as held for clients; fewer than 0 as held no more."""
        self.held = held = self.held + more
        if held > self._frozen + UNFROZEN:
            gc.freeze()
            self._frozen = held
        elif held < self._frozen:
            self._frozen = held if held > UNFROZEN else 0
            if not self._frozen:
                self._let_collect()
        if held > self.limits.held:
            self.relieve(False)

    def _let_collect(self) -> None:
        """Have the garbage collector go through all again, if that is due."""
        left = gc.get_freeze_count()
        if not self._left:
            self._left = left
        elif left > self._left + LEFT_FROZEN:
            self._left = 0
            gc.unfreeze()
