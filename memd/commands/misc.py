"""Descriptors left by clients, and the human monitor (`schemas/misc.json`)."""

from __future__ import annotations

from memd.commands.daemon import Daemon
from memd.commands.descriptors import take_descriptor
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.session import Session


def getfd(daemon: Daemon, session: Session, args: JSONObject) -> JSON:
    """Name the descriptor that came along; one of the same name is closed."""
    name = args["fdname"]
    descriptor = take_descriptor(session, name)
    if name[:1].isascii() and name[:1].isdigit():
        descriptor.close()
        raise QMPError("Parameter 'fdname' expects a name not starting with a digit")
    fds = session.monitor.fds
    if name in fds:
        fds[name].close()
    fds[name] = descriptor
    return {}


def closefd(daemon: Daemon, session: Session, args: JSONObject) -> JSON:
    """Close a named descriptor."""
    descriptor = session.monitor.fds.pop(args["fdname"], None)
    if descriptor is None:
        raise QMPError(f"File descriptor named '{args['fdname']}' not found")
    descriptor.close()
    return {}


def add_fd(daemon: Daemon, session: Session, args: JSONObject) -> JSON:
    """Put the descriptor that came along into a set."""
    opaque = args.get("opaque")
    descriptor = take_descriptor(session, opaque or "")
    return daemon.fdsets.add(descriptor, args.get("fdset-id"), opaque)


def remove_fd(daemon: Daemon, args: JSONObject) -> JSON:
    """Close a set's descriptors, or one of them."""
    daemon.fdsets.remove(args["fdset-id"], args.get("fd"))
    return {}


def human_monitor_command(daemon: Daemon, args: JSONObject) -> JSON:
    """Run one line of the human monitor, whose many words few clients need."""
    from memd.commands import hmp

    return hmp.run_line(daemon, args)
