from __future__ import annotations

import os

import pytest

from memd.qom import Tree
from tests.backends.doing import MIB, add, delete, get, refusal, region_of
from tests.hostmem.smaps import row_of

PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("size", [1, PAGE - 1, PAGE, PAGE + 1, MIB, 3 * MIB])
@pytest.mark.parametrize("share", [False, True])
def test_any_size(tree: Tree, share: bool, size: int) -> None:
    add(tree, "ram", size=size, share=share)
    assert get(tree, "size") == size
    region = region_of(tree)
    assert (region.spec.size, region.length) == (size, -(-size // PAGE) * PAGE)
    row = row_of(region.address)
    assert row is not None
    assert row.end - row.start == region.length
    assert row.start % (2 * MIB) == 0
    assert row.permissions == f"rw-{'s' if share else 'p'}"
    if share:
        target = os.readlink(f"/proc/self/fd/{region.fd}")
        assert target == "/memfd:m0 (deleted)"
        assert os.fstat(region.fd).st_size == region.length
    else:
        assert region.fd == -1


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (1 << 62, "Cannot allocate memory"),
        ((1 << 63) - 1, "Cannot allocate memory"),
        (1 << 63, "Cannot allocate memory"),
        ((1 << 64) - (2 << 20), "Invalid argument"),
        # QEMU aborts on the ones that follow.
        ((1 << 64) - 4096, "Cannot allocate memory"),
        ((1 << 64) - 4095, "Cannot allocate memory"),
        ((1 << 64) - 1, "Cannot allocate memory"),
    ],
)
@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("reserve", [False, True])
def test_impossible_sizes(tree: Tree, reserve: bool, share: bool, size: int, reason: str) -> None:
    assert refusal(lambda: add(tree, "ram", size=size, share=share, reserve=reserve)) == (
        f"cannot set up guest memory 'm0': {reason}"
    )


def test_what_can_not_be_given_its_size_is_logged(
    tree: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    refusal(lambda: add(tree, "ram", size=1 << 63, share=True))
    assert [record.getMessage() for record in caplog.records] == ["ftruncate: Invalid argument"]


def test_a_name_too_long_for_a_memfd(tree: Tree) -> None:
    name = "m" * 250
    assert refusal(lambda: add(tree, "ram", name, size=MIB, share=True)) == (
        "failed to create memfd with flags 0x1: Invalid argument"
    )
    add(tree, "ram", name, size=MIB)
    delete(tree, name)
