"""What a test of host memory may not leave behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.differential.kernel import descriptors, regions


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """No descriptor, no mapping of memory."""
    here = os.getpid()
    before = descriptors(here), regions(here, Path("/nowhere"))
    yield
    assert (descriptors(here), regions(here, Path("/nowhere"))) == before
