"""The hub of a daemon into which faults are injected."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from memd.commands.control import shutdown_event
from memd.commands.daemon import Daemon
from memd.errors import QMPError
from memd.faulty.connection import FaultyConnection
from memd.faulty.registry import FaultRegistry
from memd.faulty.replay import Script
from memd.faulty.session import ControlSession, FaultySession
from memd.faulty.transcript import Transcript
from memd.server.connection import Connection
from memd.server.hub import Hub
from memd.session import Monitor, Session


class FaultyHub(Hub):
    """Every client's connection, and what goes wrong with it.

    Args:
        daemon: what commands are run on.
        control: ids of the monitors whose clients are neither recorded nor
            counted, and with whom nothing goes wrong.
        lifelines: ids of monitors whose client was there when the daemon was
            started: of those in `control`, it ends when the client leaves.
        what: as for `Hub`.

    Attributes:
        daemon: as above.
        undelayed: set when the daemon ends or is reset, for commands that are delayed.
        faults: what goes wrong.
        transcript: what was said.
        script: what clients that connect are answered from, or None.
    """

    def __init__(
        self, daemon: Daemon, control: Iterable[str], lifelines: Iterable[str], *what: Any
    ) -> None:
        super().__init__(*what)
        self.daemon = daemon
        self.faults = FaultRegistry(daemon.tree.objects.account)
        self.transcript = Transcript()
        self.script: Script | None = None
        self._clients = 0
        self._control = frozenset(control)
        self._lifelines = self._control & frozenset(lifelines)
        self.undelayed = threading.Event()

    def give_up(self) -> None:
        """Have nothing run any more that is delayed, or that a client sent who has left."""
        self.undelayed.set()
        self.undelayed = threading.Event()
        for session in self.sessions():
            if session.connection.peer_gone():
                session.connection.close()

    def reset(self) -> None:
        """Forget everything that was told and said; clients are counted anew.

        Those who are there come first.
        """
        self.give_up()
        self.faults.clear()
        self.transcript.reset()
        self.script = None
        self._clients = 0
        for session in self.sessions():
            self._clients += 1
            session.number = self._clients

    def sessions(self, client: int | None = None) -> list[FaultySession]:
        """The sessions of the tested clients, in the order in which they connected.

        Args:
            client: only this one's.

        Raises:
            QMPError: that one is not there.
        """
        found = [
            each.session
            for each in self._connections
            if isinstance(each.session, FaultySession) and client in (None, each.session.number)
        ]
        if client is not None and not found:
            raise QMPError(f"client {client} is not connected")
        return sorted(found, key=lambda each: each.number)

    async def close(self, patience: float = 1.0) -> None:
        self.undelayed.set()
        for session in self.sessions():
            session.connection.drop()
        await super().close(patience)

    def _makers(self, monitor: Monitor) -> tuple[type[Connection], Callable[..., Session]]:
        if monitor.id in self._control:
            return Connection, ControlSession
        if monitor.human:
            return super()._makers(monitor)
        self._clients += 1
        replay = None if self.script is None else self.script.next()
        make = partial(FaultySession, self._clients, self.faults, self.transcript, replay)
        return FaultyConnection, make

    def _lost(self, connection: Connection) -> None:
        super()._lost(connection)
        if connection.session.monitor.id in self._lifelines and not self.ended.done():
            # Nobody else is there to end it, whatever becomes of the event.
            self.shut_down("host-signal")
            self.broadcast((shutdown_event("host-signal"),))
