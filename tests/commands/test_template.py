"""The commands about templates."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from memd.errors import QMPError
from memd.hostmem.host import Host
from memd.hostmem.paths import Roots
from memd.pages.manifest import TemplateBlock
from memd.pages.templates import Templates, open_store
from memd.work import run_here
from tests.commands.fakes import Console
from tests.pages.memory import PAGE, memory, save

DATA = memory(300)


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Console]:
    console = Console()
    url = f"file:{tmp_path}/shared"
    store, _is_used = run_here(open_store(str(tmp_path / "store"), [url], None))
    console.daemon.templates = Templates(store, Mock(), Mock(), Mock())
    yield console
    store.close()


def fill(console: Console, name: str = "a", base: str | None = None, data: bytes = DATA) -> None:
    assert console.daemon.templates is not None
    save(
        *(console.daemon.templates.store, name, data, base),
        devices=b"QEVM" * 100,
        machine="pc-q35-10.0",
        qemu_version="10.0.2",
        blocks=(TemplateBlock("ram", len(data), PAGE),),
    )


def test_without_a_store() -> None:
    console = Console()
    assert console("x-template-list") == []
    assert console("x-template-status") == []
    for name in ("query", "verify", "delete", "push", "pull"):
        error = console.refusal(f"x-template-{name}", name="a")
        assert error == ("GenericError", "there is no template store: memd needs --templates DIR")


def test_what_is_told(console: Console) -> None:
    assert console("x-template-list") == []
    fill(console)
    fill(console, "b", "a", DATA[: 200 * PAGE] + memory(50, seed=9))
    first, second = console("x-template-list")
    assert first == {
        "name": "a",
        "digest": first["digest"],
        "size": len(DATA),
        "data": sum(PAGE for at in range(0, len(DATA), PAGE) if any(DATA[at : at + PAGE])),
        "page-size": PAGE,
        "chunks": first["chunks"],
        "stored": first["stored"],
        "present": first["stored"],
        "working-set": 0,
        "devices": 400,
        "machine": "pc-q35-10.0",
        "qemu-version": "10.0.2",
    }
    assert second["name"] == "b"
    info = console("x-template-query", name="a")
    assert 0 < info["shared"] < info["stored"] == first["stored"]
    assert info["blocks"] == [{"id": "ram", "length": len(DATA), "page-size": PAGE}]
    assert console.refusal("x-template-query", name="c")[1] == "template 'c' not found"
    assert "is not a name of a template" in console.refusal("x-template-query", name="../a")[1]


def test_pushed_deleted_and_pulled(console: Console, tmp_path: Path) -> None:
    fill(console)
    url = f"file:{tmp_path}/shared"
    assert console("x-template-push", name="a") == {"source": url}
    assert console("x-template-list")[0]["source"] == url
    assert console("x-template-delete", name="a") == {}
    assert console("x-template-list") == []
    assert console("x-template-pull", name="a", url=url) == {"source": url}
    found = console("x-template-verify", name="a")
    assert (found["damaged"], found["repaired"]) == ([], 0)
    assert found["chunks"] == console("x-template-list")[0]["chunks"]
    assert console.refusal("x-template-pull", name="a", url="file:/etc")[1] == (
        "'file:/etc' is not one of the template sources"
    )


def test_progress_is_told(console: Console) -> None:
    fill(console)
    running = console.begin("x-template-verify", name="a")
    job = running.job
    assert job.progress is not None
    assert job.progress() is None
    running.finish()
    event = job.progress()
    assert event is not None
    data = sum(PAGE for at in range(0, len(DATA), PAGE) if any(DATA[at : at + PAGE]))
    assert (event.name, event.data) == (
        "X_TEMPLATE_PROGRESS",
        {"name": "a", "done": data, "total": data},
    )


def test_exported_for_local_clones(console: Console, tmp_path: Path) -> None:
    data = DATA + bytes(16 << 20) + DATA
    fill(console, data=data)
    file, devices = tmp_path / "memory", tmp_path / "devices"
    console("x-template-export", name="a", filename=str(file), devices=str(devices))
    assert file.read_bytes() == data
    assert devices.read_bytes() == b"QEVM" * 100
    there = file.stat()
    assert there.st_mode & 0o777 == 0o600
    assert there.st_blocks * 512 < 4 << 20
    assert console.refusal("x-template-export", name="a", filename=str(file))[1] == (
        f"cannot save 'a' to '{file}': File exists"
    )
    # Both are there, or none is.
    other = tmp_path / "other"
    text = console.refusal(
        "x-template-export", name="a", filename=str(other), devices=str(devices)
    )[1]
    assert text == f"cannot save 'a' to '{devices}': File exists"
    assert not other.exists()
    same = f"{tmp_path}/./other"
    text = console.refusal("x-template-export", name="a", filename=str(other), devices=same)[1]
    assert text == "the memory and the devices can't be one file"
    text = console.refusal("x-template-export", name="a", filename="/nowhere/a\0b")[1]
    assert text == "cannot save 'a' to '/nowhere/a\0b': No such file or directory"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["devices", "memory", "store"]


def test_exported_where_the_name_is_taken_meanwhile(console: Console, tmp_path: Path) -> None:
    """The devices' file does not stay alone."""
    fill(console)
    file, devices = tmp_path / "memory", tmp_path / "devices"

    class Slow(Host):
        """What is written takes its time to come to the disk."""

        def sync(self, fd: int) -> None:
            super().sync(fd)
            # The memory is the last that is written.
            if os.fstat(fd).st_size == len(DATA):
                file.write_bytes(b"another's")

    console.daemon.tree.host = Slow()
    text = console.refusal("x-template-export", name="a", filename=str(file), devices=str(devices))[
        1
    ]
    assert text == f"cannot save 'a' to '{file}': File exists"
    assert file.read_bytes() == b"another's"
    assert not devices.exists()


