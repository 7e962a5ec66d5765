"""What is allowed by default, and lines of the log that come seldom."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource

import pytest

from memd.server.limits import (
    LEFT_FROZEN,
    LOG_PAUSE,
    UNFROZEN,
    ConnectionBudget,
    LimitedLog,
    Limits,
    default_clients,
)
from tests.server.clock import Clock


def test_by_default_half_of_the_descriptors_are_for_clients() -> None:
    assert Limits().clients == default_clients() == os.sysconf("SC_OPEN_MAX") // 2
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, limits[1]))
    try:
        assert default_clients() == 250
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert Limits(clients=7).clients == 7


async def test_connections_share_a_count_and_turns() -> None:
    shared = ConnectionBudget(asyncio.get_running_loop())
    assert shared.held == shared.turns.waiting == 0
    assert shared.limits.held == 512 << 20
    shared.relieve(False)


def is_gone_through(each: object) -> bool:
    """Whether the garbage collector goes through an object."""
    return any(found is each for found in gc.get_objects())


async def test_the_garbage_collector_does_not_go_through_what_is_held() -> None:
    shared = ConnectionBudget(asyncio.get_running_loop())
    first: list[int] = []
    shared.hold(UNFROZEN)
    assert is_gone_through(first)
    shared.hold(1)
    assert not is_gone_through(first)
    second: list[int] = []
    shared.hold(UNFROZEN)
    assert is_gone_through(second)
    shared.hold(1)
    assert not is_gone_through(second)
    # Where some of it is held no more, what comes anew counts from there on.
    shared.hold(-UNFROZEN)
    third: list[int] = []
    shared.hold(UNFROZEN)
    assert is_gone_through(third)
    shared.hold(1)
    assert not is_gone_through(third)
    # Nor afterwards, until that has become too much.
    shared.hold(-shared.held)
    assert not is_gone_through(third)
    many: list[list[int]] = [[] for _ in range(LEFT_FROZEN + 1)]
    shared.hold(UNFROZEN + 1)
    assert not is_gone_through(many)
    shared.hold(-shared.held)
    assert is_gone_through(many)
    assert is_gone_through(first)


def test_a_line_on_the_same_matter_comes_once_a_while(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    seldom = LimitedLog(clock.loop)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            seldom.warn("many: %d", number)
        seldom.warn("other")
        clock.now += LOG_PAUSE
        seldom.warn("many: %d", 3)
        clock.now += LOG_PAUSE
        seldom.warn("many: %d", 4)
    assert caplog.messages == [
        "many: 0",
        "other",
        "many: 3 (as 2 times before, since the last line on it)",
        "many: 4",
    ]
