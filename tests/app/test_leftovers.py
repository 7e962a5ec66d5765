"""What a kill -9 leaves outside of the daemon."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, cast

import pytest

from memd.app.leftovers import remove_half_made, throw_away
from memd.server.store import Ledger, Store


class Noted:
    """A store that knows of files that were being made."""

    def __init__(self) -> None:
        self.ledger = Ledger()

    def write(self, entry: dict[str, Any]) -> None:
        self.ledger.heed(entry, b"")


def making(path: Path, *, made: os.stat_result | None = None, ago: float = 0.0) -> Noted:
    store = Noted()
    store.write({"making": 1, "path": str(path), "time": time.time() - ago})
    if made is not None:
        store.write({"made": 1, "dev": made.st_dev, "ino": made.st_ino})
    return store


def clear(store: Noted, *objects: dict[str, Any]) -> None:
    remove_half_made(cast("Store", store), objects)
    assert store.ledger.makings == {}


@pytest.fixture
def path(directory: Path) -> Path:
    return directory / "new"


def test_it_goes(path: Path) -> None:
    path.write_bytes(b"half")
    clear(making(path, made=path.stat()))
    assert not path.exists()


def test_it_goes_before_it_was_noted_which_one_it_is(path: Path) -> None:
    store = making(path)
    path.touch()
    clear(store)
    assert not path.exists()


def test_it_is_not_there(path: Path) -> None:
    clear(making(path))
    clear(making(path / "below"))
    clear(making(path, made=os.stat("/")))


def test_somebody_else_s(path: Path) -> None:
    """Another file by that name; one with something in it; one that was there before; a link."""
    other = path.with_name("other")
    other.touch()
    path.touch()
    clear(making(path, made=other.stat()))
    assert path.exists()
    path.write_bytes(b"precious")
    clear(making(path))
    assert path.exists()
    path.write_bytes(b"")
    clear(making(path, ago=-3600))
    assert path.exists()
    path.unlink()
    path.symlink_to(other)
    clear(making(path))
    assert path.is_symlink()
    assert other.exists()


def test_an_object_s(path: Path) -> None:
    """It was whole: killed before that was noted."""
    path.touch()
    there = path.stat()
    clear(making(path, made=there), {"file": {"dev": there.st_dev, "ino": there.st_ino}}, {})
    assert path.exists()


def test_it_cannot_be_removed(path: Path) -> None:
    path.mkdir()
    clear(making(path, made=path.stat()))
    assert path.exists()


def test_data_is_thrown_away(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(b"x" * 16384)
    fd = os.open(path, os.O_RDWR)
    throw_away(fd, [4096, 8192])
    assert path.read_bytes() == b"x" * 4096 + b"\0" * 8192 + b"x" * 4096
    os.close(fd)
    throw_away(-1, [0, 4096])
    assert caplog.text == ""
    fd = os.open(path, os.O_RDONLY)
    throw_away(fd, [0, 4096])
    os.close(fd)
    assert "cannot discard the data of a deleted object: Bad file descriptor" in caplog.text
