"""A real libvirt, which probes what it is given for a QEMU.

Its daemon runs in mount and network namespaces of its own, with everything
that it reads and writes on file systems of its own: the machine's libvirt,
if it has one, sees none of it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.clients.harness_server import qemu_system_memd
from tests.conftest import NOT_HERE
from tests.differential.server import TREE

INSIDE = """
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
printf 'user = "root"\\ngroup = "root"\\n' >/etc/libvirt/qemu.conf
libvirtd >"$DIR/libvirtd.out" 2>&1 &
daemon=$!
tries=0
until [ -S /run/libvirt/libvirt-sock ] || [ $tries -ge 600 ]; do
    sleep 0.1
    tries=$((tries + 1))
done
for number in 1 2; do
    virsh -c qemu:///system domcapabilities --emulatorbin "$DIR/qemu-system-x86_64" \\
        --arch x86_64 >"$DIR/capabilities.$number" 2>"$DIR/error.$number" || true
    cp "$DIR/started" "$DIR/started.$number" || true
done
cp /var/cache/libvirt/qemu/capabilities/*.xml "$DIR/cache.xml" || true
kill $daemon
wait $daemon || true
"""
"""Runs in the namespaces: starts the daemon, asks twice, and ends it."""

NAMESPACES = ("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc")
"""Whatever still runs in them when their first process ends, ends too."""

DRIVERS = ("/usr/lib/x86_64-linux-gnu/libvirt", "/usr/lib64/libvirt", "/usr/lib/libvirt")


def _account(text: str, rows: dict[str, str]) -> str:
    """A passwd or group file with accounts that libvirt wants to exist."""
    names = {row.split(":")[0] for row in text.splitlines()}
    return text + "".join(row + "\n" for name, row in rows.items() if name not in names)


def _driver() -> Path | None:
    found = (Path(place, "connection-driver", "libvirt_driver_qemu.so") for place in DRIVERS)
    return next((path for path in found if path.exists()), None)


class Probing:
    """What came of asking libvirt twice about memd."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.answers = [self._read(f"capabilities.{number}") for number in (1, 2)]
        self.said = "".join(self._read(name) for name in ("error.1", "error.2", "libvirtd.out"))
        self.started, self.started_later = (
            [row for row in self._read(f"started.{number}").splitlines() if "-qmp" in row]
            for number in (1, 2)
        )
        self.cache = self._read("cache.xml")

    def _read(self, name: str) -> str:
        path = self.directory / name
        return path.read_text(errors="replace") if path.exists() else ""


@pytest.fixture(scope="module")
def probing(tmp_path_factory: pytest.TempPathFactory) -> Probing:
    """Runs libvirt's daemon and asks it, once for all tests."""
    if os.geteuid() != 0:
        pytest.skip(f"{NOT_HERE}root")
    if os.uname().machine != "x86_64":
        pytest.skip(f"{NOT_HERE}an x86_64 machine")
    for tool in ("libvirtd", "virsh"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: libvirt is not installed")
    driver = _driver()
    if driver is None:
        pytest.skip("needs libvirt's QEMU driver")
    probe = [*NAMESPACES, "mount", "-t", "tmpfs", "none", "/run"]
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        pytest.skip(f"{NOT_HERE}namespaces to mount in")
    directory = tmp_path_factory.mktemp("libvirt")
    # The others would look for networks, disks and devices.
    (directory / "drivers").mkdir()
    (directory / "drivers" / driver.name).symlink_to(driver)
    passwd = "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin"
    accounts = {"libvirt-qemu": passwd}
    groups = {name: f"{name}:x:{n}:" for n, name in enumerate(("kvm", "libvirt-qemu"), 64054)}
    for name, rows in (("passwd", accounts), ("group", groups)):
        (directory / name).write_text(_account(Path("/etc", name).read_text(), rows))
    wrapper = directory / "qemu-system-x86_64"
    wrapper.write_text(
        "#!/bin/sh\n"
        f'echo "$*" >>{directory}/started\n'
        f'PYTHONPATH={shlex.quote(str(TREE))} exec {shlex.join(qemu_system_memd())} "$@"\n'
    )
    wrapper.chmod(0o755)
    environment = dict(os.environ, DIR=str(directory), LIBVIRT_DRIVER_DIR=f"{directory}/drivers")
    subprocess.run(
        [*NAMESPACES, "sh", "-c", INSIDE],
        env=environment,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=110,
    )
    return Probing(directory)


def test_it_takes_memd_for_a_qemu(probing: Probing) -> None:
    assert probing.answers[0], probing.said
    found = ET.fromstring(probing.answers[0])
    assert found.findtext("path", "").endswith("/qemu-system-x86_64")
    assert found.findtext("arch") == "x86_64"
    assert found.findtext("machine") == "q35"
    # Both exist where KVM is usable: libvirt believes it only of a binary that does.
    assert found.findtext("domain") in ("kvm", "qemu")


def test_every_source_of_memory_is_supported(probing: Probing) -> None:
    found = ET.fromstring(probing.answers[0])
    backing = found.find("memoryBacking")
    assert backing is not None
    assert backing.get("supported") == "yes"
    sources = {value.text for value in backing.findall("enum[@name='sourceType']/value")}
    assert sources == {"file", "anonymous", "memfd"}


def test_what_it_found_is_kept(probing: Probing) -> None:
    """The second answer comes from the cache: nothing was started for it."""
    assert probing.answers[1] == probing.answers[0]
    assert probing.started
    assert probing.started_later == probing.started
    assert all("-machine none,accel=" in row and "-daemonize" in row for row in probing.started)
    flags = {flag.get("name") for flag in ET.fromstring(probing.cache).findall("flag")}
    assert {
        *("memory-backend-memfd", "memory-backend-memfd.hugetlb", "memory-backend-file.pmem"),
        *("memory-backend-file.prealloc-threads", "thread-context", "set-action"),
    } <= flags


def test_nothing_of_it_stays(probing: Probing) -> None:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path("/proc", pid, "cmdline").read_bytes()
        except OSError:
            continue
        assert str(probing.directory).encode() not in command
