"""What memd could do if somebody took it over: tried in its sandbox, and denied.

`probe.py` runs in place of the daemon in an instance of the service, once as
the user memd and once as root, whom no file's permissions stop. A failure names
the setting of the unit that no longer holds.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.systemd import probe
from tests.systemd.machine import Machine

PROBE = "/opt/probe.py"

DENIED = {
    "write to /etc": ("ProtectSystem=strict", "EROFS"),
    "write to /usr": ("ProtectSystem=strict", "EROFS"),
    "write where everybody may": ("ProtectSystem=strict", "EROFS"),
    "write beside its runtime directory": ("ReadOnlyPaths=/run", "EROFS"),
    "list home directories": ("ProtectHome=yes", "EACCES"),
    "list root's home directory": ("ProtectHome=yes", "EACCES"),
    "read a file in /tmp": ("PrivateTmp=yes", "ENOENT"),
    "read a file in /var/tmp": ("PrivateTmp=yes", "ENOENT"),
    "set a kernel parameter": ("ProtectKernelTunables=yes", "EROFS"),
    "make a cgroup": ("ProtectControlGroups=yes", "EROFS"),
    "see process 1": ("ProtectProc=invisible", "ENOENT"),
    "open a device": ("PrivateDevices=yes", "ENOENT"),
    "make a device node": ("PrivateDevices=yes", "EPERM"),
    "make a file set-user-id": ("RestrictSUIDSGID=yes", "EPERM"),
    "open an IPv4 socket": ("RestrictAddressFamilies=AF_UNIX", "EAFNOSUPPORT"),
    "open an IPv6 socket": ("RestrictAddressFamilies=AF_UNIX", "EAFNOSUPPORT"),
    "open a netlink socket": ("RestrictAddressFamilies=AF_UNIX", "EAFNOSUPPORT"),
    "make a user namespace": ("RestrictNamespaces=yes", "EPERM"),
    "make a mount namespace": ("RestrictNamespaces=yes", "EPERM"),
    "enter a namespace": ("RestrictNamespaces=yes", "EPERM"),
    "mount a file system": ("SystemCallFilter=", "EPERM"),
    "change the root directory": ("SystemCallFilter=", "EPERM"),
    "change the host's name": ("SystemCallFilter= with ProtectHostname=yes", "EPERM"),
    "change its user": ("SystemCallFilter=", "EPERM"),
    "change a file's owner": ("SystemCallFilter=", "EPERM"),
    "map memory writable and executable": ("MemoryDenyWriteExecute=yes", "EACCES"),
    "make memory executable": ("MemoryDenyWriteExecute=yes", "EACCES"),
    "lock memory": ("SystemCallFilter=", "EPERM"),
    "be traced": ("SystemCallFilter=", "EPERM"),
    "be of another architecture": ("SystemCallFilter= with LockPersonality=yes", "EPERM"),
    "run in real time": ("SystemCallFilter= with RestrictRealtime=yes", "EPERM"),
}
"""What is tried, the setting that is to deny it, and the error."""

USERS = ("memd", "root")


@pytest.fixture(scope="module")
def found(machine: Machine) -> dict[str, dict[str, str]]:
    """What came of it: outside of the sandbox, and inside as each user."""
    machine.path(PROBE).write_text(Path(probe.__file__).read_text(encoding="utf-8"))
    machine.path(probe.OPEN_TO_ALL).mkdir(exist_ok=True)
    machine.path(probe.OPEN_TO_ALL).chmod(0o777)
    for path in probe.ASIDE:
        machine.path(path).touch()
    machine.run("mknod", "-m", "666", probe.DEVICE, "c", "1", "5")
    try:
        return {
            "outside": outside(machine),
            "memd": inside(machine, "memd"),
            "root": inside(machine, "root"),
        }
    finally:
        machine.reset()
        machine.path(probe.DEVICE).unlink()
        for path in (*probe.ASIDE, PROBE):
            machine.path(path).unlink()


def outside(machine: Machine) -> dict[str, str]:
    """Run the probe as root without a sandbox."""
    machine.run("python3", PROBE, "/run/found")
    return read(machine, "/run/found")


def inside(machine: Machine, user: str) -> dict[str, str]:
    """Run the probe in place of the daemon."""
    unit = f"memd@{user}.service"
    command = f"/usr/bin/python3 {PROBE} /var/lib/memd-{user}/found"
    lines = ("[Service]", "Type=oneshot", f"User={user}", f"Group={user}", "ExecStart=")
    machine.drop_in(unit, "\n".join([*lines, f"ExecStart={command}", ""]))
    machine.systemctl("start", unit)
    return read(machine, f"/var/lib/memd-{user}/found")


def read(machine: Machine, path: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(machine.path(path).read_text(encoding="utf-8"))
    return found


def test_every_attempt_is_judged() -> None:
    assert set(DENIED) == set(probe.ATTEMPTS)


@pytest.mark.parametrize(
    ("what", "user"),
    # Root is who process 1 is, and so may see it.
    [
        (what, user)
        for what in DENIED
        for user in USERS
        if (what, user) != ("see process 1", "root")
    ],
)
def test_denied(found: dict[str, dict[str, str]], what: str, user: str) -> None:
    """Inside it is denied to every user; outside it is not, so that this shows something."""
    setting, error = DENIED[what]
    assert found["outside"][what] == "done", f"can't be tried: to {what}"
    # The user's own permissions are asked before the sandbox: what those deny to
    # memd, the sandbox has to deny to root.
    ours = found["root"][what] if found[user][what] == "EACCES" else found[user][what]
    assert ours == error, f"{setting} does not deny {user} to {what}"
