"""The end of the daemon."""

from __future__ import annotations

import asyncio
import os

import pytest

from memd.app.ending import take_each


async def test_each_step_is_taken_whatever_comes_of_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    taken: list[str] = []

    async def later() -> None:
        await asyncio.sleep(0)
        taken.append("later")

    async def failing() -> None:
        await asyncio.sleep(0)
        raise ValueError("a bug")

    def directory() -> None:
        os.listdir("/dev/null")

    steps = (lambda: taken.append("first"), directory, failing, None, later, failing)
    await take_each((*steps, lambda: taken.append("last")))
    assert taken == ["first", "later", "last"]
    assert [each.levelname for each in caplog.records] == ["WARNING", "ERROR", "ERROR"]
    assert caplog.messages[0] == "at the end: [Errno 20] Not a directory: '/dev/null'"
    assert "a bug" in caplog.text
