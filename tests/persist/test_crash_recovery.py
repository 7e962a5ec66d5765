"""What a kill -9 leaves outside of the daemon."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from memd.hostmem.host import Host
from memd.hostmem.paths import Roots
from memd.persist.crash_recovery import discard_rest, remove_half_made
from memd.persist.object_log import ObjectLog
from tests.conftest import need_shm
from tests.users import STRANGER, need_root


def making(path: Path, *, made: os.stat_result | None = None, ago: float = 0.0) -> ObjectLog:
    log = ObjectLog()
    log.write({"making": 1, "path": str(path), "time": time.time() - ago})
    if made is not None:
        log.write({"made": 1, "dev": made.st_dev, "ino": made.st_ino})
    return log


def clear(log: ObjectLog, *objects: dict[str, Any], roots: Roots | None = None) -> None:
    remove_half_made(log, objects, Host(roots))
    assert log.state.creations == {}
    log.close()


@pytest.fixture
def path(directory: Path) -> Path:
    return directory / "new"


def test_it_goes(path: Path) -> None:
    path.write_bytes(b"half")
    clear(making(path, made=path.stat()))
    assert not path.exists()


@need_root
@need_shm
@pytest.mark.parametrize("noted", [False, True])
def test_an_ordinary_user_s_that_lets_nobody_open_it(noted: bool) -> None:
    """As shared memory is made."""
    path = Path(f"/dev/shm/memd-test-{os.getpid()}")
    os.seteuid(STRANGER)
    try:
        log = making(path)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0))
        if noted:
            found = path.stat()
            log.write({"made": 1, "dev": found.st_dev, "ino": found.st_ino})
        clear(log)
        assert not path.exists()
    finally:
        os.seteuid(0)
        path.unlink(missing_ok=True)


def test_it_goes_before_it_was_noted_which_one_it_is(path: Path) -> None:
    log = making(path)
    path.touch()
    clear(log)
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
    discard_rest(fd, [4096, 8192])
    assert path.read_bytes() == b"x" * 4096 + b"\0" * 8192 + b"x" * 4096
    os.close(fd)
    discard_rest(-1, [0, 4096])
    assert caplog.text == ""
    fd = os.open(path, os.O_RDONLY)
    discard_rest(fd, [0, 4096])
    os.close(fd)
    assert "cannot discard the data of a deleted object: Bad file descriptor" in caplog.text


def test_a_directory_that_was_exchanged(directory: Path) -> None:
    """With `--mem-root` nothing is removed outside, wherever the path leads by now."""
    root, outside = directory / "root", directory / "outside"
    (root / "below").mkdir(parents=True)
    outside.mkdir()
    roots = Roots()
    roots.add(str(root))
    path = root / "below" / "new"
    half_made = making(path)
    (outside / "new").touch()
    (root / "below").rmdir()
    (root / "below").symlink_to(outside)
    clear(half_made, roots=roots)
    assert (outside / "new").exists()
    (root / "below").unlink()
    (root / "below").mkdir()
    half_made = making(path)
    path.touch()
    clear(half_made, roots=roots)
    assert not path.exists()
    roots.close()


def test_a_file_that_others_use(path: Path) -> None:
    """It has become somebody's memory: it stays."""
    path.touch()
    half_made = making(path, made=path.stat())
    with path.open("r+b"):
        clear(half_made)
    assert path.exists()
