"""Begins daemons' lives without a process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from memd import backends
from memd.qom import Tree
from tests.differential.harness import settle
from tests.differential.kernel import mapped
from tests.manager import ServiceManager
from tests.persist.life import Begin, Life
from tests.stepping import close_all


@pytest.fixture(autouse=True)
def patient(patient_datagrams: None) -> None:
    """What a manager is told in this process comes to it, or is an error."""


@pytest.fixture
def tree() -> Iterator[Tree]:
    tree = Tree()
    backends.register(tree)
    yield tree
    close_all(tree)


@pytest.fixture
def begin(
    manage: Callable[..., ServiceManager], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Begin]:
    """Begins lives on one manager; nothing of the last one may be left."""
    here = os.getpid()
    manager = manage(capacity=64)
    before = mapped(here), threading.active_count()
    lives: list[Life] = []

    def begin(*objects: dict[str, Any], **config: Any) -> Any:
        lives.append(Life(manager, monkeypatch, objects, **config))
        return lives[-1].begin()

    yield begin
    if lives:
        lives[-1].kill()
    assert mapped(here) == before[0]
    # They end beside this one, and one of another test may have ended meanwhile.
    assert settle(threading.active_count, lambda now: now <= before[1]) <= before[1]
