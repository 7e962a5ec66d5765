"""Checks a command and its arguments, and calls its handler."""

from __future__ import annotations

from collections.abc import Mapping
from types import CoroutineType
from typing import Any

from memd.commands.daemon import Daemon
from memd.commands.queries import is_query
from memd.commands.table import HANDLERS, SESSION_HANDLERS, Handler, SessionHandler
from memd.errors import QMPError, answer_to, command_not_found
from memd.json_types import JSON, JSONObject
from memd.session import Session
from memd.work import Command


class Dispatcher:
    """Runs commands on a daemon's state.

    Args:
        daemon: the state.
        handlers: those of all other commands.
        of_clients: those of the commands that need the client's session.
    """

    def __init__(
        self,
        daemon: Daemon,
        handlers: Mapping[str, Handler] = HANDLERS,
        of_clients: Mapping[str, SessionHandler] = SESSION_HANDLERS,
    ) -> None:
        self._daemon = daemon
        self._handlers = daemon.handlers = handlers
        self._of_clients = of_clients
        # The argument check of every command that was run so far.
        self._checks: JSONObject = {}

    def __call__(self, session: Session, name: str, arguments: JSONObject, oob: bool) -> JSON:
        """Run a command.

        Checks come in QEMU's order: the name, whether the client has
        negotiated, out-of-band, then the arguments (observed on QEMU 10.0.2).
        Before the last one comes whether the monitor lets it be run at all.

        Returns:
            the command's value or `Outcome`, or a `Command` that comes to one.

        Raises:
            QMPError: what the client is to be told.
        """
        check = self._checks.get(name)
        try:
            if check is None or oob or not session.negotiated or session.monitor.readonly:
                check = self._admit(session, name, arguments, oob)
            checked = check(arguments)
            handler = self._handlers.get(name)
            if handler is not None:
                result = handler(self._daemon, checked)
            elif name in self._of_clients:
                result = self._of_clients[name](self._daemon, session, checked)
            else:
                result = self.unmodelled(name, checked)
        except Exception as error:
            raise answer_to(error, name) from None
        return _answered(name, result) if type(result) is CoroutineType else result

    def unmodelled(self, name: str, arguments: JSONObject) -> JSON:
        """A command of the schema that there is no handler for.

        Raises:
            KeyError: there is none such here.
        """
        raise KeyError(name)

    def _admit(self, session: Session, name: str, arguments: JSONObject, oob: bool) -> Any:
        """The checks before the arguments'; returns the command's argument check."""
        if not session.negotiated and name != "qmp_capabilities":
            raise command_not_found("Expecting capabilities negotiation with 'qmp_capabilities'")
        command = self._daemon.schema.commands.get(name)
        if command is None:
            raise command_not_found(f"The command {name} has not been found")
        if oob and not command.allow_oob:
            raise QMPError(f"The command {name} does not support OOB")
        if self._daemon.preconfig and not command.allow_preconfig:
            raise QMPError(
                f"The command '{name}' is permitted only after machine initialization has completed"
            )
        if session.monitor.readonly and not is_query(name, arguments):
            raise QMPError(f"The command '{name}' is not permitted on a read-only monitor")
        check = self._checks[name] = self._daemon.schema.checker(name)
        return check


async def _answered(name: str, command: Command[JSON]) -> JSON:
    """Await a command; its exceptions become `QMPError`."""
    try:
        return await command
    except Exception as error:
        raise answer_to(error, name) from None
