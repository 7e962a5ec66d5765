from __future__ import annotations

from pathlib import Path

from tests.memctl.conftest import Memctl, in_terminal

TITLES = "ID  TYPE  SIZE  ACCESS  SHARE  RESIDENT  PRIVATE  SWAPPED  EXPORTS"


def test_nothing(memctl: Memctl) -> None:
    assert memctl.out("ls") == f"{TITLES}\n"
    assert memctl.data("ls") == []
    assert memctl.out("ls", "-q") == ""


def test_backends(memctl: Memctl, tmp_path: Path) -> None:
    path = tmp_path / "template"
    path.write_bytes(bytes(1 << 20))
    memctl.out("add", f"file,id=rom0,size=1M,mem-path={path},readonly=on")
    memctl.out("add", f"file,id=clone0,size=1M,mem-path={path},readonly=on,rom=off")
    memctl.out("add", "memfd,id=m0,size=2M,prealloc=on")
    memctl.out("add", "thread-context,id=t0")
    _titles, *rows = memctl.out("ls").splitlines()
    assert [" ".join(row.split()) for row in rows] == [
        "rom0 file 1 MiB ROM off 0 0 0 0",
        "clone0 file 1 MiB copy-on-write off 0 0 0 0",
        "m0 memfd 2 MiB RAM on 2 MiB 0 0 0",
    ]
    assert [each["id"] for each in memctl.data("ls")] == ["rom0", "clone0", "m0"]
    assert memctl.out("ls", "--quiet") == "rom0\nclone0\nm0\n"
    memctl.out("del", "rom0", "clone0", "m0", "t0")


def test_in_a_terminal(memctl: Memctl) -> None:
    memctl.out("add", "ram,id=m0,size=1M")
    status, shown = in_terminal(memctl.path, "ls")
    assert status == 0
    assert "\x1b[" in shown
    assert "1 MiB" in shown
    status, shown = in_terminal(memctl.path, "ls", without="rich rich.console")
    assert (status, "\x1b[" in shown, "1 MiB" in shown) == (0, False, True)
    memctl.out("del", "m0")
    id = "a-longer-id-than-there-is-room-for"
    memctl.out("add", f"ram,id={id},size=1M")
    status, shown = in_terminal(memctl.path, "ls", columns=40)
    memctl.out("del", id)
    assert status == 0
    for text in (id, "1 MiB", "RESIDENT", "EXPORTS"):
        assert text in shown
    assert "\u2026" not in shown
    status, shown = in_terminal(memctl.path, "ls")
    assert (status, "memctl add ram,id=m0,size=64M" in shown) == (0, True)
