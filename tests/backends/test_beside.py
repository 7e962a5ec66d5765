"""Memory stays mapped while somebody works on it, however that ends."""

from __future__ import annotations

import pytest

from memd.backends.beside import beside
from memd.hostmem.region import Region
from memd.qom import Tree
from tests.backends.doing import add, region_of


@pytest.fixture
def regions(tree: Tree) -> list[Region]:
    for id in ("a", "b"):
        add(tree, "ram", id, size=4096)
    return [region_of(tree, "a"), region_of(tree, "b")]


def test_pinned_from_the_asking_to_the_end(regions: list[Region]) -> None:
    seen = []
    job = beside(regions, lambda: seen.append([region.pinned for region in regions]))
    assert [region.pinned for region in regions] == [True, True]
    job.work()
    assert seen == [[True, True]]
    assert [region.pinned for region in regions] == [False, False]


def test_let_go_by_who_fails(regions: list[Region]) -> None:
    def work() -> None:
        raise ValueError("no")

    job = beside(regions, work)
    with pytest.raises(ValueError, match="no"):
        job.work()
    assert [region.pinned for region in regions] == [False, False]


def test_what_is_wanted_of_it_goes_along(regions: list[Region]) -> None:
    job = beside(regions, lambda: 1, lambda n: n + 1, cancel=lambda: None, copies=7)
    assert (job.finish(job.work()), job.copies) == (2, 7)
    assert job.cancel is not None
