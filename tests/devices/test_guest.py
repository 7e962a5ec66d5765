"""The guest that is not there: when it does what."""

from __future__ import annotations

import pytest

from memd.config import MachineConfig
from memd.devices.guest import Guest
from tests.devices.bench import Clock


class Asked:
    """A guest, and what came of asking it."""

    def __init__(self, reacts: str, delay: int = 0, *, running: bool = True) -> None:
        self.clock = Clock()
        self.came: list[tuple[float, str]] = []
        config = MachineConfig("q35", guest_reacts=reacts, guest_delay_ms=delay)
        self.guest = Guest(config, self.clock.later)
        self.guest.set_running(running)

    def ask(self) -> None:
        def note(what: str) -> None:
            self.came.append((self.clock.now, what))

        self.guest.ask(lambda: note("yes"), lambda: note("no"))


@pytest.mark.parametrize(
    ("reacts", "came"),
    [
        ("immediately", [(0.0, "yes")]),
        ("after", [(0.25, "yes")]),
        ("refuses", [(0.0, "no")]),
        ("never", []),
    ],
)
def test_policies(reacts: str, came: list[tuple[float, str]]) -> None:
    asked = Asked(reacts, 250)
    asked.ask()
    assert asked.came == [], "not before who asks has its answer"
    asked.clock.wind(2)
    assert asked.came == came


def test_it_reacts_while_it_runs_only() -> None:
    asked = Asked("immediately", running=False)
    asked.ask()
    asked.clock.wind(2)
    assert asked.came == []
    asked.guest.set_running(True)
    asked.clock.wind()
    assert asked.came == [(2.0, "yes")]


def test_what_was_done_is_not_done_again() -> None:
    asked = Asked("immediately", running=False)
    asked.ask()
    for running in (True, False, True):
        asked.guest.set_running(running)
        asked.clock.wind(1)
    assert len(asked.came) == 1


def test_stopped_in_between() -> None:
    asked = Asked("after", 1000)
    asked.ask()
    asked.guest.set_running(False)
    asked.clock.wind(2)
    assert asked.came == []
    asked.guest.set_running(True)
    asked.clock.wind(2)
    assert [what for _when, what in asked.came] == ["yes"]


@pytest.mark.parametrize(
    ("reacts", "running", "still"),
    [
        ("immediately", True, False),
        ("immediately", False, True),
        ("refuses", True, False),
        ("never", True, True),
    ],
)
def test_who_stands_still(reacts: str, running: bool, still: bool) -> None:
    assert Asked(reacts, running=running).guest.stands_still is still


def test_what_has_run_does_not_stand_still() -> None:
    asked = Asked("immediately")
    asked.guest.set_running(False)
    assert not asked.guest.stands_still
