"""The commands of a stand-in."""

from __future__ import annotations

from operator import attrgetter

from memd.commands.daemon import Daemon
from memd.commands.standin import ACTS
from memd.compat import Compat
from memd.config import Config, Report
from memd.qom import Tree
from memd.standin.standin import REFUSE, StandIn


def test_what_runs_a_command_is_there() -> None:
    tree = Tree()
    standin = StandIn(tree, Compat.V10_0, None, REFUSE, machine="none")
    standin.host = Daemon(tree, Config(Report("memd")))
    assert ACTS.keys() <= standin.schema(test=False).commands.keys()
    for place in ACTS.values():
        assert callable(attrgetter(place)(standin))
