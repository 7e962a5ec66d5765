"""Memory stays mapped while somebody works on it, however that ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from memd.hostmem.region import Region, job_on
from tests.hostmem.made import made


@pytest.fixture
def regions() -> Iterator[list[Region]]:
    with made() as one, made() as other:
        yield [one, other]


def test_pinned_from_the_asking_to_the_end(regions: list[Region]) -> None:
    job = job_on(regions, lambda: [region.pinned for region in regions], copies=7)
    assert [region.pinned for region in regions] == [True, True]
    assert job.work() == [True, True]
    assert [region.pinned for region in regions] == [False, False]
    assert job.copies == 7


def test_let_go_by_who_fails(regions: list[Region]) -> None:
    def work() -> None:
        raise ValueError("no")

    job = job_on(regions, work)
    with pytest.raises(ValueError, match="no"):
        job.work()
    assert [region.pinned for region in regions] == [False, False]
