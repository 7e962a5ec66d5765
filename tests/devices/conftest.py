"""Machines for tests of devices, which let their memory go afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.devices.bench import Bench


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    """Makes machines: make_bench("q35", slots=3)."""
    made: list[Bench] = []

    def make(*args: object, **options: object) -> Bench:
        bench = Bench(*args, **options)  # type: ignore[arg-type]
        made.append(bench)
        return bench

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    """A PC with 256 MiB and four slots that runs a willing guest."""
    return make_bench()
