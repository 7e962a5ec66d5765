"""Commands about the machine that is not there: its state, name, kind and power.

memd runs no guest. What a management stack asks of one is answered as by a
QEMU that was started without a machine, and `stop` and `cont` keep the state
that they are there to change. Which events there are, which states, and all texts were observed
on QEMU 10.0.2.
"""

from __future__ import annotations

import os

from memd.commands.daemon import Daemon
from memd.errors import QMPError
from memd.json_types import JSON, JSONObject
from memd.work import Event, Events, Outcome

_RESET = "host-qmp-system-reset"
_GUEST = "guest-shutdown"


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
    name = daemon.config.name
    return {} if name is None else {"name": name}


def query_target(daemon: Daemon, args: JSONObject) -> JSON:
    """The target's architecture, in QEMU's name for that of this host."""
    machine = os.uname().machine
    return {"arch": {"armv7l": "arm", "ppc64le": "ppc64"}.get(machine, machine)}


def query_kvm(daemon: Daemon, args: JSONObject) -> JSON:
    """Whether KVM is used; QEMU knows it on every machine, also on one that has it not."""
    return {"enabled": daemon.accel == "kvm", "present": True}


def set_action(daemon: Daemon, args: JSONObject) -> JSON:
    """`set-action`: what follows of a reset, a shutdown, a panic, a watchdog."""
    daemon.actions.update(args)
    return {}


def watchdog_set_action(daemon: Daemon, args: JSONObject) -> JSON:
    """`watchdog-set-action`: what follows of a watchdog."""
    daemon.actions["watchdog"] = args["action"]
    return {}


def system_powerdown(daemon: Daemon, args: JSONObject) -> JSON:
    """`system_powerdown`: ask the guest to shut down."""
    machine = daemon.machine
    if machine.config.type != "none":

        def comply() -> None:
            # Later, so that the answer is on its way before the daemon ends.
            machine.later(0.0, lambda: _guest_shuts_down(daemon))

        machine.guest.ask(comply, lambda: None)
    return Outcome(events=(Event("POWERDOWN"),))


def _guest_shuts_down(daemon: Daemon) -> None:
    if daemon.run_state != "running":
        return
    daemon.machine.emit(_shutdown(daemon, guest=True, reason=_GUEST))
    if daemon.actions["shutdown"] == "poweroff":
        daemon.shut_down(_GUEST)


def _shutdown(daemon: Daemon, *, guest: bool, reason: str) -> Events:
    """The machine shuts down: the events that tell of it. Where it stays, it stands still."""
    told = Event("SHUTDOWN", {"guest": guest, "reason": reason})
    if daemon.actions["shutdown"] == "poweroff" or daemon.run_state != "running":
        return (told,)
    daemon.run_state = "shutdown"
    return (told, Event("STOP"))


def system_reset(daemon: Daemon, args: JSONObject) -> JSON:
    """`system_reset`: reset the machine, or shut it down where that is what follows."""
    if daemon.actions["reboot"] == "shutdown":
        events = _shutdown(daemon, guest=False, reason=_RESET)
        ends = daemon.actions["shutdown"] == "poweroff"
        return Outcome(events=events, shutdown=_RESET if ends else None)
    if daemon.run_state not in ("running", "inmigrate", "finish-migrate"):
        daemon.run_state = "prelaunch"
    return Outcome(events=(Event("RESET", {"guest": False, "reason": _RESET}),))


def system_wakeup(daemon: Daemon, args: JSONObject) -> JSON:
    """`system_wakeup`: raise `QMPError`, as no guest is suspended."""
    if not daemon.config.machine.has_power_management:
        raise QMPError("wake-up from suspend is not supported by this guest")
    raise QMPError("Unable to wake up: guest is not in suspended state")
