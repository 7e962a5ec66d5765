"""What a test of host memory may not leave behind."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.differential.kernel import descriptors, mapped


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """No descriptor, no mapping of memory."""
    here = os.getpid()
    before = descriptors(here), mapped(here)
    yield
    assert (descriptors(here), mapped(here)) == before
