"""Disks that fail or are full: at open, when a page is read in, at a save."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.differential.harness import Side
from tests.faults.conftest import MIB, Broken, arguments, error
from tests.memctl.conftest import Memctl

IO = "Input/output error"


def test_pages_that_cannot_be_read_in(memd: Side, broken: Broken) -> None:
    """An error at whatever touches them, where a process's own access would be SIGBUS."""
    path = broken.path / "file"
    path.write_bytes(b"x" * MIB)
    request = arguments("file", mem_path=str(path), readonly=True, rom="off")
    assert memd.ask("object-add", request) == {"return": {}}
    broken.fail("read", errno.EIO)
    where = {"id": "m", "offset": 4096, "length": 4096}
    assert error(memd.ask("x-memdev-read", where)).startswith("cannot read 'm' at offset 4096: ")
    write = {"id": "m", "offset": 4096, "data": "AAAA"}
    assert error(memd.ask("x-memdev-write", write)).startswith("cannot write 'm' at offset 4096: ")
    text = error(memd.ask("qom-set", {"path": "m", "property": "prealloc", "value": True}))
    assert text.startswith("qemu_prealloc_mem: preallocating memory failed: ")
    text = error(memd.ask("x-memdev-save", {"id": "m", "filename": "@DIR@/saved"}))
    assert text == f"cannot save 'm' to '@DIR@/saved': {IO}"
    assert not list(memd.scratch.glob("saved*"))
    broken.mend()
    answer = memd.ask("x-memdev-read", {**where, "length": 3})
    assert answer == {"return": {"data": "eHh4"}}
    assert memd.ask("object-del", {"id": "m"}) == {"return": {}}


def test_preallocation_that_cannot_read(memd: Side, broken: Broken) -> None:
    path = broken.path / "file"
    path.write_bytes(b"x" * MIB)
    before = memd.holdings()
    broken.fail("read", errno.EIO)
    for more in ({"readonly": True}, {"share": False}):
        text = error(
            memd.ask("object-add", arguments("file", mem_path=str(path), prealloc=True, **more))
        )
        assert text.startswith("qemu_prealloc_mem: preallocating memory failed: ")
    broken.mend()
    memd.expect_unchanged(before)


def test_a_file_that_cannot_be_made(memd: Side, broken: Broken) -> None:
    broken.fail("create", errno.EIO)
    path = broken.path / "new"
    text = error(memd.ask("object-add", arguments("file", mem_path=str(path))))
    assert text == f"can't open backing store {path} for guest RAM: {IO}"
    broken.mend()
    assert memd.ask("object-add", arguments("file", mem_path=str(path))) == {"return": {}}
    assert memd.ask("object-del", {"id": "m"}) == {"return": {}}


@pytest.mark.parametrize("call", ["create", "write", "fsync"])
@pytest.mark.parametrize(
    ("number", "text"), [(errno.EIO, IO), (errno.ENOSPC, "No space left on device")]
)
def test_a_save_that_fails(memd: Side, broken: Broken, call: str, number: int, text: str) -> None:
    """Whole or not at all: the file that was there is as it was, and no other is."""
    memd.ask("object-add", arguments("memfd"))
    memd.ask("x-memdev-write", {"id": "m", "offset": 0, "data": "AAECAw=="})
    path = broken.path / "saved"
    path.write_bytes(b"what was there")
    before = memd.holdings()
    broken.fail(call, number)
    save = {"id": "m", "filename": str(path)}
    assert error(memd.ask("x-memdev-save", save)) == f"cannot save 'm' to '{path}': {text}"
    broken.mend()
    assert [each.name for each in broken.path.iterdir()] == ["saved"]
    assert path.read_bytes() == b"what was there"
    memd.expect_unchanged(before)
    assert memd.ask("x-memdev-save", save) == {"return": {}}
    assert path.read_bytes()[:4] == bytes(range(4))
    assert [each.name for each in broken.path.iterdir()] == ["saved"]


def test_a_full_disk(memd: Side, mount: Callable[..., None]) -> None:
    """At a save, and where a shared mapping's page is not available for a write."""
    mount("tmpfs", memd.scratch / "small", "size=2m")
    small = Path(memd.scratch / "small")
    request = arguments("file", size=4 * MIB, mem_path="@DIR@/small/file", share=True)
    assert memd.ask("object-add", request) == {"return": {}}
    write = {"id": "m", "offset": 0, "data": "A" * (3 * MIB // 3 * 4)}
    text = error(memd.ask("x-memdev-write", write))
    assert text == "cannot write 'm' at offset 0: No space left on device"
    small_write = {"id": "m", "offset": 4 * MIB - 4, "data": "AAAA"}
    assert memd.ask("x-memdev-write", small_write) in (
        {"return": {}},
        {
            "error": {
                "class": "GenericError",
                "desc": "cannot write 'm' at offset 4194300: No space left on device",
            }
        },
    )
    assert memd.ask("object-del", {"id": "m"}) == {"return": {}}
    (small / "file").unlink()
    assert memd.ask("object-add", arguments(size=4 * MIB, prealloc=True)) == {"return": {}}
    assert memd.ask("x-memdev-write", {"id": "m", "offset": 0, "data": "/" * 4 * MIB}) == {
        "return": {}
    }
    text = error(memd.ask("x-memdev-save", {"id": "m", "filename": "@DIR@/small/saved"}))
    assert text == "cannot save 'm' to '@DIR@/small/saved': No space left on device"
    assert list(small.iterdir()) == []


def test_a_template_where_files_have_names(
    memd: Side, broken: Broken, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FUSE has no files without one. Nothing of what fails stays."""
    memctl = Memctl(memd.server.path, capsys)
    image, path = directory / "image", broken.path / "template"
    image.write_bytes(os.urandom(MIB))
    words = ["template", "make", str(path), "--from", str(image), "--size"]
    memctl.out(*words, "1M")
    assert path.read_bytes() == image.read_bytes()
    assert os.listdir(broken.path) == ["template"]
    path.unlink()
    memctl.error(*words, "4k")
    # libfuse keeps what is unlinked before it learns of the last close as ".fuse_hidden...".
    assert [name for name in os.listdir(broken.path) if not name.startswith(".fuse")] == []
