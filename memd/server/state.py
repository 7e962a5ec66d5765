"""The states of a connection, and its transitions, in one table.

    OPEN ──finish──▶ FINISHING: what was written is still sent, nothing is read
      │                  │
      └──────close───────┤
                         ▼
                      CLOSED: its stream is closed

An open connection reads, unless its session has paused it (a command runs), or it is full
(the client does not read what is written), or it waits for its turn (other clients send
much at once). Each of these is set and cleared by itself, and reading goes on when none is
set. At the client's end of file or disconnect the session finishes or closes the
connection; an error on the socket closes it.
"""

from __future__ import annotations

import enum


class Phase(enum.Enum):
    """The state of a connection."""

    OPEN = "bytes come and go"
    FINISHING = "what was written is still sent"
    CLOSED = "nothing comes or goes"


class Transition(enum.Enum):
    """Changes of the state."""

    FINISH = "the session has nothing more to say"
    CLOSE = "the client is gone, or cut off, or all is sent"


NEXT: dict[tuple[Phase, Transition], Phase] = {
    (Phase.OPEN, Transition.FINISH): Phase.FINISHING,
    (Phase.OPEN, Transition.CLOSE): Phase.CLOSED,
    # The client's end and the daemon's may both finish it.
    (Phase.FINISHING, Transition.FINISH): Phase.FINISHING,
    (Phase.FINISHING, Transition.CLOSE): Phase.CLOSED,
    # The session may learn of it late. That it is closed once is `Connection.close`'s care.
    (Phase.CLOSED, Transition.FINISH): Phase.CLOSED,
}
