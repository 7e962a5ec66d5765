from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from memd.hostmem import libc, numa
from memd.hostmem.region import Region
from tests.hostmem.made import anonymous

SIZE = 8 * libc.PAGE_SIZE


def policy_of(region: Region) -> str:
    """What numa_maps says of the mapping, such as "bind:0"."""
    with open("/proc/self/numa_maps") as rows:
        for row in rows:
            start, policy = row.split()[:2]
            if int(start, 16) == region.address:
                return policy
    raise AssertionError("not mapped")


@pytest.mark.parametrize(
    ("policy", "nodes", "shown"),
    [
        ("bind", [0], "bind:0"),
        ("interleave", [0], "interleave:0"),
        ("preferred", [0], "prefer (many):0"),
        ("bind", [0, 63], "bind:0"),
        ("bind", [0, 64], "bind:0"),
        ("bind", [0, 127], "bind:0"),
        ("default", [], "default"),
        ("default", [0], "default"),
    ],
)
def test_bind(policy: str, nodes: list[int], shown: str) -> None:
    if not os.path.exists("/proc/self/numa_maps"):
        pytest.skip("not here: a kernel with NUMA")
    region = anonymous(SIZE)
    try:
        libc.madvise(region.address, SIZE, libc.MADV_POPULATE_WRITE)
        numa.bind(region.address, SIZE, policy, nodes)
        # The kernel writes "prefer (many):0" in two words.
        assert policy_of(region) == shown.split()[0]
    finally:
        region.close()


@pytest.mark.parametrize("policy", ["bind", "preferred", "interleave"])
@pytest.mark.parametrize("nodes", [[1], [63], [64], [127]])
def test_nodes_that_do_not_exist(policy: str, nodes: list[int]) -> None:
    if os.path.exists(f"/sys/devices/system/node/node{nodes[0]}"):
        pytest.skip(f"not here: a host without node {nodes[0]}")
    region = anonymous(SIZE)
    try:
        with pytest.raises(OSError) as failed:
            numa.bind(region.address, SIZE, policy, nodes)
        assert failed.value.errno == errno.EINVAL
    finally:
        region.close()


def test_cpus_of() -> None:
    if not os.path.exists("/sys/devices/system/node/node0"):
        pytest.skip("not here: a kernel with NUMA")
    cpus = numa.cpus_of([0])
    assert cpus
    assert cpus <= set(range(os.cpu_count() or 1))
    assert numa.cpus_of([0, 4321]) == cpus
    assert numa.cpus_of([4321]) == set()
    assert numa.cpus_of([]) == set()


def test_cpus_without_numa() -> None:
    assert numa.cpus_of([0], "/nowhere") == set(range(os.cpu_count() or 1))
    assert numa.cpus_of([1], "/nowhere") == set()


OURS = sorted(os.sched_getaffinity(0))
FIRST, LAST = {OURS[0]}, {OURS[-1]}


@pytest.fixture
def nodes(tmp_path: Path) -> str:
    """Where two nodes with CPUs are told of, and memory without any; one CPU is not ours."""
    (tmp_path / "has_memory").write_text("0-2\n")
    for node, cpus in enumerate([f"{OURS[0]}", f"{OURS[-1]},4321", ""]):
        (tmp_path / f"node{node}").mkdir()
        (tmp_path / f"node{node}" / "cpulist").write_text(f"{cpus}\n")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [([], [FIRST, LAST]), ([1], [LAST]), ([2], []), ([0, 2], [FIRST]), ([7], [])],
)
def test_places(nodes: str, wanted: list[int], found: list[set[int]]) -> None:
    assert numa.places(wanted, nodes) == found


def test_one_node_has_no_places(tmp_path: Path) -> None:
    (tmp_path / "has_memory").write_text("0\n")
    assert numa.places([0], str(tmp_path)) == []
    assert numa.places([], "/nowhere") == []


@pytest.mark.parametrize(
    ("text", "members"),
    [("", set()), ("\n", set()), ("0\n", {0}), ("0-3,8\n", {0, 1, 2, 3, 8}), ("5,7-7", {5, 7})],
)
def test_parse_list(text: str, members: set[int]) -> None:
    assert numa.parse_list(text) == members
