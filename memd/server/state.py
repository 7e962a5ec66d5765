"""How far a connection is, and what may happen to it: one table.

    OPEN ──finish──▶ FINISHING: what was written is still sent, nothing is read
      │                  │
      └──────close───────┤
                         ▼
                      CLOSED: its stream is closed

An open connection reads, unless its session has paused it (a command runs), or it is full
(the client does not read what is written), or it waits for its turn (other clients send
much at once). Each of these is set and cleared by itself, and reading goes on when none is
set. What the client has said last, or that it is gone, is its session's matter, which then
finishes or closes the connection; what fails here closes it.
"""

from __future__ import annotations

import enum


class Phase(enum.Enum):
    """How far a connection is."""

    OPEN = "bytes come and go"
    FINISHING = "what was written is still sent"
    CLOSED = "nothing comes or goes"


class Happening(enum.Enum):
    """What changes that."""

    FINISH = "the session has nothing more to say"
    CLOSE = "the client is gone, or cut off, or all is sent"


NEXT: dict[tuple[Phase, Happening], Phase] = {
    (Phase.OPEN, Happening.FINISH): Phase.FINISHING,
    (Phase.OPEN, Happening.CLOSE): Phase.CLOSED,
    # Both the client's end and the daemon's may finish it.
    (Phase.FINISHING, Happening.FINISH): Phase.FINISHING,
    (Phase.FINISHING, Happening.CLOSE): Phase.CLOSED,
    # The session may learn of it late. That it is closed once is `Connection.close`'s care.
    (Phase.CLOSED, Happening.FINISH): Phase.CLOSED,
}
