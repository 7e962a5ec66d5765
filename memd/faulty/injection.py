"""Puts fault injection in front of a daemon: `--test-faults`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from memd.commands.daemon import Daemon
from memd.faulty.dispatcher import FaultyDispatcher
from memd.faulty.hub import FaultyHub
from memd.faulty.kernel import FaultyHost, refusal_of


def faulty_hub(
    daemon: Daemon, control: Iterable[str], lifelines: Iterable[str], *what: Any
) -> FaultyHub:
    """A hub, dispatcher and host with faults; the arguments are those of `FaultyHub`."""
    hub = FaultyHub(daemon, control, lifelines, *what)
    daemon.tree.host = FaultyHost(refusal_of(hub.faults))
    hub.dispatch = FaultyDispatcher(hub.dispatch, hub)
    return hub
