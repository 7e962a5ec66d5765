"""Descriptions of objects, and objects made of them; each kind is in test_recorder.py."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import Any

import pytest

from memd.errors import QMPError
from memd.hostmem import access
from memd.hostmem.identity import difference
from memd.persist.restoring import restore
from memd.qom import Tree, UserCreatable
from memd.work import run_here
from tests.backends.doing import MIB, add, delete, get, refusal, region_of
from tests.hostmem.made import failing


def backend(tree: Tree, id: str = "m0") -> UserCreatable:
    obj = tree.objects.get(id)
    assert obj is not None
    return obj


def describe(tree: Tree, id: str = "m0") -> dict[str, Any]:
    obj = tree.objects.get(id)
    assert obj is not None
    return obj.describe()


def again(tree: Tree, described: dict[str, Any], fd: int) -> None:
    obj = run_here(restore(tree, described, fd))
    tree.objects.attach(obj)
    obj.relink(described)


def test_only_what_was_set_is_described(tree: Tree) -> None:
    add(tree, "memfd", size=MIB, dump=False)
    described = describe(tree)
    assert described["properties"] == {"size": MIB, "dump": False}
    assert described["map"]["length"] == MIB
    assert described["bound"] == ("default", [])
    assert described["exports"] == 0
    assert set(described["file"]) == {"dev", "ino", "type", "access", "seals"}


def test_no_page_is_touched(tree: Tree) -> None:
    """Neither where there are none, nor where there are some."""
    add(tree, "memfd", size=8 * MIB, prealloc=True)
    region = region_of(tree)
    access.write(region, "m0", 0, b"x")
    os.posix_fallocate(region.fd, 0, 4096)
    described, fd = describe(tree), os.dup(region.fd)
    delete(tree)
    blocks = os.fstat(fd).st_blocks
    assert difference(described["file"], fd) is None
    again(tree, described, fd)
    assert os.fstat(fd).st_blocks == blocks
    assert get(tree, "prealloc") is True
    assert access.read(region_of(tree), "m0", 0, 1) == b"x"


def test_another_descriptor(tree: Tree, directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(b"x" * MIB)
    add(tree, "file", size=MIB, mem_path=str(path), share=True)
    described = describe(tree)
    assert difference(described["file"], region_of(tree).fd) is None
    other = directory / "other"
    other.write_bytes(b"x" * MIB)
    for name, flags, text in (
        ("file", os.O_RDONLY, "opened otherwise"),
        ("other", os.O_RDWR, "another file"),
    ):
        fd = os.open(directory / name, flags)
        assert difference(described["file"], fd) == text
        os.close(fd)


def test_other_seals(tree: Tree) -> None:
    add(tree, "memfd", size=MIB)
    described = describe(tree)
    described["file"]["seals"] = 0
    assert difference(described["file"], region_of(tree).fd) == "sealed otherwise"


def test_why_it_is_lost(tree: Tree, directory: Path) -> None:
    path = str(directory / "file")
    for kind, options, reason in (
        ("ram", {}, "anonymous"),
        ("ram", {"share": True}, None),
        ("memfd", {}, None),
        ("memfd", {"share": False}, "copied"),
        ("file", {"mem_path": path}, "copied"),
        ("file", {"mem_path": path, "share": True}, None),
        ("file", {"mem_path": path, "readonly": True}, None),
        ("file", {"mem_path": path, "readonly": True, "rom": "off"}, "copied"),
        ("file", {"mem_path": "/dev/zero", "share": True}, "anonymous"),
        ("file", {"mem_path": "/dev/zero"}, "anonymous"),
        ("file", {"mem_path": "/dev/zero", "readonly": True}, None),
    ):
        add(tree, kind, size=MIB, **options)
        assert backend(tree).lost_reason() == reason, (kind, options)
        delete(tree)


def test_pages_of_a_private_mapping(tree: Tree, directory: Path) -> None:
    (directory / "file").write_bytes(b"x" * MIB)
    for id in ("m0", "m1", "m2"):
        add(tree, "file", id, size=MIB, mem_path=str(directory / "file"))
    access.read(region_of(tree, "m1"), "m1", 0, MIB)
    access.write(region_of(tree, "m2"), "m2", MIB - 1, b"y")
    found = [backend(tree, id).untouched() for id in ("m0", "m1", "m2")]
    assert found == [True, True, False]


def test_pages_that_nobody_knows_of(tree: Tree) -> None:
    """The kernel's file can't be opened."""
    add(tree, "memfd", size=MIB, share=False)
    assert backend(tree).untouched()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        assert not backend(tree).untouched()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_what_is_discarded(tree: Tree, directory: Path) -> None:
    path = directory / "file"
    path.write_bytes(b"x" * 2 * MIB)
    options: dict[str, Any] = {"size": MIB, "mem_path": str(path), "offset": 4096}
    for more, span in (
        ({"share": True, "discard_data": True}, [4096, MIB]),
        ({"share": True}, None),
        ({"discard_data": True}, None),
        ({"share": True, "readonly": True, "discard_data": True}, None),
    ):
        add(tree, "file", **options, **more)
        obj = tree.objects.get("m0")
        assert obj is not None
        assert obj.to_discard() == span
        obj.keep_data()
        delete(tree)
    assert path.read_bytes() == b"x" * 2 * MIB


def test_it_cannot_be_mapped(tree: Tree) -> None:
    """The descriptor is still the caller's."""
    add(tree, "memfd", size=MIB)
    described, fd = describe(tree), os.dup(region_of(tree).fd)
    delete(tree)
    host, tree.host = tree.host, failing(mmap=errno.ENOMEM)
    text = refusal(lambda: run_here(restore(tree, described, fd)))
    tree.host = host
    assert text == "unable to map backing store for guest RAM: Cannot allocate memory"
    described["bound"] = ["bind", [99]]
    assert "cannot bind memory" in refusal(lambda: run_here(restore(tree, described, fd)))
    os.close(fd)


def test_a_description_that_is_not_understood(tree: Tree) -> None:
    for described in ({}, {"qom-type": "memory-backend-memfd"}, {"qom-type": 1, "id": "x"}):
        with pytest.raises(QMPError):
            run_here(restore(tree, described, -1))


def test_a_thread_context(tree: Tree) -> None:

    run_here(tree.objects.create({"qom-type": "thread-context", "id": "t0"}))
    assert describe(tree, "t0")["properties"] == {}
    delete(tree, "t0")
    some = sorted(os.sched_getaffinity(0))[:1]
    run_here(tree.objects.create({"qom-type": "thread-context", "id": "t0", "cpu-affinity": some}))
    described = describe(tree, "t0")
    delete(tree, "t0")
    if len(os.sched_getaffinity(0)) > 1:
        assert described["properties"] == {"cpu-affinity": some}
    again(tree, described, -1)
    assert get(tree, "cpu-affinity", "t0") == some
