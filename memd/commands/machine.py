"""Commands about the machine that is not there: its state, name and kind.

memd runs no guest. What a management stack asks of one is answered as by a
QEMU that was started without a machine, and `stop` and `cont` keep the state
that they are there to change.
"""

from __future__ import annotations

import os

from memd.commands.daemon import Daemon
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.work import Event, Outcome


def query_status(daemon: Daemon, args: JSONObject) -> JSON:
    """The run state."""
    return {"running": daemon.run_state == "running", "status": daemon.run_state}


def stop(daemon: Daemon, args: JSONObject) -> JSON:
    """Pause what runs, or will once it has come; otherwise nothing changes."""
    if daemon.run_state == "inmigrate":
        daemon.autostart = False
    if daemon.run_state != "running":
        return {}
    daemon.run_state = "paused"
    return Outcome(events=(Event("STOP"),))


def cont(daemon: Daemon, args: JSONObject) -> JSON:
    """Let run what is paused or not yet started, or what comes once it is here.

    Raises:
        QMPError: the machine was shut down.
    """
    if daemon.run_state == "running":
        return {}
    if daemon.run_state == "inmigrate":
        daemon.autostart = True
        return {}
    if daemon.run_state == "shutdown":
        raise QMPError("Resetting the Virtual Machine is required")
    daemon.run_state = "running"
    return Outcome(events=(Event("RESUME"),))


def query_name(daemon: Daemon, args: JSONObject) -> JSON:
    """The name of `--name`."""
    return {} if daemon.name is None else {"name": daemon.name}


def query_uuid(daemon: Daemon, args: JSONObject) -> JSON:
    """The UUID, all zero unless one was given."""
    return {"UUID": daemon.uuid}


def query_target(daemon: Daemon, args: JSONObject) -> JSON:
    """The target's architecture, in QEMU's name for that of this host."""
    machine = os.uname().machine
    return {"arch": {"armv7l": "arm", "ppc64le": "ppc64"}.get(machine, machine)}


def query_kvm(daemon: Daemon, args: JSONObject) -> JSON:
    """Whether this host has KVM for us, and whether it was asked for."""
    return {"enabled": daemon.kvm_enabled, "present": accelerator_is_usable("kvm")}


def accelerator_is_usable(name: str) -> bool:
    """Whether this host has an accelerator of its kernel, such as "kvm", for us."""
    return os.access(f"/dev/{name}", os.R_OK | os.W_OK)
