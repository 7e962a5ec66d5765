"""How far a conversation is, and what may happen to it: one table.

    NEGOTIATING ──negotiated──▶ COMMANDS
         │                         │
         ├──────client's end───────┤
         ▼                         ▼
       DRAINING: what it sent is still answered
         │                         │
         └─────────close───────────┘
                     ▼
                  CLOSED: nothing more is run

A command runs, or none does: `busy`. Only what stands in the table can happen;
anything else is a bug and raises `KeyError`, so that no other part of the
session has to ask whether it may.
"""

from __future__ import annotations

import enum


class Phase(enum.Enum):
    """How far a conversation is."""

    NEGOTIATING = "the client is to negotiate"
    COMMANDS = "the client may send commands"
    DRAINING = "the client sent its last byte, what it sent is still answered"
    CLOSED = "nothing more is run"


class Happening(enum.Enum):
    """What changes that."""

    NEGOTIATED = "qmp_capabilities succeeded"
    CLIENTS_END = "the client sends no more"
    CLOSE = "the daemon or the client ends it"


NEXT: dict[tuple[Phase, Happening], Phase] = {
    (Phase.NEGOTIATING, Happening.NEGOTIATED): Phase.COMMANDS,
    (Phase.NEGOTIATING, Happening.CLIENTS_END): Phase.DRAINING,
    (Phase.NEGOTIATING, Happening.CLOSE): Phase.CLOSED,
    (Phase.COMMANDS, Happening.CLIENTS_END): Phase.DRAINING,
    (Phase.COMMANDS, Happening.CLOSE): Phase.CLOSED,
    # What it sent before its end may be the negotiation.
    (Phase.DRAINING, Happening.NEGOTIATED): Phase.DRAINING,
    (Phase.DRAINING, Happening.CLOSE): Phase.CLOSED,
    # Both ends may end it.
    (Phase.CLOSED, Happening.CLOSE): Phase.CLOSED,
}