def test_what_is_damaged_is_not_exported(console: Console, tmp_path: Path) -> None:
    fill(console)
    store = console.daemon.templates.store  # type: ignore[union-attr]
    pack = max(Path(store.blobs.directory).iterdir(), key=os.path.getsize)
    broken = bytearray(pack.read_bytes())
    # Of one bit, zlib's own checksum might be all that is hit: nobody looks at that.
    for at in range(len(broken) // 2, len(broken) // 2 + 8):
        broken[at] ^= 0xFF
    pack.write_bytes(broken)
    assert (
        "is damaged"
        in console.refusal("x-template-export", name="a", filename=str(tmp_path / "memory"))[1]
    )
    assert not (tmp_path / "memory").exists()
    assert len(console("x-template-verify", name="a")["damaged"]) == 1


def test_below_the_roots_alone(console: Console, tmp_path: Path) -> None:
    fill(console)
    (tmp_path / "allowed").mkdir()
    roots = console.daemon.tree.host.roots = Roots()
    roots.add(str(tmp_path / "allowed"))
    try:
        with pytest.raises(QMPError, match="cannot save 'a'"):
            console("x-template-export", name="a", filename=str(tmp_path / "memory"))
        console("x-template-export", name="a", filename=str(tmp_path / "allowed" / "memory"))
    finally:
        roots.close()


def test_the_store_and_its_sources(console: Console, tmp_path: Path) -> None:
    url = f"file:{tmp_path}/shared"
    [told] = console("x-template-status")
    error = f"template source '{url}': No such file or directory"
    assert told.pop("room") > 0
    assert isinstance(told.pop("shares-blocks"), bool)
    assert told == {
        "directory": f"{tmp_path}/store",
        "templates": 0,
        "stored": 0,
        "cached": 0,
        "sources": [{"url": url, "error": error}],
    }
    fill(console)
    console("x-template-push", name="a")
    [told] = console("x-template-status")
    assert (told["templates"], told["sources"]) == (1, [{"url": url}])
