"""Memory stays mapped while somebody works on it, however that ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from memd.errors import QMPError
from memd.hostmem.region import Region, job_on
from tests.hostmem.made import made
from tests.stepping import Running


@pytest.fixture
def regions() -> Iterator[list[Region]]:
    with made() as one, made() as other:
        yield [one, other]


def test_pinned_from_the_asking_to_the_end(regions: list[Region]) -> None:
    running = Running(job_on(regions, lambda: [region.pinned for region in regions], copies=7))
    assert [region.pinned for region in regions] == [True, True]
    assert running.job.copies == 7
    assert running.finish() == [True, True]
    assert [region.pinned for region in regions] == [False, False]


def test_let_go_by_who_fails(regions: list[Region]) -> None:
    def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Running(job_on(regions, work)).finish()
    assert [region.pinned for region in regions] == [False, False]


def test_let_go_where_the_job_is_not_begun(regions: list[Region]) -> None:
    running = Running(job_on(regions, int))
    running.fail(QMPError("too many wait"))
    assert running.job.release
    with pytest.raises(QMPError, match="too many wait"):
        running.finish()
    assert [region.pinned for region in regions] == [False, False]
