"""memory-backend-file's two resources and the options over them: share, readonly, rom."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.differential.harness import Pair, Side
from tests.differential.kernel import open_files

MIB = 1 << 20
UNSET = "unset"


def stock(side: Side) -> None:
    """The paths that a mem-path may name."""
    (side.scratch / "full").write_bytes(b"template" * (MIB // 8))
    (side.scratch / "empty").touch()
    (side.scratch / "dir").mkdir()
    (side.scratch / "link").symlink_to("full")


def options(share: Any, readonly: Any, rom: str) -> dict[str, Any]:
    chosen = {"share": share, "readonly": readonly, "rom": rom}
    return {name: value for name, value in chosen.items() if value != UNSET}


@pytest.mark.parametrize("path", ["full", "empty", "missing", "dir", "link"])
@pytest.mark.parametrize("readonly", [UNSET, False, True])
@pytest.mark.parametrize("share", [UNSET, False, True])
def test_table(pair: Pair, share: Any, readonly: Any, path: str) -> None:
    """How the file is opened and mapped, what is refused, and what lies there afterwards."""
    for rom in (UNSET, "auto", "on", "off"):
        pair.each(stock)
        before = pair.subject.holdings()
        answer = pair.add(
            "file", size=MIB, mem_path=f"@DIR@/{path}", **options(share, readonly, rom)
        )
        pair.expect_same_kernel()
        reference, subject = pair.each(lambda side: open_files(side.server.pid, side.scratch))
        assert subject == reference
        if "error" in answer:
            pair.subject.expect_unchanged(before)
        else:
            for name in ("share", "readonly", "rom", "prealloc", "reserve", "mem-path"):
                pair.ask("qom-get", {"path": "m", "property": name})
            pair.ask("query-memdev")
            pair.ask("object-del", {"id": "m"})
        pair.expect_nothing_mapped()
        pair.each(unstock)


def unstock(side: Side) -> None:
    for name in ("full", "empty", "missing", "link"):
        (side.scratch / name).unlink(missing_ok=True)
    (side.scratch / "dir").rmdir()


@pytest.mark.parametrize(
    ("share", "readonly", "discard"), list(itertools.product([False, True], repeat=3))
)
def test_discard_data(pair: Pair, share: bool, readonly: bool, discard: bool) -> None:
    """What deletion does to the file's content."""
    pair.each(stock)
    arguments: dict[str, Any] = {"share": share, "readonly": readonly, "discard_data": discard}
    pair.add("file", size=MIB, mem_path="@DIR@/full", **arguments)
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
    for readonly in (False, True):
        for share in (False, True):
            answer = pair.add(
                "file",
                size=size,
                offset=offset,
                mem_path="@DIR@/file",
                share=share,
                readonly=readonly,
            )
            pair.expect_same_kernel()
            if "return" in answer:
                pair.ask("object-del", {"id": "m"})
    pair.expect_nothing_mapped()


def test_a_file_of_no_whole_pages_is_left_alone(pair: Pair) -> None:
    pair.each(lambda side: (side.scratch / "odd").write_bytes(b"x" * (MIB + 100)))
    for size in (MIB, MIB + 100, MIB + 4096, 2 * MIB):
        for readonly in (False, True):
            answer = pair.add("file", size=size, mem_path="@DIR@/odd", readonly=readonly)
            pair.expect_same_kernel()
            if "return" in answer:
                pair.ask("object-del", {"id": "m"})


def test_two_backends_share_a_file(pair: Pair) -> None:
    pair.each(stock)
    for name, readonly, share in (("a", False, True), ("b", True, True), ("c", False, False)):
        pair.add("file", name, size=MIB, mem_path="@DIR@/full", readonly=readonly, share=share)
    pair.expect_same_regions(count=3)
    for name in "bac":
        pair.ask("object-del", {"id": name})
        pair.expect_same_kernel()


def test_unnamed_files_stay_unnamed(pair: Pair) -> None:
    """A directory as mem-path gives each backend a file of its own without a name."""
    for name in ("a", "b"):
        pair.add("file", name, size=MIB, mem_path="@DIR@", share=True)
    pair.expect_same_regions(count=2)
    assert pair.subject.files() == {}


def test_a_relative_path(pair: Pair) -> None:
    """It is relative to where the server runs (a chroot moves the reference's)."""
    if pair.reference.server.argv[0] == "chroot":
        pytest.skip("not here: the reference runs elsewhere")
    pair.each(lambda side: (side.scratch / "dir").mkdir())
    pair.add("file", "a", size=MIB, mem_path="new", share=True)
    pair.add("file", "b", size=MIB, mem_path="dir/../dir/new", share=True)
    pair.add("file", "c", size=MIB, mem_path="nowhere/new", share=True)
    pair.expect_same_kernel()
    assert Path("new").exists() is False
