"""What the installed files come to, as the systemd of the container says."""

from __future__ import annotations

import json
import os
import stat

import pytest

from tests.systemd.machine import Machine

UNITS = ("memd.service", "memd.socket", "memd@x.service", "memd@x.socket")

SERVICES = ("memd.service", "memd@.service")

EXPOSED = {
    "DeviceAllow": "/dev/kvm, for guest_memfd",
    "PrivateUsers": "clients are told apart by their users",
    "ProcSubset": "/proc/meminfo and /proc/sys/vm say what fits",
    "RemoveIPC": "files in /dev/shm are memory that is meant to stay",
    "RestrictAddressFamilies_AF_UNIX": "QMP, and the manager",
    "RootDirectoryOrRootImage": "mem-path names files of this machine",
    "SystemCallFilter_resources": "mbind and sched_setaffinity",
}
"""What `systemd-analyze security` finds fault with, and why it is so."""


def test_verify_is_clean(machine: Machine) -> None:
    assert machine.run("systemd-analyze", "verify", "--man=no", *UNITS) == ""


def security(machine: Machine, unit: str, *options: str) -> str:
    path = f"/usr/lib/systemd/system/{unit}"
    return machine.run("systemd-analyze", "security", "--offline=yes", *options, path)


@pytest.mark.parametrize("unit", SERVICES)
def test_little_is_exposed(machine: Machine, unit: str) -> None:
    """1.5 of 10 at most: `--threshold` is in tenths."""
    said = security(machine, unit, "--threshold=15", "--no-pager")
    assert "Overall exposure level" in said


@pytest.mark.parametrize("unit", SERVICES)
def test_what_is_exposed(machine: Machine, unit: str) -> None:
    """That, and nothing else: a setting that goes missing is named here."""
    judged = json.loads(security(machine, unit, "--json=short"))
    assert {each["json_field"] for each in judged if each["set"] is False} == set(EXPOSED)


def test_kvm_is_among_the_devices(machine: Machine) -> None:
    """The cgroup's rule, which a container's manager can't always set."""
    assert "/dev/kvm rw" in machine.show("memd.service", "DeviceAllow").splitlines()


def test_the_user(machine: Machine) -> None:
    """Without a password or a shell, and in the group that may use KVM."""
    name, password, *_, shell = machine.run("getent", "passwd", "memd").strip().split(":")
    assert (name, password) == ("memd", "x")
    assert shell == "/usr/sbin/nologin"
    assert machine.run("getent", "shadow", "memd").split(":")[1].startswith("!")
    assert set(machine.run("id", "-nG", "memd").split()) == {"memd", "kvm"}


def test_the_directories(machine: Machine) -> None:
    """They are root's: no memd can put a socket in another's place."""
    for directory in ("/run/memd", "/etc/memd"):
        found = os.stat(machine.path(directory))
        assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o755, 0, 0)
