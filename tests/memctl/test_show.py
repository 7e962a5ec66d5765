from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.memctl.conftest import Memctl, in_terminal
from tests.memctl.fakes import Peer, Talk
from tests.memctl.test_backends import STAT


@pytest.fixture
def clone(memctl: Memctl, tmp_path: Path) -> Any:
    """A backend `c` on a file, one page of which is written."""
    path = tmp_path / "template"
    path.write_bytes(bytes(1 << 20))
    data = tmp_path / "data"
    data.write_bytes(b"x")
    memctl.out("add", f"file,id=c,size=1M,mem-path={path},readonly=on,rom=off")
    memctl.out("write", "c", "8k", str(data))
    yield path
    memctl.out("del", "c")


def test_all_of_a_backend(memctl: Memctl, clone: Path) -> None:
    lines = memctl.out("show", "c").splitlines()
    assert lines[:6] == [
        "id:        c",
        "type:      memory-backend-file",
        "size:      1 MiB (1048576 bytes)",
        "access:    copy-on-write",
        "share:     off",
        "page size: 4 KiB",
    ]
    assert "private:   4 KiB" in lines
    for line in (f"  mem-path={clone}", "  readonly=on", "  rom=off", "  host-nodes="):
        assert line in lines
    mapping = lines[lines.index("mapping:") + 1]
    assert " rw-p 00000000 " in mapping
    assert mapping.endswith(f" {clone}")
    meaning = lines[lines.index("what that means:") + 1 :]
    assert meaning[0].startswith(f"  {clone} is opened read-only")
    assert any("a page is copied when it is first written" in line for line in meaning)
    assert not any("It would" in line for line in meaning)


def test_terminals_are_not_told_what_to_do(memctl: Memctl, tmp_path: Path) -> None:
    """By the client that has chosen the path."""
    path = str(tmp_path / "a\x1b]0;title\x07\nsize: 0")
    memctl.out("add", f"file,id=c,size=4k,share=on,mem-path={path}")
    try:
        shown = memctl.out("show", "c")
        exported = memctl.out("export", "c")
    finally:
        memctl.out("del", "c")
    assert rf"  mem-path={tmp_path}/a\x1b]0;title\x07\nsize: 0" in shown.splitlines()
    for text in (shown, exported):
        assert text.replace("\n", "").isprintable()
        assert "\nsize: 0" not in text


def test_json(memctl: Memctl, clone: Path) -> None:
    found = memctl.data("show", "c")
    assert sorted(found) == ["explanation", "mapping", "properties", "stat"]
    assert found["stat"]["private-dirty"] == 4096
    assert found["properties"]["rom"] == "off"
    assert "type" not in found["properties"]
    assert not any("[" in name for name in found["properties"])
    assert len(found["mapping"]) == 1
    assert found["explanation"]["writes"] == "private"


@pytest.mark.parametrize(
    "object", ["ram,size=1M", "memfd,size=1M,share=off", "shm,size=1M", "memfd,size=1M,seal=off"]
)
def test_other_backends_are_explained(memctl: Memctl, object: str) -> None:
    memctl.out("add", f"{object},id=m,prealloc=on,merge=off,dump=off")
    assert memctl.data("show", "m")["explanation"]["verdict"] == "works"
    memctl.out("del", "m")


def test_what_can_not_be_explained_any_more(memctl: Memctl, clone: Path) -> None:
    clone.unlink()
    assert memctl.data("show", "c")["explanation"] is None
    out = memctl.out("show", "c")
    assert "what that means" not in out
    assert "(deleted)" in out
    clone.write_bytes(b"")


def test_what_is_no_backend(memctl: Memctl) -> None:
    assert memctl.error("show", "x") == "Device 'x' not found"


def old(peer: Peer, request: dict[str, Any]) -> None:
    """A daemon that does not know x-memdev-map, nor how to explain."""
    name = request["execute"]
    if name == "x-memdev-stat":
        peer.answer(request, [STAT])
    elif name == "qom-list":
        peer.answer(request, [{"name": "size", "type": "int"}])
    elif name == "qom-get":
        peer.answer(request, 8 << 20)
    else:
        peer.refuse(request, f"The command {name} has not been found", "CommandNotFound")


def test_an_older_daemon(fake: Callable[[Talk], Memctl]) -> None:
    status, out, err = fake(old)("show", "m0")
    assert (status, out) == (1, "")
    assert err.startswith("memctl: The command x-memdev-map has not been found\n")


def test_in_a_terminal(memctl: Memctl) -> None:
    memctl.out("add", "ram,id=m,size=1M")
    status, shown = in_terminal(memctl.path, "show", "m", columns=40)
    memctl.out("del", "m")
    assert status == 0
    assert "\x1b[1mproperties:" in shown
    # Long lines are the terminal's to fold: they can be copied.
    assert max(map(len, shown.splitlines())) > 60
