"""Who has not negotiated: found, timed out, left alone once it has."""

from __future__ import annotations

import asyncio
from typing import cast

from memd.server.connection import Connection
from memd.server.pending import GRACE, PendingNegotiation
from tests.server.clock import Clock
from tests.users import STRANGER


class Caller:
    """As much of a connection, and of its session, as is asked here."""

    def __init__(self, pending: PendingNegotiation) -> None:
        self._pending = pending
        self.negotiated = False
        self.user = STRANGER
        self.end = ""
        self.session = self
        pending.came(cast(Connection, self))

    def close(self) -> None:
        self.end = "closed"
        self._pending.left(cast(Connection, self))

    def cut_off(self, text: str) -> None:
        self.end = text


async def until_ended(callers: list[Caller]) -> None:
    while not all(caller.end for caller in callers):
        await asyncio.sleep(0.001)


def test_those_silent_for_long_come_first() -> None:
    clock = Clock()
    pending = PendingNegotiation(clock.loop, 0)
    first, second, third = (Caller(pending) for _ in range(3))
    assert not [*pending.overdue()]
    clock.now += GRACE
    Caller(pending)
    first.negotiated = True
    found = [(cast(object, each), user) for each, user in pending.overdue()]
    assert found == [(second, STRANGER), (third, STRANGER)]
    for each in (second, third):
        each.close()
    assert not [*pending.overdue()]


async def test_clients_that_do_not_negotiate_are_disconnected() -> None:
    pending = PendingNegotiation(asyncio.get_running_loop(), 0.01)
    callers = [Caller(pending) for _ in range(3)]
    callers[0].negotiated = True
    gone = callers.pop()
    gone.close()
    await until_ended(callers[1:])
    later = Caller(pending)
    await until_ended([later])
    assert callers[0].end == ""
    assert gone.end == "closed"
    assert later.end == callers[1].end == "capabilities were not negotiated in time"


async def test_the_end() -> None:
    pending = PendingNegotiation(asyncio.get_running_loop(), 0.001)
    caller = Caller(pending)
    pending.close()
    await asyncio.sleep(0.01)
    assert caller.end == ""
