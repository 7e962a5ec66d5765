"""A daemon and a client for handlers under test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from memd import backends
from memd.commands.daemon import Daemon
from memd.commands.dispatcher import Dispatcher
from memd.commands.table import HANDLERS
from memd.compat import Compat
from memd.config import Config, Report
from memd.errors import QMPError
from memd.json_types import JSON
from memd.places import Places
from memd.qom import Tree
from memd.session import Monitor, Peer, Session
from memd.session.descriptor import Descriptor
from memd.work import value_of
from tests.stepping import Running, made


class Client:
    """As much of a session as commands see."""

    def __init__(self, *, negotiated: bool = True) -> None:
        self.negotiated = negotiated
        self.oob_enabled = False
        self.peer: Peer | None = None
        self.monitor = Monitor("m0")
        self.fds: list[int] = []

    def negotiate(self, oob: bool) -> None:
        self.negotiated = True
        self.oob_enabled = oob

    def take_fd(self) -> Descriptor | None:
        return Descriptor(self.fds.pop(), Places(), 0) if self.fds else None

    def check_descriptor_to_send(self) -> None:
        """There is room."""


def make_session() -> Session:
    """A client, for handlers that ask who it is."""
    return cast(Session, Client())


def make_local_session() -> Session:
    """A client over a UNIX socket, for handlers that pass descriptors."""
    client = Client()
    client.peer = Peer(1, 0, 0, frozenset())
    return cast(Session, client)


def daemon_of(tree: Tree, **options: Any) -> Daemon:
    """A daemon with that tree.

    Args:
        options: attributes of its `Config`.
    """
    config = Config(Report("memd"))
    config.compat = tree.compat
    for name, value in options.items():
        setattr(config, name, value)
    return Daemon(tree, config)


def make_daemon(compat: Compat = Compat.V10_0, **options: Any) -> Daemon:
    tree = Tree(compat)
    backends.register(tree)
    daemon = daemon_of(tree, **options)
    # As once all of a command line is there.
    daemon.machine.started = True
    return daemon


class Console:
    """A client at a daemon's dispatcher: `console("query-name")`."""

    def __init__(
        self, compat: Compat = Compat.V10_0, handlers: Mapping[str, Any] = HANDLERS, **more: Any
    ) -> None:
        self.daemon = make_daemon(compat, **more)
        self.client = Client()
        self.dispatch = Dispatcher(self.daemon, handlers)

    def __call__(self, name: str, /, *, oob: bool = False, **arguments: Any) -> JSON:
        """Run a command; underscores in the arguments' names are dashes."""
        return made(self.begin(name, oob=oob, **arguments).finish())

    def begin(self, name: str, /, *, oob: bool = False, **arguments: Any) -> Running:
        """Run a command up to what it waits for, if anything."""
        given = {key.replace("_", "-"): value for key, value in arguments.items()}
        return Running(value_of(self.dispatch(self.client, name, given, oob)))  # type: ignore[arg-type]

    def refusal(self, name: str, /, *, oob: bool = False, **arguments: Any) -> tuple[str, str]:
        """Run a command that is to be refused; its class and text."""
        try:
            value = self(name, oob=oob, **arguments)
        except QMPError as error:
            return error.error_class, error.desc
        raise AssertionError(f"{name} was not refused, it returned {value!r}")
