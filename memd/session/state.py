"""The states of a session, and its transitions, in one table.

    NEGOTIATING ──negotiated──▶ COMMANDS
         │                         │
         ├──────client's end───────┤
         ▼                         ▼
       DRAINING: what it sent is still answered
         │                         │
         └─────────close───────────┘
                     ▼
                  CLOSED: nothing more is run

Whether a command runs is kept apart (`Session._running`). A transition that is not in
the table is a bug and raises `KeyError`, so other code need not check the state.
"""

from __future__ import annotations

import enum


class Phase(enum.Enum):
    """The state of a session."""

    NEGOTIATING = "the client has to negotiate"
    COMMANDS = "the client may send commands"
    DRAINING = "the client sent its last byte, what it sent is still answered"
    CLOSED = "nothing more is run"


class Transition(enum.Enum):
    """Changes of the state."""

    NEGOTIATED = "qmp_capabilities succeeded"
    CLIENTS_END = "the client sends no more"
    CLOSE = "the daemon or the client ends it"


NEXT: dict[tuple[Phase, Transition], Phase] = {
    (Phase.NEGOTIATING, Transition.NEGOTIATED): Phase.COMMANDS,
    (Phase.NEGOTIATING, Transition.CLIENTS_END): Phase.DRAINING,
    (Phase.NEGOTIATING, Transition.CLOSE): Phase.CLOSED,
    (Phase.COMMANDS, Transition.CLIENTS_END): Phase.DRAINING,
    (Phase.COMMANDS, Transition.CLOSE): Phase.CLOSED,
    # The negotiation may be among its last commands.
    (Phase.DRAINING, Transition.NEGOTIATED): Phase.DRAINING,
    (Phase.DRAINING, Transition.CLOSE): Phase.CLOSED,
    # A command that is delayed runs though its client has gone.
    (Phase.CLOSED, Transition.NEGOTIATED): Phase.CLOSED,
    # Client and daemon may both close it.
    (Phase.CLOSED, Transition.CLOSE): Phase.CLOSED,
}
