"""memory-backend-file's two resources and the options over them: share, readonly, rom."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

from memd.testing import Server as KitServer
from tests.differential.harness import Pair, Side, settle
from tests.differential.kernel import open_files
from tests.differential.server import Monitor

MIB = 1 << 20
SIZE = 1 << 16
"""Of the files that are there: their content is read again and again."""

UNSET = "unset"


def stock(side: Side, where: str = "") -> None:
    """The paths that a mem-path may name."""
    place = side.scratch / where
    place.mkdir(exist_ok=True)
    (place / "full").write_bytes(b"template" * (SIZE // 8))
    (place / "empty").touch()
    (place / "dir").mkdir()
    (place / "link").symlink_to("full")


def options(share: Any, readonly: Any, rom: str) -> dict[str, Any]:
    chosen = {"share": share, "readonly": readonly, "rom": rom}
    return {name: value for name, value in chosen.items() if value != UNSET}


@pytest.mark.parametrize("path", ["full", "empty", "missing", "dir", "link"])
@pytest.mark.parametrize("readonly", [UNSET, False, True])
@pytest.mark.parametrize("share", [UNSET, False, True])
def test_table(pair: Pair, share: Any, readonly: Any, path: str) -> None:
    """How the file is opened and mapped, what is refused, and what lies there afterwards."""
    made = []
    for rom in (UNSET, "auto", "on", "off"):
        for side in (pair.reference, pair.subject):
            stock(side, rom)
        before = pair.subject.holdings()
        where = f"@DIR@/{rom}/{path}"
        answer = pair.add("file", rom, size=SIZE, mem_path=where, **options(share, readonly, rom))
        if "error" in answer:
            pair.subject.expect_unchanged(before)
            continue
        made.append(rom)
        for name in ("share", "readonly", "rom", "prealloc", "reserve", "mem-path"):
            pair.ask("qom-get", {"path": rom, "property": name})
    pair.ask("query-memdev")
    pair.expect_same_files()
    pair.expect_same_regions(len(made))
    reference, subject = pair.each(lambda side: open_files(side.server.pid, side.scratch))
    assert subject == reference
    for name in made:
        pair.ask("object-del", {"id": name})
    pair.expect_nothing_mapped()


@pytest.mark.parametrize(
    ("share", "readonly", "discard"), list(itertools.product([False, True], repeat=3))
)
def test_discard_data(pair: Pair, share: bool, readonly: bool, discard: bool) -> None:
    """What deletion does to the file's content."""
    pair.each(stock)
    arguments: dict[str, Any] = {"share": share, "readonly": readonly, "discard_data": discard}
    pair.add("file", size=SIZE, mem_path="@DIR@/full", **arguments)
    pair.ask("object-del", {"id": "m"})
    pair.expect_same_kernel()


@pytest.mark.parametrize("offset", [0, 4096, MIB])
@pytest.mark.parametrize("size", [4096, MIB, MIB + 4096, 3 * MIB])
@pytest.mark.parametrize("existing", [None, 0, 4096, MIB, 4 * MIB])
def test_sizes(pair: Pair, existing: int | None, size: int, offset: int) -> None:
    """Which files are sized, which are left as they are and which are too small."""

    def prepare(side: Side) -> None:
        if existing is not None:
            with (side.scratch / "file").open("wb") as file:
                file.truncate(existing)

    pair.each(prepare)
    file: dict[str, Any] = {"size": size, "offset": offset, "mem_path": "@DIR@/file"}
    for number, (readonly, share) in enumerate(itertools.product((False, True), repeat=2)):
        pair.add("file", f"m{number}", share=share, readonly=readonly, **file)
        pair.expect_same_files()
    pair.expect_same_regions()
    for name in pair.subject.objects():
        pair.ask("object-del", {"id": name})
    pair.expect_nothing_mapped()


