"""The daemon's state, which commands act on and all clients share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from memd.commands.descriptors import FdSets
from memd.config import Config
from memd.devices import register
from memd.devices.machine import Machine
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.qom import Tree
from memd.work import Command, Constant

if TYPE_CHECKING:
    from memd.devices.kinds import MachineKind
    from memd.devices.numa import NumaNodes
    from memd.pages.templates import Templates
    from memd.qapi import Schema
    from memd.standin.standin import StandIn


def standin_of(daemon: Daemon) -> StandIn:
    """The daemon's stand-in; raises `QMPError` where it is none."""
    if daemon.standin is None:
        raise QMPError("there is nothing of that kind: this is memd")
    return daemon.standin


class Daemon:
    """The state that outlives every client.

    Attributes:
        tree: the QOM tree; its `/objects` are the backends.
        config: the parsed command line.
        compat: whose texts and introspection are given.
        fdsets: the descriptor sets of `add-fd`.
        accel: the accelerator in use, were there a guest (QAPI `Accelerator`).
        actions: what follows of a reboot, a shutdown, a panic and a watchdog (the
            members of `set-action`).
        shut_down: ends the daemon, for a reason out of QAPI's `ShutdownCause`.
        fail: ends it with an error, which is told on standard error.
        start_again: makes all anew that the command line describes.
        preconfig: whether it waits for x-exit-preconfig.
        complete: makes the machine, where that waits for x-exit-preconfig.
        nodes: its NUMA nodes until then; None where clients can't add any.
        autostart: whether it runs from then on.
        handlers: what runs the commands that need no client's session, by name.
        migration_capabilities: those that are switched on.
        reading_config: whether a blockdev-add is at its configuration file.
        machine_kind: the machine that was described; None for none that was.
        machine: its memory side, and what is plugged into it.
        lost: what ended with the last daemon, by id (QAPI `MemdevLoss`).
        standin: what it knows of a whole QEMU, None where it is memd alone.
        templates: the template store, None where there is none.
    """

    accel = "tcg"
    start_again: Callable[[], Command[None]] | None = None
    complete: Callable[[], Command[None]] | None = None
    nodes: NumaNodes | None = None
    reading_config = False
    machine_kind: MachineKind | None = None
    standin: StandIn | None = None
    templates: Templates | None = None

    def __init__(self, tree: Tree, config: Config) -> None:
        self.tree = tree
        self.config = config
        self.compat = config.compat
        self.fdsets = FdSets()
        self.shut_down: Callable[[str], None] = lambda reason: None
        self.fail: Callable[[str], None] = lambda text: None
        self.autostart = not config.stopped
        self.handlers: Mapping[str, Callable[[Daemon, JSONObject], JSON]] = {}
        register(tree)
        self.machine = Machine(tree, config.machine)
        self.machine.deny_private_discard = config.deny_private_discard
        self.lost: dict[str, JSONObject] = {}
        self._constants: dict[str, Constant] = {}
        self._set_first_state()

    def _set_first_state(self) -> None:
        config = self.config
        self.actions = {
            "reboot": "reset",
            "shutdown": "poweroff",
            "panic": "shutdown",
            "watchdog": "reset",
            **config.actions,
        }
        self.preconfig = config.preconfig
        self.migration_capabilities: frozenset[str] = frozenset()
        self._run_state = "prelaunch" if config.stopped or config.preconfig else "running"
        if config.incoming is not None:
            self._run_state = "inmigrate"

    @property
    def run_state(self) -> str:
        """Whether the machine runs, and if not, why (QAPI `RunState`)."""
        return self._run_state

    @run_state.setter
    def run_state(self, state: str) -> None:
        self._run_state = state
        self.machine.set_running(state == "running")

    def reset(self) -> None:
        """Be as at the start, with an empty machine and the objects that there are."""
        self.fdsets.close()
        self._set_first_state()
        self.machine = self.machine.renewed()

    def constant(self, name: str, make: Callable[[], JSON]) -> Constant:
        """The value of a command that always answers the same, made when first asked for."""
        constant = self._constants.get(name)
        if constant is None:
            constant = self._constants[name] = Constant(make())
        return constant

    @cached_property
    def schema(self) -> Schema:
        """The QAPI schema, read when it is first asked for: the greeting needs none."""
        if self.standin is not None:
            return self.standin.schema(test=self.config.test_faults)
        from memd.qapi import load_schema

        return load_schema(self.compat, test=self.config.test_faults)

    def has_command(self, name: str) -> bool:
        """Whether there is such a command; False, too, where the schema can't be read."""
        try:
            return name in self.schema.commands
        except Exception:
            # Who wants to run it is told why.
            return False

    def typed(self, command: str, options: JSONObject) -> JSONObject:
        """A command's arguments, which are given as texts, with their types; raises `QMPError`."""
        from memd.qapi.keyval import check_keyval

        return check_keyval(self.schema.commands[command].arguments, options)
