"""What the kernel says of the daemon's process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.conftest import NOT_HERE
from tests.systemd.machine import Machine

CAP_SYS_RESOURCE = 24


def test_namespaces(running: Machine) -> None:
    """Networks, IPC objects, mounts and devices are not those of the machine."""
    pid = running.pid_of("memd.service")
    for kind, setting in (("net", "PrivateNetwork"), ("ipc", "PrivateIPC"), ("mnt", "PrivateTmp")):
        of_machine = os.readlink(f"/proc/{running.leader}/ns/{kind}")
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != of_machine, f"{setting}=yes does not hold"


def test_rights(running: Machine) -> None:
    """No capability, none that can be gained, and the user memd."""
    pid = running.pid_of("memd.service")
    rows = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    status = dict(row.split(":\t", 1) for row in rows)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    user = running.run("id", "-u", "memd").strip()
    assert set(status["Uid"].split()) == {user}


def test_the_watchdog_is_on(running: Machine) -> None:
    """The manager expects a sign of life every 30 seconds."""
    pid = running.pid_of("memd.service")
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert b"WATCHDOG_USEC=30000000" in environment


def test_limits(running: Machine) -> None:
    limits = limits_of(running)
    assert "Max locked memory         0                    0" in limits
    assert "Max core file size        0                    0" in limits


def test_limits_that_are_raised(running: Machine) -> None:
    """Which takes a manager that may."""
    rows = Path(f"/proc/{running.leader}/status").read_text(encoding="utf-8").splitlines()
    (rights,) = (int(row.split()[1], 16) for row in rows if row.startswith("CapEff:"))
    if not rights & 1 << CAP_SYS_RESOURCE:
        pytest.skip(f"{NOT_HERE}CAP_SYS_RESOURCE, which raises limits")
    pid = running.pid_of("memd.service")
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "-500\n"
    assert "Max open files            524288               524288" in limits_of(running)


def limits_of(machine: Machine) -> str:
    """What /proc says of the daemon's limits."""
    return Path(f"/proc/{machine.pid_of('memd.service')}/limits").read_text(encoding="utf-8")
