"""`memctl template ls|show|verify|del|push|pull|export`, beside a real daemon."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from memd.pages.store import Store
from tests.differential.server import Server
from tests.memctl.conftest import Memctl, in_terminal
from tests.pages.memory import PAGE, change, memory, save

DATA = memory(256)


@pytest.fixture
def daemon(directory: Path, start_memd: Callable[..., Server]) -> Server:
    """One with two templates, the second made with the first as its base."""
    store = Store(str(directory / "store"))
    for name, data, base in (("base", DATA, None), ("web", change(DATA, 0.1, seed=3), "base")):
        machine = {} if base else {"machine": "pc-q35-10.0\x1b[2J", "qemu_version": "10.0.2"}
        save(store, name, data, base, devices=b"" if base else b"QEVM", **machine)
    store.set_working_set("web", range(40))
    store.close()
    return start_memd(
        *("--templates", str(directory / "store")),
        *("--template-source", f"file:{directory}/shared"),
        *("--template-cache", "1G"),
    )


@pytest.fixture
def memctl(daemon: Server, capsys: pytest.CaptureFixture[str]) -> Memctl:
    return Memctl(daemon.path, capsys)


def test_no_machine_is_started_for_nothing(memctl: Memctl, directory: Path) -> None:
    started = directory / "started"
    run = ("template", "run", "none", "--", "touch", str(started))
    assert memctl.error(*run).startswith("template source 'file:")
    assert not started.exists()


def test_listed_and_shown(memctl: Memctl) -> None:
    title, *rows = memctl.out("template", "ls").splitlines()
    assert title.split() == ["NAME", "SIZE", "DATA", "STORED", "HERE", "WORKING", "SET"] + [
        *("MACHINE", "SOURCE")
    ]
    assert [row.split()[0] for row in rows] == ["base", "web"]
    assert re.fullmatch(r"base +1 MiB +\S+ KiB +\S+ KiB +100 % +- +pc-q35-10.0\S+ +-", rows[0])
    assert memctl.out("template", "ls", "-q") == "base\nweb\n"
    assert [each["name"] for each in memctl.data("template", "ls")] == ["base", "web"]
    shown = memctl.out("template", "show", "base")
    assert "digest:       sha256:" in shown
    assert "of it shared with other templates" in shown
    assert "working set:  not recorded: clones start slower" in shown
    assert "saved by QEMU 10.0.2" in shown
    assert "\x1b" not in shown
    assert "working set:  " in memctl.out("template", "show", "web")
    assert memctl.data("template", "show", "web")["devices"] == 0
    assert memctl.error("template", "show", "none") == "template 'none' not found"


def test_moved_exported_and_deleted(memctl: Memctl, directory: Path, tmp_path: Path) -> None:
    url = f"file:{directory}/shared"
    assert memctl.out("template", "push", "web") == f"web: pushed to {url}\n"
    assert memctl.data("template", "push", "base", url) == {"name": "base", "source": url}
    assert memctl.out("template", "del", "base", "web") == ""
    assert memctl.out("template", "pull", "web") == f"web: pulled from {url}\n"
    assert memctl.error("template", "pull", "none") == f"template 'none' is not at '{url}'"
    file = tmp_path / "memory"
    assert memctl.out("template", "export", "web", str(file)) == ""
    assert file.read_bytes() == change(DATA, 0.1, seed=3)
    text = memctl.error("template", "export", "web", str(tmp_path / "m"), "--devices", "d")
    assert text == "template 'web' has no devices"
    assert memctl.data("template", "del", "web") == ["web"]
    assert memctl.out("template", "ls", "-q") == ""


def test_verified(memctl: Memctl, directory: Path) -> None:
    lines = memctl.out("template", "verify").splitlines()
    assert [re.sub(r"\d+", "N", line) for line in lines] == [
        "base: N chunks, all good",
        "web: N chunks, all good",
    ]
    memctl.out("template", "push", "base")
    for pack in (directory / "store" / "blobs").iterdir():
        if pack.stat().st_size > 100 * PAGE:
            broken = bytearray(pack.read_bytes())
            broken[len(broken) // 2] ^= 1
            pack.write_bytes(broken)
    status, out, _err = memctl("template", "verify", "web")
    assert status == 1
    assert "1 DAMAGED" in out
    assert "1 damaged and fetched anew" in memctl.out("template", "verify", "base")
    assert memctl.data("template", "verify", "web")["web"]["damaged"] == []


def test_on_a_terminal(daemon: Server) -> None:
    status, shown = in_terminal(daemon.path, "template", "ls", columns=160)
    assert status == 0
    assert "web" in shown


def test_a_daemon_without_a_store(
    start_memd: Callable[..., Server], capsys: pytest.CaptureFixture[str]
) -> None:
    memctl = Memctl(start_memd().path, capsys)
    assert memctl.data("template", "ls") == []
    assert (
        memctl.error("template", "show", "a")
        == "there is no template store: memd needs --templates DIR"
    )


def test_the_doctor_looks_at_the_store(memctl: Memctl, directory: Path) -> None:
    checks = {each["name"]: each for each in json.loads(memctl("--json", "doctor")[1])["checks"]}
    assert checks["templates"]["found"].startswith(f"2 in {directory}/store, ")
    assert "share" in checks["template files"]["found"]
    source = checks["template source"]
    assert source["state"] == "bad"
    assert (
        source["found"] == f"template source 'file:{directory}/shared': No such file or directory"
    )
    memctl.out("template", "push", "web")
    _status, out, _err = memctl("doctor")
    assert f"template source         file:{directory}/shared can be reached" in out


def test_the_doctor_tells_why_it_cannot_look_at_the_store(memctl: Memctl, directory: Path) -> None:
    shutil.rmtree(directory / "store")
    checks = {each["name"]: each for each in json.loads(memctl("--json", "doctor")[1])["checks"]}
    assert checks["templates"]["state"] == "warn"
    assert checks["templates"]["found"].startswith(f"cannot use '{directory}/store' as a ")
