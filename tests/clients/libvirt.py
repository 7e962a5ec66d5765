"""A real libvirt for tests, run by hand.

Its daemon runs in mount and network namespaces of its own, with everything
that it reads and writes on file systems of its own: the machine's libvirt,
if it has one, sees none of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.clients.programs import write_script
from tests.conftest import NOT_HERE
from tests.differential.server import qemu_system_memd

BEGIN = """
set -e
mount --make-rprivate /
mount --bind "$DIR/passwd" /etc/passwd
mount --bind "$DIR/group" /etc/group
for place in /run /var/log /etc/libvirt; do
    mount -t tmpfs none "$place"
done
# libvirt's places may not exist, and must not begin to: what is beside them stays.
mkdir "$DIR/place"
for place in /var/lib /var/cache; do
    mount -t tmpfs none "$DIR/place"
    for other in "$place"/*/; do
        name=$(basename "$other")
        if [ "$name" != libvirt ]; then
            mkdir "$DIR/place/$name"
            mount --bind "$other" "$DIR/place/$name"
        fi
    done
    mount --move "$DIR/place" "$place"
done
printf 'auth_unix_rw = "none"\\nunix_sock_group = "root"\\n' >/etc/libvirt/libvirtd.conf
# Its other daemons, control groups and namespaces are not needed for what is tested, and
# directories of its own in every hugetlbfs would be in the way of other tests.
cat >/etc/libvirt/qemu.conf <<END
user = "root"
group = "root"
stdio_handler = "file"
cgroup_controllers = []
namespaces = []
security_driver = "none"
seccomp_sandbox = 0
hugetlbfs_mount = []
END
start_daemon() {
    rm -f /run/libvirt/libvirt-sock
    libvirtd >>"$DIR/libvirtd.out" 2>&1 &
    daemon=$!
    tries=0
    until [ -S /run/libvirt/libvirt-sock ] || [ $tries -ge 600 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
}
start_daemon
set +e
"""
"""Runs in the namespaces: starts the daemon."""

END = """
cp /var/cache/libvirt/qemu/capabilities/*.xml "$DIR/cache.xml"
cat /var/log/libvirt/qemu/*.log >"$DIR/domains.log" 2>/dev/null
kill $daemon
wait $daemon
"""
"""And ends it."""

NAMESPACES = ("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc")
"""Whatever still runs in them when their first process ends, ends too."""

DRIVERS = ("/usr/lib/x86_64-linux-gnu/libvirt", "/usr/lib64/libvirt", "/usr/lib/libvirt")


def _account(text: str, rows: dict[str, str]) -> str:
    """A passwd or group file with accounts that libvirt wants to exist."""
    names = {row.split(":")[0] for row in text.splitlines()}
    return text + "".join(row + "\n" for name, row in rows.items() if name not in names)


def _driver(kind: str) -> Path | None:
    found = (Path(place, "connection-driver", f"libvirt_driver_{kind}.so") for place in DRIVERS)
    return next((path for path in found if path.exists()), None)


SECOND = """
cat >"$DIR/second.sh" <<'END'
for place in /run /var/lib/libvirt /var/cache/libvirt /etc/libvirt; do
    mount -t tmpfs none "$place"
done
printf 'auth_unix_rw = "none"\\nunix_sock_group = "root"\\nhost_uuid = "%s"\\n' \
    11111111-2222-3333-4444-555555555555 >/etc/libvirt/libvirtd.conf
cp "$DIR/qemu.conf" /etc/libvirt
exec libvirtd
END
cp /etc/libvirt/qemu.conf "$DIR"
unshare --mount --propagation private sh "$DIR/second.sh" >"$DIR/second.out" 2>&1 &
second=$!
root() {
    echo "qemu+unix:///system?socket=/proc/$1/root/run/libvirt/libvirt-sock"
}
here=$(root $$) there=$(root $second)
w() {
    virsh -c "$there" "$@"
}
tries=0
# Before its mounts are done, the first daemon is what is seen there.
until grep -q ' /etc/libvirt ' /proc/$second/mounts && [ "$(readlink /proc/$second/exe)" = \
    "$(readlink /proc/$daemon/exe)" ] && w list >/dev/null 2>&1 || [ $tries -ge 200 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
"""
"""In a script: starts another daemon, as if on another host. w calls virsh of it; here
and there are the addresses of both, second the other's process."""


def run_libvirt(
    directory: Path, script: str, emulator: str | None = None, drivers: Sequence[str] = ()
) -> None:
    """Run libvirt's daemon, and a shell script beside it.

    The test is skipped where there can't be one. In the script DIR is the
    directory, daemon its process; v calls virsh, start_daemon starts another.

    Args:
        directory: an empty one. What the script leaves there is the outcome;
            `qemu-system-x86_64` in it is memd, `started` its command lines.
        script: may fail in parts.
        emulator: what domains run in place of memd.
        drivers: of libvirt, beside QEMU's.
    """
    if os.geteuid() != 0:
        pytest.skip(f"{NOT_HERE}root")
    if os.uname().machine != "x86_64":
        pytest.skip(f"{NOT_HERE}an x86_64 machine")
    for tool in ("libvirtd", "virsh"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: libvirt is not installed")
    found = {kind: _driver(kind) for kind in ("qemu", *drivers)}
    probe = [*NAMESPACES, "mount", "-t", "tmpfs", "none", "/run"]
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip(f"{NOT_HERE}namespaces to mount in")
    # The others would look for networks, disks and devices.
    (directory / "drivers").mkdir()
    for kind, driver in found.items():
        if driver is None:
            pytest.skip(f"needs libvirt's driver {kind}")
        (directory / "drivers" / driver.name).symlink_to(driver)
    passwd = "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin"
    accounts = {"libvirt-qemu": passwd}
    groups = {name: f"{name}:x:{n}:" for n, name in enumerate(("kvm", "libvirt-qemu"), 64054)}
    for name, rows in (("passwd", accounts), ("group", groups)):
        (directory / name).write_text(_account(Path("/etc", name).read_text(), rows))
    wrapper = directory / "qemu-system-x86_64"
    argv = qemu_system_memd() if emulator is None else [emulator]
    write_script(wrapper, argv, f'echo "$*" >>{directory}/started')
    environment = dict(os.environ, DIR=str(directory), LIBVIRT_DRIVER_DIR=f"{directory}/drivers")
    subprocess.run(
        [*NAMESPACES, "sh", "-c", f'{BEGIN}v() {{ virsh -c qemu:///system "$@"; }}\n{script}{END}'],
        env=environment,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=110,
    )


def nothing_stays(directory: Path) -> bool:
    """Whether no process is left that was started there."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path("/proc", pid, "cmdline").read_bytes()
        except OSError:
            continue
        if str(directory).encode() in command:
            return False
    return True
