from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memd.hostmem import files
from tests.conftest import need_shm
from tests.descriptors import open_descriptors
from tests.hostmem.made import HOST


class Watcher:
    """Writes down what it is told.

    Attributes:
        full: from which of them on nothing can be noted.
    """

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.full = ""

    def _note(self, kind: str, *what: Any) -> None:
        if kind == self.full:
            raise OSError(28, "No space left on device")
        self.told.append((kind, *what))

    def making(self, path: bytes) -> int:
        self._note("making", path, os.path.lexists(path))
        return len(self.told)

    def made(self, number: int, fd: int) -> None:
        self._note("made", number, os.fstat(fd).st_size)

    def settled(self, number: int) -> None:
        self._note("settled", number)


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    HOST.creations = watcher = Watcher()
    yield watcher
    HOST.creations = None


def test_a_file(watcher: Watcher, directory: Path) -> None:
    path = directory / "new"
    backing = files.open_file(HOST, str(path), False, "m")
    noted = [("making", os.fsencode(path), False), ("made", 1, 0)]
    assert watcher.told == noted
    backing.undo()
    assert watcher.told == [*noted, ("settled", 1)]
    assert not path.exists()


def test_a_file_that_is_taken(watcher: Watcher, directory: Path) -> None:
    """That it is an object's is not for this room to say."""
    backing = files.open_file(HOST, str(directory / "new"), False, "m")
    os.close(backing.take())
    assert [kind for kind, *_ in watcher.told] == ["making", "made"]


def test_a_file_that_is_there(watcher: Watcher, directory: Path) -> None:
    (directory / "there").touch()
    files.open_file(HOST, str(directory / "there"), False, "m").undo()
    assert watcher.told == []


@need_shm
def test_files_that_lose_their_names(watcher: Watcher, directory: Path) -> None:
    files.open_file(HOST, str(directory), False, "m").undo()
    files.posix_shm(HOST, 0, 4096).undo()
    assert [kind for kind, *_ in watcher.told] == ["making", "made", "settled"] * 2
    assert list(directory.iterdir()) == []


def test_a_file_that_cannot_be_made(watcher: Watcher, directory: Path) -> None:
    (directory / "link").symlink_to("/nowhere/file")
    with pytest.raises(OSError, match="exists"):
        files.open_file(HOST, str(directory / "link"), False, "m")
    assert {kind for kind, *_ in watcher.told} == {"making", "settled"}


@pytest.mark.parametrize("full", ["making", "made"])
def test_it_cannot_be_noted(watcher: Watcher, directory: Path, full: str) -> None:
    """Then it is not made."""
    watcher.full = full
    before = len(open_descriptors())
    with pytest.raises(OSError, match="No space left"):
        files.open_file(HOST, str(directory / "new"), False, "m")
    assert list(directory.iterdir()) == []
    assert len(open_descriptors()) == before


def test_its_end_cannot_be_noted(watcher: Watcher, directory: Path) -> None:
    backing = files.open_file(HOST, str(directory / "new"), False, "m")
    watcher.full = "settled"
    backing.undo()
    assert list(directory.iterdir()) == []


def test_nobody_wants_to_know(directory: Path) -> None:
    files.open_file(HOST, str(directory / "new"), False, "m").undo()
    HOST.settle(None)
    HOST.settle(1)
