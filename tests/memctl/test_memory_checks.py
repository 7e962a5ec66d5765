from __future__ import annotations

from pathlib import Path

import pytest

from memd.memctl import memory_checks
from memd.memctl.host import OK, WARN, Check
from tests.memctl.test_host import write

POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB"
MEMINFO = "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\nSwapTotal: 0 kB\nHugepagesize: 2048 kB\n"


def pool(total: int, free: int, promised: int = 0, more: int = 0) -> dict[str, str]:
    return {
        "/proc/meminfo": MEMINFO,
        f"{POOL}/nr_hugepages": f"{total}\n",
        f"{POOL}/free_hugepages": f"{free}\n",
        f"{POOL}/resv_hugepages": f"{promised}\n",
        f"{POOL}/nr_overcommit_hugepages": f"{more}\n",
    }


def test_memory(tmp_path: Path) -> None:
    host = write(tmp_path, {"/proc/meminfo": MEMINFO})
    (found,) = memory_checks.memory(host)
    assert found == Check("memory", OK, "8 GiB, 4 GiB of it available, no swap")
    write(tmp_path, {"/proc/meminfo": "MemTotal: 8388608 kB\nMemAvailable: 4096 kB\n"})
    (found,) = memory_checks.memory(host)
    assert (found.state, found.found) == (WARN, "8 GiB, 4 MiB of it available, no swap")


def test_a_control_group(tmp_path: Path) -> None:
    path = "/sys/fs/cgroup/memory.max"
    files = {"/proc/meminfo": MEMINFO, "/proc/self/cgroup": "0::/\n", path: f"{512 << 20}\n"}
    host = write(tmp_path, files)
    _memory, group = memory_checks.memory(host)
    assert (group.state, group.found) == (WARN, "at most 512 MiB of 8 GiB")
    assert path in group.advice
    write(tmp_path, {path: "9223372036854771712"})
    assert len(list(memory_checks.memory(host))) == 1


@pytest.mark.parametrize(("rule", "state"), [("0", OK), ("1", OK), ("2", WARN)])
def test_promises(tmp_path: Path, rule: str, state: str) -> None:
    files = {
        "/proc/sys/vm/overcommit_memory": rule,
        "/proc/meminfo": "CommitLimit: 1024 kB\nCommitted_AS: 512 kB\n",
    }
    (found,) = memory_checks.promises(write(tmp_path, files))
    assert found.state == state
    assert bool(found.advice) == (state == WARN)


def huge(root: Path, files: dict[str, str]) -> Check:
    found = {each.name: each for each in memory_checks.huge_pages(write(root, files))}
    return found["huge pages of 2 MiB"]


def test_huge_pages(tmp_path: Path) -> None:
    found = huge(tmp_path, pool(512, 500, 10))
    assert (found.state, found.found) == (OK, "512, 500 free of which 10 are promised")
    found = huge(tmp_path, pool(0, 0))
    assert (found.state, found.found) == (WARN, "none are set aside")
    assert found.advice == f"For 4 GiB of them: echo 2048 > {POOL}/nr_hugepages"
    found = huge(tmp_path, pool(512, 10, 10))
    assert (found.state, found.advice[:13]) == (WARN, "None is left.")
    found = huge(tmp_path, pool(0, 0, 0, 64))
    assert (found.state, found.found) == (OK, "0, 0 free, up to 64 more on demand")


def test_huge_pages_of_nodes(tmp_path: Path) -> None:
    node = "/sys/devices/system/node"
    below = "hugepages/hugepages-2048kB/nr_hugepages"
    files = pool(512, 512) | {
        f"{node}/has_memory": "0-1\n",
        f"{node}/node0/{below}": "512\n",
        f"{node}/node1/{below}": "0\n",
    }
    found = huge(tmp_path, files)
    assert (found.state, found.found) == (WARN, "512, 512 free; node 0: 512, node 1: 0")
    assert found.advice.startswith("Nodes without any: 1.")
    found = huge(tmp_path, {f"{node}/node1/{below}": "5\n"})
    assert found.state == OK


def test_huge_pages_of_another_size(tmp_path: Path) -> None:
    """That there are none is nothing unusual."""
    files = pool(1, 1) | {"/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages": "0\n"}
    found = {each.name: each for each in memory_checks.huge_pages(write(tmp_path, files))}
    other = found["huge pages of 1 GiB"]
    assert other.state == OK
    assert "hugepagesz=1G" in other.advice
    assert found["hugetlbfs"].advice.startswith("For memory-backend-file: mount")


def test_no_huge_pages_at_all(tmp_path: Path) -> None:
    (found,) = memory_checks.huge_pages(write(tmp_path, {"/proc/meminfo": MEMINFO}))
    assert (found.name, found.state) == ("huge pages", WARN)


def test_hugetlbfs(tmp_path: Path) -> None:
    files = pool(1, 1) | {"/proc/self/mountinfo": "1 2 0:3 / /dev/hugepages rw - hugetlbfs x rw\n"}
    *_, found = memory_checks.huge_pages(write(tmp_path, files))
    assert found == Check("hugetlbfs", OK, "mounted at /dev/hugepages")


@pytest.mark.parametrize(
    ("enabled", "shared", "states", "advice"),
    [
        ("always [madvise] never", "always [advise] never", [OK, OK], [False, False]),
        ("always madvise [never]", "[never]", [WARN, OK], [True, True]),
    ],
)
def test_transparent_huge_pages(
    tmp_path: Path, enabled: str, shared: str, states: list[str], advice: list[bool]
) -> None:
    place = "/sys/kernel/mm/transparent_hugepage"
    host = write(tmp_path, {f"{place}/enabled": enabled, f"{place}/shmem_enabled": shared})
    found = list(memory_checks.transparent(host))
    assert [each.state for each in found] == states
    assert [bool(each.advice) for each in found] == advice


def test_no_transparent_huge_pages(tmp_path: Path) -> None:
    (found,) = memory_checks.transparent(write(tmp_path, {}))
    assert (found.state, found.found) == (WARN, "this kernel has no transparent huge pages")


@pytest.mark.parametrize(
    ("run", "state", "word"), [("1", OK, "on, 7"), ("0", OK, "off"), ("", WARN, "none")]
)
def test_merging(tmp_path: Path, run: str, state: str, word: str) -> None:
    host = write(tmp_path, {"/sys/kernel/mm/ksm/run": run, "/sys/kernel/mm/ksm/pages_sharing": "7"})
    (found,) = memory_checks.merging(host)
    assert found.state == state
    assert word in found.found
