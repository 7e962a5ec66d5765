"""Commands about the conversation itself (`schemas/control.json`, `introspect.json`)."""

from __future__ import annotations

from memd import __version__
from memd.commands.daemon import Daemon
from memd.errors import command_not_found
from memd.json_types import JSON, JSONObject
from memd.session import Session
from memd.work import Event, Outcome

CAPABILITIES = ["oob"]


def greeting(daemon: Daemon) -> JSON:
    """The first message of a conversation (QMP specification, section 2.2)."""
    return {"QMP": {"version": query_version(daemon, {}), "capabilities": CAPABILITIES}}


def qmp_capabilities(daemon: Daemon, session: Session, args: JSONObject) -> JSON:
    """End the negotiation; a second one is refused, once its arguments are right."""
    if session.negotiated:
        raise command_not_found("Capabilities negotiation is already complete, command ignored")
    session.negotiate("oob" in args.get("enable", ()))
    return {}


def query_version(daemon: Daemon, args: JSONObject) -> JSON:
    """Whose behaviour this is, and whose work."""
    major, minor, micro = daemon.compat.version
    version = {"major": major, "minor": minor, "micro": micro}
    return {"qemu": version, "package": f"memd {__version__}"}


def query_commands(daemon: Daemon, args: JSONObject) -> JSON:
    """Every command's name."""
    return daemon.constant(
        "query-commands", lambda: [{"name": name} for name in daemon.schema.commands]
    )


def query_qmp_schema(daemon: Daemon, args: JSONObject) -> JSON:
    """The schema as clients introspect it."""
    from memd.qapi.introspect import introspect

    return daemon.constant("query-qmp-schema", lambda: introspect(daemon.schema))


def quit(daemon: Daemon, args: JSONObject) -> JSON:
    """End the daemon, once this is answered."""
    return Outcome(events=(shutdown_event("host-qmp-quit"),), shutdown="host-qmp-quit")


def shutdown_event(reason: str) -> Event:
    """The event before the end; `reason` is one of QAPI's `ShutdownCause`."""
    return Event("SHUTDOWN", {"guest": False, "reason": reason})
