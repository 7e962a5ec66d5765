"""Files that a start waits for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from memd.hostmem import deadline

T = TypeVar("T")


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The results of what is not waited for without end."""
    results: list[object] = []
    at_start = deadline.at_start

    def noted(work: Callable[[], T]) -> T:
        result = at_start(work)
        results.append(result)
        return result

    monkeypatch.setattr(deadline, "at_start", noted)
    return results


def test_a_file_is_read_in_time(directory: Path, bounded: list[object]) -> None:
    path = directory / "file"
    path.write_bytes(b"12345")
    assert deadline.read_at_start(str(path)) == b"12345"
    assert deadline.read_at_start(str(path), 3) == b"123"
    assert bounded == [b"12345", b"123"]


def test_the_writer_of_a_pipe_may_take_its_time(bounded: list[object]) -> None:
    read, write = os.pipe()
    try:
        os.write(write, b"late")
        assert deadline.read_at_start(f"/proc/self/fd/{read}", 4) == b"late"
    finally:
        os.close(read)
        os.close(write)
    assert bounded == [None]


def test_what_can_not_be_read(directory: Path) -> None:
    with pytest.raises(FileNotFoundError):
        deadline.read_at_start(str(directory / "none"))
    with pytest.raises(IsADirectoryError):
        deadline.read_at_start(str(directory))
