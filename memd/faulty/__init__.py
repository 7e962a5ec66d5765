"""Fault injection, for the tests of clients: what `--test-faults` adds.

Nothing of this is imported otherwise. It stands in front of the daemon, not in
it: another hub makes other sessions, whose transport and dispatcher inject the
faults and leave the rest to the ordinary ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from memd.commands.daemon import Daemon
from memd.faulty.dispatcher import FaultyDispatcher
from memd.faulty.hub import FaultyHub
from memd.faulty.kernel import FaultyHost, refusal_of

__all__ = ["FaultyHub", "faulty_hub"]


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
