from __future__ import annotations

import os
from pathlib import Path

import pytest

from memd.memctl import host_checks
from memd.memctl.host import BAD, OK, WARN, Check, Host
from tests.memctl.test_host import write

SHM = "25 24 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw\n"


@pytest.mark.parametrize(
    ("release", "state", "advice"),
    [
        ("6.18.1", OK, ""),
        ("6.6.0", WARN, "6.7"),
        ("6.1.0-13", WARN, "6.5"),
        ("6.0.0", WARN, "memd needs 6.1"),
    ],
)
def test_kernel(tmp_path: Path, release: str, state: str, advice: str) -> None:
    files = {"/proc/sys/kernel/osrelease": release, "/proc/self/pagemap": ""}
    (found,) = host_checks.kernel(write(tmp_path, files))
    assert (found.state, found.found) == (state, f"Linux {release}")
    assert found.advice.startswith(advice)


def test_no_page_statistics(tmp_path: Path) -> None:
    host = write(tmp_path, {"/proc/sys/kernel/osrelease": "6.18.0"})
    _kernel, found = host_checks.kernel(host)
    assert (found.name, found.state) == ("page statistics", BAD)


class Denying(Host):
    """A host of files that this process may not use."""

    def may(self, path: str, mode: int) -> bool:
        return False


def denying(root: Path) -> Host:
    return Denying(str(root))


def with_space(root: Path, size: int, free: int) -> Host:
    """A host whose file systems are of that size, in bytes."""

    class Small(Host):
        def space(self, path: str) -> tuple[int, int]:
            return size, free

    return Small(str(root))


def shm(host: Host) -> Check:
    (found,) = host_checks.shared_memory(host)
    assert found.name == "/dev/shm"
    return found


def test_shared_memory(tmp_path: Path) -> None:
    host = write(tmp_path, {"/proc/self/mountinfo": SHM})
    found = shm(host)
    assert (found.state, found.found) == (BAD, "is missing: memory-backend-shm fails")
    (tmp_path / "dev/shm").mkdir(parents=True)
    host = with_space(tmp_path, 8 << 30, 4 << 30)
    assert shm(host) == Check("/dev/shm", OK, "8 GiB, 4 GiB free")
    # As Docker has it.
    host = with_space(tmp_path, 64 << 20, 64 << 20)
    found = shm(host)
    assert (found.state, found.found) == (WARN, "64 MiB, 64 MiB free")
    assert "--shm-size" in found.advice
    write(tmp_path, {"/proc/self/mountinfo": ""})
    assert shm(host).found == "is not a tmpfs: memory there is on a disk"
    assert shm(denying(tmp_path)).state == BAD


@pytest.mark.parametrize(("rule", "count"), [("0", 1), ("1", 1), ("2", 2)])
def test_memfds_that_are_refused(tmp_path: Path, rule: str, count: int) -> None:
    found = list(host_checks.shared_memory(write(tmp_path, {"/proc/sys/vm/memfd_noexec": rule})))
    assert len(found) == count
    if count == 2:
        assert (found[1].name, found[1].state) == ("memfd", BAD)


def numa(root: Path, nodes: str | None, allowed: str = "") -> Check:
    files = {"/proc/self/status": f"Name:\tx\nMems_allowed_list:\t{allowed}\n"}
    if nodes is not None:
        files["/sys/devices/system/node/has_memory"] = nodes
    (found,) = host_checks.numa(write(root, files))
    return found


def test_numa(tmp_path: Path) -> None:
    assert numa(tmp_path, None).state == WARN
    assert numa(tmp_path, "0\n", "0") == Check("NUMA", OK, "1 node")
    assert numa(tmp_path, "0-2\n", "0-7") == Check("NUMA", OK, "3 nodes: 0, 1, 2")
    found = numa(tmp_path, "0-2\n", "1")
    assert (found.state, found.found) == (WARN, "3 nodes: 0, 1, 2; kept from this process: 0, 2")


def test_kvm(tmp_path: Path) -> None:
    host = write(tmp_path, {})
    (found,) = host_checks.kvm(host)
    assert (found.state, "is missing" in found.found) == (WARN, True)
    write(tmp_path, {"/dev/kvm": ""})
    assert list(host_checks.kvm(host)) == [Check("/dev/kvm", OK, "can be used")]
    (found,) = host_checks.kvm(denying(tmp_path))
    assert (found.state, found.advice) == (WARN, "usermod -aG kvm USER")


def test_kvm_of_this_host() -> None:
    """Whatever it says of guest_memfd, it is what the backend would say."""
    host = Host()
    found = {each.name: each for each in host_checks.kvm(host)}
    usable = host.exists("/dev/kvm") and host.may("/dev/kvm", os.R_OK | os.W_OK)
    assert ("guest_memfd" in found) == usable


def test_postcopy(tmp_path: Path) -> None:
    """As QEMU 10.0 does: the device first, then the system call."""
    rule, status = "/proc/sys/vm/unprivileged_userfaultfd", "/proc/self/status"

    def state(host: Host) -> str:
        (found,) = host_checks.postcopy(host)
        assert found.name == "userfaultfd"
        return found.state

    host = write(tmp_path, {status: "CapEff:\t0000000000000000\n"})
    assert state(host) == WARN
    write(tmp_path, {rule: "0\n"})
    assert state(host) == WARN
    write(tmp_path, {rule: "1\n"})
    assert state(host) == OK
    write(tmp_path, {rule: "0\n", "/dev/userfaultfd": ""})
    assert state(host) == OK
    host = denying(tmp_path)
    assert state(host) == WARN
    write(tmp_path, {status: "CapEff:\t000001ffffffffff\n"})
    assert state(host) == OK


LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max file size             {size}            unlimited            bytes
Max open files            {files}                 1048576              files
Max locked memory         8388608              8388608              bytes
Max address space         {size}            unlimited            bytes
"""


def test_limits(tmp_path: Path) -> None:
    plenty = LIMITS.format(size="unlimited", files="20000")
    mappings = "/proc/sys/vm/max_map_count"
    host = write(tmp_path, {"/proc/self/limits": plenty, mappings: "65530\n"})
    assert [each.state for each in host_checks.limits(host)] == [OK, OK, OK]
    few = LIMITS.format(size="1048576", files="1024")
    write(tmp_path, {"/proc/self/limits": few, mappings: "100\n"})
    found = {each.name: each for each in host_checks.limits(host)}
    assert [each.state for each in found.values()] == [WARN, WARN, WARN, WARN, OK]
    assert found["file size"].found.startswith("limited to 1 MiB")
    assert "ulimit -n" in found["open files"].advice
