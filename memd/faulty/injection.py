"""Puts fault injection in front of a daemon: `--test-faults`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from memd.commands.daemon import Daemon
from memd.faulty.dispatcher import FaultyDispatcher
from memd.faulty.hub import FaultyHub
from memd.faulty.kernel import FaultyHost, refusal_of


def faulty_hub(
    daemon: Daemon, control: Iterable[str], lifelines: Iterable[str]
) -> Callable[..., FaultyHub]:
    """What makes a `FaultyHub` of what a `Hub` is made of.

    Args:
        daemon: what commands are run on.
        control: as for `FaultyHub`.
        lifelines: as for `FaultyHub`.
    """

    def make(*what: Any) -> FaultyHub:
        hub = FaultyHub(control, lifelines, *what)
        daemon.tree.host = FaultyHost(refusal_of(hub.faults))
        hub.dispatch = FaultyDispatcher(hub.dispatch, daemon, hub)
        return hub

    return make
