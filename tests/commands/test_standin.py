"""The commands of a stand-in."""

from __future__ import annotations

from operator import attrgetter

import pytest

from memd.commands.daemon import Daemon
from memd.commands.standin import ACTS
from memd.config import Config, Report
from memd.errors import QMPError
from memd.qom import Tree
from memd.standin.standin import StandIn
from memd.work import Turn
from tests.stepping import Running


def make() -> tuple[StandIn, Daemon]:
    tree = Tree()
    daemon = Daemon(tree, Config(Report("memd")))
    return StandIn(daemon), daemon


def test_what_runs_a_command_is_there() -> None:
    standin, _daemon = make()
    assert ACTS.keys() <= standin.schema(test=False).commands.keys()
    for place in ACTS.values():
        assert callable(attrgetter(place)(standin))


def test_others_have_turns_while_the_first_device_brings_its_registers() -> None:
    standin, daemon = make()
    adding = Running(standin.add_device(daemon.machine, {"driver": "virtio-rng-pci"}))
    turns = 0
    while isinstance(adding.wait, Turn) and turns < 5:
        turns += 1
        adding.step()
    assert turns == 5
    # Another client's command is run meanwhile.
    daemon.machine.migrating = True
    with pytest.raises(QMPError, match="not allowed while migrating"):
        adding.step()
