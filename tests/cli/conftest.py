"""The command lines' tests run whole commands in their own process."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from memd.app.app import END_SIGNALS


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A daemon that has ended leaves its signals ignored."""
    before = {each: signal.getsignal(each) for each in END_SIGNALS}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)
