from __future__ import annotations

import fcntl
import os
from collections.abc import Callable

import pytest

from memd.json_types import JSON
from memd.qom import Tree
from tests.backends.doing import MIB, add, change, delete, get, refusal, region_of
from tests.hostmem.smaps import row_of


def test_defaults(tree: Tree) -> None:
    add(tree, "memfd", size=MIB)
    assert {name: get(tree, name) for name in ("share", "hugetlb", "hugetlbsize", "seal")} == {
        "share": True,
        "hugetlb": False,
        "hugetlbsize": 0,
        "seal": True,
    }
    region = region_of(tree)
    assert os.readlink(f"/proc/self/fd/{region.fd}") == "/memfd:memory-backend-memfd (deleted)"
    row = row_of(region.address)
    assert row is not None
    assert row.permissions == "rw-s"


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("seal", [False, True])
def test_share_and_seal(tree: Tree, seal: bool, share: bool) -> None:
    add(tree, "memfd", size=MIB, seal=seal, share=share)
    region = region_of(tree)
    assert region.shared is share
    found = fcntl.fcntl(region.fd, fcntl.F_GET_SEALS)
    assert bool(found & fcntl.F_SEAL_GROW) is bool(found & fcntl.F_SEAL_SHRINK) is seal
    if seal:
        with pytest.raises(PermissionError):
            os.ftruncate(region.fd, 2 * MIB)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"hugetlbsize": 0},
            "Property 'memory-backend-memfd.hugetlbsize' doesn't take value '0'",
        ),
        ({"hugetlbsize": 6}, "Hugepage size must be a power of 2"),
        ({"hugetlb": True}, "failed to resize memfd to 1048576: Invalid argument"),
        (
            {"size": MIB + 1},
            "m0 backing store size 0x100001 is too small for 'size' option 0x101000 plus"
            " 'offset' option 0x0",
        ),
        (
            {"size": (1 << 47) - 4096},
            "unable to map backing store for guest RAM: Cannot allocate memory",
        ),
        (
            {"size": (1 << 64) - 1},
            "failed to resize memfd to 18446744073709551615: Invalid argument",
        ),
    ],
)
def test_refusals(tree: Tree, options: dict[str, JSON], text: str) -> None:
    assert refusal(lambda: add(tree, "memfd", **{"size": MIB, **options})) == text


def test_changes(tree: Tree) -> None:
    add(tree, "memfd", size=MIB)
    for name in ("hugetlb", "seal"):
        for value in (True, False):
            change(tree, name, value)
            assert get(tree, name) is value
    for size in (0, 2 * MIB, "x"):
        assert refusal(lambda size=size: change(tree, "hugetlbsize", size)) == (  # type: ignore[misc]
            "cannot change property value"
        )


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("prealloc", [False, True])
def test_huge_pages(
    tree: Tree, hugepages: Callable[[int], None], prealloc: bool, share: bool
) -> None:
    hugepages(4)
    options = {"hugetlb": True, "hugetlbsize": 2 * MIB, "share": share, "prealloc": prealloc}
    add(tree, "memfd", size=4 * MIB, **options)
    assert get(tree, "hugetlbsize") == 2 * MIB
    region = region_of(tree)
    row = row_of(region.address)
    assert row is not None
    assert "ht" in row.flags
    assert row.resident == (4 * MIB if prealloc else 0)
    delete(tree)
    text = "unable to map backing store for guest RAM: Cannot allocate memory"
    options["prealloc"] = prealloc
    assert refusal(lambda: add(tree, "memfd", size=1 << 40, **options)) == text
