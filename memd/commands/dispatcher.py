"""From a command's name and arguments to what its handler makes of them.

The one place where any exception becomes an answer: a `QMPError` is what the
client is told; anything else is logged in full, and the client learns only
that it happened.
"""

from __future__ import annotations

import logging
from typing import Any

from memd.commands.daemon import Daemon
from memd.commands.queries import is_query
from memd.commands.table import HANDLERS, SESSION_HANDLERS
from memd.errors import QMPError, command_not_found, shortage
from memd.outcome import JSON
from memd.session import Session

log = logging.getLogger("memd")


class Dispatcher:
    """Runs commands on a daemon's state."""

    __slots__ = ("_checks", "_daemon")

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        # The argument check of every command that was run so far.
        self._checks: dict[str, Any] = {}

    def __call__(self, session: Session, name: str, arguments: dict[str, Any], oob: bool) -> JSON:
        """Run a command.

        Checks come in QEMU's order: the name, whether the client has
        negotiated, out-of-band, then the arguments (observed on QEMU 10.0.2).
        Before the last one comes whether the monitor lets it be run at all.

        Returns:
            the command's value, an `Outcome` or a `Blocking`.

        Raises:
            QMPError: what the client is to be told.
        """
        check = self._checks.get(name)
        try:
            if check is None or oob or not session.negotiated or session.monitor.readonly:
                check = self._admit(session, name, arguments, oob)
            checked = check(arguments)
            handler = HANDLERS.get(name)
            if handler is not None:
                return handler(self._daemon, checked)
            return SESSION_HANDLERS[name](self._daemon, session, checked)
        except QMPError as error:
            if error.hint:
                log.warning("%s: %s (%s)", name, error.desc, error.hint)
            raise
        except Exception as surprise:
            lack = shortage(surprise)
            if lack is not None:
                log.warning("%s: %s", name, lack.desc)
                raise lack from None
            log.exception("%s failed unexpectedly", name)
            raise QMPError("internal error, see the log") from None

    def _admit(self, session: Session, name: str, arguments: dict[str, Any], oob: bool) -> Any:
        """The rarer checks; gives the command's argument check."""
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
        check = self._checks.get(name)
        if check is None:
            check = self._checks[name] = self._daemon.schema.checker(name)
        return check
