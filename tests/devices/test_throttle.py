"""Events that come at most once a second."""

from __future__ import annotations

from memd.devices.throttle import Throttle
from memd.work import Event
from tests.devices.bench import Clock


class Heard:
    """A throttle, and what it let through when."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.heard: list[tuple[float, str]] = []
        self.throttle = Throttle(
            lambda event: self.heard.append((self.clock.now, event.name)), self.clock.later
        )

    def say(self, name: str, key: str = "k") -> None:
        self.throttle.send(key, Event(name))


def test_the_first_comes_at_once_and_the_last_when_the_second_is_over() -> None:
    heard = Heard()
    heard.say("a")
    heard.say("b")
    heard.say("c")
    assert heard.heard == [(0.0, "a")]
    heard.clock.wind(5)
    assert heard.heard == [(0.0, "a"), (1.0, "c")]


def test_what_was_held_holds_the_next_one() -> None:
    heard = Heard()
    heard.say("a")
    heard.say("b")
    heard.clock.wind(1.5)
    heard.say("c")
    heard.clock.wind(5)
    assert heard.heard == [(0.0, "a"), (1.0, "b"), (2.0, "c")]


def test_after_a_silence_it_comes_at_once_again() -> None:
    heard = Heard()
    heard.say("a")
    heard.clock.wind(3)
    heard.say("b")
    assert heard.heard == [(0.0, "a"), (3.0, "b")]


def test_keys_do_not_know_each_other() -> None:
    heard = Heard()
    heard.say("a")
    heard.say("b", "other")
    assert heard.heard == [(0.0, "a"), (0.0, "b")]
