"""Time that a test does not wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock of the running loop forward by so many seconds."""

    def forward(seconds: float) -> None:
        loop = asyncio.get_running_loop()
        real = loop.time
        monkeypatch.setattr(loop, "time", lambda: real() + seconds)

    return forward
