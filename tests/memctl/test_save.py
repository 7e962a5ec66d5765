from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.differential.server import TREE
from tests.memctl.conftest import Memctl, argv
from tests.memctl.fakes import Peer, Talk, interrupt


def test_saving(memctl: Memctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is memctl's, and not the daemon's."""
    monkeypatch.chdir(tmp_path)
    Path("data").write_bytes(b"hello")
    memctl.out("add", "ram,id=m,size=1M")
    memctl.out("write", "m", "64k", "data")
    assert memctl.out("save", "m", "saved") == ""
    found = memctl.data("save", "m", "again")
    memctl.out("del", "m")
    assert found == {"id": "m", "filename": f"{tmp_path}/again"}
    data = Path("saved").read_bytes()
    assert (len(data), data[64 << 10 :][:5]) == (1 << 20, b"hello")
    assert os.stat("saved").st_blocks * 512 < 1 << 20


def test_standard_output(memctl: Memctl) -> None:
    memctl.out("add", "ram,id=m,size=9M")
    with open("/dev/urandom", "rb") as random:
        data = random.read(5 << 20)
    subprocess.run(argv(memctl.path, "write", "m", "3"), input=data, check=True, cwd=TREE)
    done = subprocess.run(
        argv(memctl.path, "save", "m", "-"), capture_output=True, check=True, cwd=TREE
    )
    assert done.stdout == bytes(3) + data + bytes((4 << 20) - 3)
    status, _out, err = memctl("save", "m", "-", "--json")
    assert (status, err) == (2, "memctl: --json and standard output exclude each other\n")
    memctl.out("del", "m")


def test_what_is_refused(memctl: Memctl, tmp_path: Path) -> None:
    assert memctl.error("save", "x", "f") == "Device 'x' not found"
    memctl.out("add", "ram,id=m,size=1M")
    text = memctl.error("save", "m", f"{tmp_path}/none/f")
    assert text == f"cannot save 'm' to '{tmp_path}/none/f': No such file or directory"
    memctl.out("del", "m")


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (("save", "m", "/f"), "/f will be there"),
        (("template", "export", "a", "/f"), "/f will be there"),
        (("template", "pull", "a"), "'a' will be pulled"),
        (("template", "push", "a"), "'a' will be pushed"),
        (("template", "verify", "a"), "all of 'a' will be read"),
    ],
)
def test_an_interrupt(fake: Callable[[Talk], Memctl], words: tuple[str, ...], left: str) -> None:
    """The daemon can't be stopped from it, which is said."""
    asked = threading.Event()

    def talk(peer: Peer, request: dict[str, Any]) -> None:
        asked.set()

    process = subprocess.Popen(
        argv(fake(talk).path, *words), stderr=subprocess.PIPE, text=True, cwd=TREE
    )
    assert asked.wait(60)
    interrupt(process.pid)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == f"memctl: the daemon goes on, and {left}\n"