def test_a_file_of_no_whole_pages_is_left_alone(pair: Pair) -> None:
    pair.each(lambda side: (side.scratch / "odd").write_bytes(b"x" * (MIB + 100)))
    for size in (MIB, MIB + 100, MIB + 4096, 2 * MIB):
        for readonly in (False, True):
            name = f"m{size}{readonly}"
            pair.add("file", name, size=size, mem_path="@DIR@/odd", readonly=readonly)
            pair.expect_same_kernel()


def test_two_backends_share_a_file(pair: Pair) -> None:
    pair.each(stock)
    for name, readonly, share in (("a", False, True), ("b", True, True), ("c", False, False)):
        pair.add("file", name, size=SIZE, mem_path="@DIR@/full", readonly=readonly, share=share)
    pair.expect_same_regions(count=3)
    for name in "bac":
        pair.ask("object-del", {"id": name})
        pair.expect_same_kernel()


@pytest.mark.parametrize("same", [True, False])
def test_discard_data_of_a_file_that_is_in_use(pair: Pair, same: bool) -> None:
    """By another object of the same process, or by one of another: the file stays, empty."""
    for owner, other in ((pair.reference, pair.subject), (pair.subject, pair.reference)):
        user = owner if same else other
        stock(owner)
        path = owner.scratch / "full"
        before = path.stat()
        memory = {"qom-type": "memory-backend-file", "mem-path": str(path), "size": SIZE}
        for side, name in ((owner, "a"), (user, "b")):
            options = {**memory, "id": name, "share": True, "discard-data": name == "a"}
            assert side.ask("object-add", options) == {"return": {}}
        owner.ask("object-del", {"id": "a"})
        (row,) = settle(user.regions, lambda rows: len(rows) == 1)
        assert (row.name.endswith("/full"), row.size) == (True, SIZE)
        assert settle(path.read_bytes, lambda content: content == bytes(SIZE)) == bytes(SIZE)
        assert os.path.samestat(path.stat(), before)
        user.ask("object-del", {"id": "b"})


@pytest.mark.parametrize("shared", [True, False])
def test_a_file_that_qemu_uses_outlives_the_backend_that_made_it(
    qemu: Side, directory: Path, shared: bool
) -> None:
    """Once another has it open, what was made is not removed, although making it is given up."""
    path = qemu.scratch / "file"
    memory: dict[str, Any] = {"qom-type": "memory-backend-file", "size": MIB, "mem-path": str(path)}
    with KitServer() as memd:
        memd.fault(syscall="populate", stall=True)
        maker = Monitor(memd.socket)
        making = {**memory, "id": "a", "prealloc": True, "share": True}
        maker.send(json.dumps({"execute": "object-add", "arguments": making}).encode())
        while not (path.exists() and path.stat().st_size == MIB):
            pass
        qemu.ask("object-add", {**memory, "id": "b", "mem-path": "@DIR@/file", "share": shared})
        memd.connect().execute("object-del", {"id": "a"})
        assert "Operation canceled" in maker.read_answer()["error"]["desc"]
        maker.close()
    assert path.exists()
    (row,) = qemu.regions()
    assert row.name == "@DIR@/file"


def test_unnamed_files_stay_unnamed(pair: Pair) -> None:
    """A directory as mem-path gives each backend a file of its own without a name."""
    for name in ("a", "b"):
        pair.add("file", name, size=MIB, mem_path="@DIR@", share=True)
    pair.expect_same_regions(count=2)
    assert pair.subject.files() == {}


def test_a_relative_path(pair: Pair) -> None:
    """It is relative to where the server runs."""
    pair.each(lambda side: (side.scratch / "dir").mkdir())
    pair.add("file", "a", size=MIB, mem_path="new", share=True)
    pair.add("file", "b", size=MIB, mem_path="dir/../dir/new", share=True)
    pair.add("file", "c", size=MIB, mem_path="nowhere/new", share=True)
    pair.expect_same_kernel()
    assert Path("new").exists() is False
