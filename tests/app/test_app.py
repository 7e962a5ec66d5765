"""The daemon as its command line composes it: its state, its start."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.app.starting import Start, run, status
from tests.differential.harness import settle
from tests.differential.server import Monitor


def test_run_states_at_the_start(start: Start) -> None:
    assert status(start()) == "running"
    assert status(start("-S")) == "prelaunch"
    server = start("-S", "--preconfig")
    monitor = server.monitor()
    assert monitor.execute("x-exit-preconfig") == {"return": {}}
    assert monitor.execute("query-status")["return"]["status"] == "prelaunch"
    monitor.execute("cont")
    assert [event["event"] for event in monitor.events] == ["RESUME"]


def test_what_it_is_called(start: Start) -> None:
    uuid = "6F2d0a5e-3c1b-4b57-9c3c-0a4b1c2d3e4f"
    monitor = start("-name", "guest=vm1,debug-threads=on", "-uuid", uuid).monitor()
    assert monitor.execute("query-name")["return"] == {"name": "vm1"}
    assert monitor.execute("query-uuid")["return"] == {"UUID": uuid.lower()}


def test_started_as_libvirt_starts_it(directory: Path) -> None:
    """Once the one that was started is gone: a socket, a pidfile, and nobody at its output."""
    path, pidfile = directory / "qmp.monitor", directory / "qmp.pid"
    options = [
        *["-S", "-no-user-config", "-nodefaults", "-nographic", "-machine", "none,accel=tcg"],
        *("-qmp", f"unix:{path},server=on,wait=off"),
        *("-pidfile", str(pidfile), "-daemonize"),
    ]
    # `run` reads both to their end, which comes when no process holds them.
    done = run(*options)
    pid = int(pidfile.read_text())
    try:
        assert done.returncode == 0
        assert done.stdout == ""
        monitor = Monitor(path)
        assert monitor.execute("query-target")["return"]["arch"] == os.uname().machine
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
    finally:
        os.kill(pid, signal.SIGTERM)
    assert monitor.read_event("SHUTDOWN")["data"] == {"guest": False, "reason": "host-signal"}
    assert monitor.at_end()
    monitor.close()
    assert settle(lambda: (path.exists(), pidfile.exists()), lambda now: now == (False, False)) == (
        False,
        False,
    )
