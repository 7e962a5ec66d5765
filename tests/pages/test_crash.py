"""What was stored is there and nothing else, whatever kills the process or fills the disk."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from memd.errors import QMPError
from memd.pages.store import Store
from tests.differential.server import TREE
from tests.pages import busy_store
from tests.pages.memory import PAGE, save, unpacked

KILLS = 8


def reachable(store: Store) -> set[str]:
    """The blobs that names lead to."""
    found: set[str] = set()
    for name in store.names():
        for version in store.entry(name).versions:
            found |= {version.manifest, version.places, *store.places_of(version).packs}
            found |= {blob.digest for blob in store.manifest_of(version).blobs.values()}
    return found


def test_killed_at_any_moment(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    chance = random.Random(os.environ.get("MEMD_SEED", "1"))
    turn = seen = 0
    # On a busy machine none may get to store anything.
    while turn < KILLS or not seen:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.pages.busy_store", str(directory), str(turn)],
            cwd=TREE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(chance.random() * 0.3)
        process.kill()
        process.wait()
        process.stdout.close()
        turn += 1
        store = Store(str(directory))
        names = store.names()
        seen += len(names)
        for name in names:
            assert store.verify(name).damaged == []
            template = store.open(name)
            assert template.read(0, template.size) == busy_store.content(name)
            assert template.devices() == name.encode()
            template.close()
        assert set(os.listdir(store.blobs.directory)) == reachable(store)
        assert sorted(os.listdir(directory / "names")) == names
        store.close()


def noise(pages: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(pages * PAGE)


def test_a_full_disk(tmp_path: Path, mount: Callable[..., None]) -> None:
    small = tmp_path / "small"
    mount("tmpfs", small, "size=4M,mode=700")
    store = Store(str(small / "store"))
    save(store, "a", noise(200, 1))
    there = set(os.listdir(store.blobs.directory))
    full = "No space left on device"
    stored = pytest.raises(QMPError, match=f"cannot store template 'b': {full}")
    with stored:
        save(store, "b", noise(2000, 2), "a")
    assert store.names() == ["a"]
    assert set(os.listdir(store.blobs.directory)) == there
    # The working set needs as much again, and the template is as it was.
    save(store, "c", noise(450, 3))
    with pytest.raises(QMPError, match=f"cannot change template 'c': {full}"):
        store.set_working_set("c", range(450))
    assert store.verify("c").damaged == []
    # There is no room to unpack it, but it can be read.
    template = store.open("c")
    with pytest.raises(QMPError, match=f"cannot unpack template 'c': {full}"):
        template.fetch(0, template.size)
    assert template.read(0, template.size) == noise(450, 3)
    template.close()
    store.delete("c")
    save(store, "d", noise(100, 4))
    store.close()
    # A new store where there is no room at all.
    with pytest.raises(OSError, match=full):
        (small / "fill").write_bytes(bytes(4 << 20))
    with pytest.raises(QMPError, match=f"as a template store: {full}"):
        Store(str(small / "another"))
    again = Store(str(small / "store"), readonly=True)
    assert again.names() == ["a", "d"]
    again.close()


def test_unpacked_copies_make_room_for_each_other(
    tmp_path: Path, mount: Callable[..., None]
) -> None:
    small = tmp_path / "small"
    mount("tmpfs", small, "size=7M,mode=700")
    store = Store(str(small / "store"))
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        save(store, name, noise(300, seed))
    used = store.open("a")
    used.fetch(0, used.size)
    for name, seed in (("b", 2), ("c", 3), ("b", 2)):
        template = store.open(name)
        template.fetch(0, template.size)
        assert unpacked(template, 0, template.size) == noise(300, seed)
        template.close()
    # What is in use stays.
    assert unpacked(used, 0, used.size) == noise(300, 1)
    copies = (small / "store" / "unpacked").rglob("*")
    assert len([each for each in copies if each.is_file()]) == 2
    used.close()
    store.close()


def test_fetched_without_room_to_keep_it(tmp_path: Path, mount: Callable[..., None]) -> None:
    """Or to unpack it: it is read all the same, and fetched again."""
    small = tmp_path / "small"
    mount("tmpfs", small, "size=1M,mode=700")
    origin = Store(str(tmp_path / "origin"))
    save(origin, "a", noise(600, 5))
    origin.close()
    store = Store(str(small / "store"), sources=[f"file:{tmp_path}/origin"])
    store.locate("a")
    template = store.open("a")
    assert template.read(0, template.size) == noise(600, 5)
    template.close()
    with pytest.raises(QMPError, match="No space left on device"):
        store.pull("a")
    assert not [each for each in os.listdir(store.blobs.directory) if each.startswith("new.")]
    store.close()
