from __future__ import annotations

import os
from pathlib import Path

import pytest

from memd.memctl.host import Host


def write(root: Path, files: dict[str, str]) -> Host:
    """A host of these files."""
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Host(str(root))


def test_files(tmp_path: Path) -> None:
    host = write(tmp_path, {"/sys/a": "5\n", "/sys/b": "always [madvise] never\n", "/sys/c/d": ""})
    assert host.text("/sys/a") == "5\n"
    assert host.number("/sys/a") == 5
    assert host.number("/sys/b") is None
    assert host.choice("/sys/b") == "madvise"
    assert host.choice("/sys/a") is None
    assert host.names("/sys") == ["a", "b", "c"]
    assert host.exists("/sys/c")
    assert host.may("/sys/a", os.R_OK)
    assert host.space("/sys")[0] > 0


def test_what_is_not_there(tmp_path: Path) -> None:
    host = Host(str(tmp_path))
    assert host.text("/x") is None
    assert host.number("/x") is None
    assert host.choice("/x") is None
    assert host.names("/x") == []
    assert not host.exists("/x")
    assert not host.may("/x", os.R_OK)
    assert host.space("/x") == (0, 0)
    assert host.meminfo() == {}
    assert host.mounts("tmpfs") == []
    assert host.limit("Max open files") is None
    assert host.group_limit() is None
    assert host.kernel() == (0, 0)
    assert host.nodes() == []


def test_proc(tmp_path: Path) -> None:
    mounts = (
        "25 24 0:23 / /dev/shm rw,relatime shared:5 - tmpfs tmpfs rw,size=64k\n"
        "26 24 0:24 / /a\\040place rw - hugetlbfs none rw\n"
    )
    limits = (
        "Limit                     Soft Limit           Hard Limit           Units     \n"
        "Max open files            1024                 4096                 files     \n"
        "Max address space         unlimited            unlimited            bytes     \n"
    )
    host = write(
        tmp_path,
        {
            "/proc/meminfo": "MemTotal:  24 kB\nHugePages_Total:  5\nstrange\nother: x kB\n",
            "/proc/self/mountinfo": mounts,
            "/proc/self/limits": limits,
            "/proc/sys/kernel/osrelease": "6.1.0-13-amd64\n",
            "/sys/devices/system/node/has_memory": "0,2-3\n",
        },
    )
    assert host.meminfo() == {"MemTotal": 24 << 10, "HugePages_Total": 5}
    assert host.mounts("tmpfs") == ["/dev/shm"]
    assert host.mounts("hugetlbfs") == ["/a place"]
    assert host.limit("Max open files") == 1024
    assert host.limit("Max address space") is None
    assert host.kernel() == (6, 1)
    assert host.nodes() == [0, 2, 3]


@pytest.mark.parametrize(
    ("release", "version"), [("6.8-rc1", (6, 8)), ("x", (0, 0)), ("6.x", (0, 0))]
)
def test_versions(tmp_path: Path, release: str, version: tuple[int, int]) -> None:
    assert write(tmp_path, {"/proc/sys/kernel/osrelease": release}).kernel() == version


def test_control_groups(tmp_path: Path) -> None:
    """The least of all that one is in counts."""
    base = "/sys/fs/cgroup"
    host = write(
        tmp_path,
        {
            "/proc/self/cgroup": "0::/user.slice/x.scope\n",
            f"{base}/user.slice/memory.max": "4096\n",
            f"{base}/user.slice/x.scope/memory.max": "max\n",
        },
    )
    assert host.group_limit() == (4096, f"{base}/user.slice/memory.max")


def test_control_groups_of_the_first_version(tmp_path: Path) -> None:
    host = write(
        tmp_path,
        {
            "/proc/self/cgroup": "5:cpu:/\n4:memory:/docker/abc\n0::/\n",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": "8192\n",
        },
    )
    assert host.group_limit() == (8192, "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def test_this_host() -> None:
    host = Host()
    assert host.here
    assert host.meminfo()["MemTotal"] > 0
    assert host.kernel() > (3, 0)
    assert host.number("/proc/sys/vm/max_map_count")
