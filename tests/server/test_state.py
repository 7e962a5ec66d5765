"""The table of a connection's phases."""

from __future__ import annotations

from memd.server.state import NEXT, Phase, Transition


def test_what_is_closed_stays_closed() -> None:
    assert {after for (phase, _), after in NEXT.items() if phase is Phase.CLOSED} == {Phase.CLOSED}


def test_whatever_is_open_can_be_closed() -> None:
    for phase in Phase:
        if phase is not Phase.CLOSED:
            assert NEXT[phase, Transition.CLOSE] is Phase.CLOSED


def test_a_connection_is_closed_once() -> None:
    assert (Phase.CLOSED, Transition.CLOSE) not in NEXT
