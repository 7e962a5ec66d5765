from __future__ import annotations

import io
import os
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memd.client import Export
from memd.memctl import template
from tests.differential.harness import Side, settle
from tests.differential.server import TREE, Monitor, running
from tests.memctl.conftest import Memctl, argv
from tests.memctl.fakes import Peer, Talk, interrupt

MIB = 1 << 20


def image(tmp_path: Path, size: int = 5 * MIB) -> Path:
    """A file with holes, and something in between."""
    path = tmp_path / "image"
    data = bytearray(size)
    data[:12] = b"The template"
    data[3 * MIB : 3 * MIB + 100] = os.urandom(100)
    path.write_bytes(data)
    return path


def test_from_an_image(memctl: Memctl, memd: Side, tmp_path: Path) -> None:
    source, path = image(tmp_path), tmp_path / "template"
    options = f"size=8M,mem-path={path},share=off,readonly=on,rom=off"
    assert memctl.out("template", str(path), "--size", "8M", "--from", str(source)) == (
        f"{path}: a template of 8 MiB (8388608 bytes), mode 0444.\n"
        "Clones in QEMU:\n"
        "  qemu-system-x86_64 -m 8M -machine q35,memory-backend=ram"
        f" -object memory-backend-file,id=ram,{options} ...\n"
        "Clones in memd:\n"
        f"  memctl add memory-backend-file,id=clone,{options}\n"
    )
    assert path.read_bytes() == source.read_bytes() + bytes(3 * MIB)
    there = path.stat()
    assert stat.S_IMODE(there.st_mode) == 0o444
    # The kernel may make 2 MiB at once of what is touched.
    assert there.st_blocks * 512 < 8 * MIB, "zeroes are left out"
    assert memd.regions() == []


def test_a_clone_in_memd(memctl: Memctl, tmp_path: Path) -> None:
    source, path = image(tmp_path), tmp_path / "a, template"
    found = memctl.data("template", str(path), "--size", "8M", "--from", str(source))
    assert (found["filename"], found["size"], found["mode"]) == (str(path), 8 * MIB, "0444")
    (line,) = shlex.split(found["memd"])
    memctl.out("add", line)
    assert memctl.out("read", "--raw", "clone", "0", "12") == "The template"
    assert memctl.data("show", "clone")["stat"]["share"] is False
    memctl.out("del", "clone")


def test_a_clone_in_qemu(memctl: Memctl, tmp_path: Path, directory: Path) -> None:
    """The line as it is printed, and a machine with it sees the template's bytes."""
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("needs QEMU: there is no qemu-system-x86_64 on PATH")
    path = tmp_path / "template"
    data = tmp_path / "data"
    # Where firmware writes nothing before the machine runs.
    data.write_bytes(bytes(8 * MIB) + b"The template")
    out = memctl.out("template", str(path), "--size", "16M", "--from", str(data))
    (line,) = [line for line in out.splitlines() if line.startswith("  qemu-system-x86_64 ")]
    argv = shlex.split(line.removesuffix(" ..."))
    argv += ["-accel", "tcg", "-nodefaults", "-display", "none", "-S"]
    with running("qemu", argv, directory) as server:
        monitor = Monitor(server.path)
        command = {"command-line": "xp /12bc 0x800000"}
        answer = monitor.execute("human-monitor-command", command)["return"]
        monitor.close()
        maps = Path(f"/proc/{server.pid}/maps").read_text(encoding="utf-8")
    assert "".join(answer.split("'")[1::2]) == "The template", answer
    (row,) = [row for row in maps.splitlines() if row.endswith(str(path))]
    assert " rw-p " in row


def test_of_a_backend(memctl: Memctl, tmp_path: Path) -> None:
    """It is saved; memory holds secrets, and so nobody else may read it."""
    path = tmp_path / "template"
    memctl.out("add", "ram,id=vm0,size=1025k")
    data = tmp_path / "data"
    data.write_bytes(b"The template")
    memctl.out("write", "vm0", "64k", str(data))
    found = memctl.data("template", str(path), "--of", "vm0")
    memctl.out("del", "vm0")
    assert (found["size"], found["mode"]) == (1028 << 10, "0400")
    content = path.read_bytes()
    assert len(content) == 1028 << 10
    assert content[64 << 10 :][:12] == b"The template"


def test_zeroes(memctl: Memctl, tmp_path: Path) -> None:
    path = tmp_path / "template"
    memctl.out("template", str(path), "--size", "1M")
    assert path.read_bytes() == bytes(MIB)


def test_from_standard_input(
    memctl: Memctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "template"
    data = image(tmp_path).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    memctl.out("template", str(path), "--size", "5M", "--from", "-")
    assert path.read_bytes() == data
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    text = memctl.error("template", f"{path}2", "--size", "4M", "--from", "-")
    assert text == "there is more to come than the 4194304 bytes of the template"
    assert not Path(f"{path}2").exists()


def test_what_is_refused(memctl: Memctl, memd: Side, tmp_path: Path) -> None:
    """Nothing of it stays."""
    source, path = image(tmp_path), tmp_path / "template"
    new = str(path)
    text = memctl.error("template", new, "--size", "4M", "--from", str(source))
    assert text == f"{source} has 5242880 bytes, and the template is to have 4194304"
    assert memctl.error("template", new, "--of", "x") == "Device 'x' not found"
    text = memctl.error("template", new, "--size", "4M", "--from", f"{source}2")
    assert text == f"cannot read {source}2: No such file or directory"
    assert "No such file" in memctl.error("template", f"{tmp_path}/none/t", "--size", "4M")
    for words in (["--size", "5000"], ["--size", "0"], ["--of", "x", "--from", "f"]):
        assert memctl("template", new, *words)[0] == 2
    assert [each.name for each in tmp_path.iterdir()] == ["image"]
    path.write_bytes(b"precious")
    assert memctl.error("template", new, "--size", "4M") == f"{path} is there already"
    assert path.read_bytes() == b"precious"
    assert memd.regions() == []


def test_a_full_file_system(
    memctl: Memctl, tmp_path: Path, directory: Path, mount: Callable[..., None]
) -> None:
    place = directory / "small"
    mount("tmpfs", place, "size=1m")
    source = tmp_path / "image"
    source.write_bytes(os.urandom(2 * MIB))
    text = memctl.error("template", f"{place}/template", "--size", "4M", "--from", str(source))
    assert text == "cannot write the template: No space left on device"
    assert list(place.iterdir()) == []


def test_an_interrupt(memctl: Memctl, memd: Side, tmp_path: Path) -> None:
    """Nothing of it stays."""
    path = tmp_path / "template"
    process = subprocess.Popen(
        argv(memctl.path, "template", str(path), "--size", "8M", "--from", "-"),
        stdin=subprocess.PIPE,
        cwd=TREE,
    )
    assert process.stdin is not None
    with process.stdin:
        # It waits for more once the backend is there.
        process.stdin.write(b"x" * 5 * MIB)
        process.stdin.flush()
        settle(lambda: memctl.out("ls", "-q"), bool, 60)
        interrupt(process)
        assert process.wait(60) == 130
    assert memctl.out("ls", "-q") == ""
    assert not path.exists()


def test_through_the_daemon(
    memctl: Memctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no descriptor comes along."""
    without = Export.__init__

    def over_tcp(self: Export, answer: Any) -> None:
        without(self, answer)
        self.close()

    monkeypatch.setattr(Export, "__init__", over_tcp)
    source, path = image(tmp_path), tmp_path / "template"
    memctl.out("template", str(path), "--size", "5M", "--from", str(source))
    assert path.read_bytes() == source.read_bytes()


def test_content_that_is_not_what_was_written(
    memctl: Memctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another has written to it meanwhile."""
    path = tmp_path / "template"
    seal = template._seal

    def spoil(*arguments: Any) -> int:
        with path.open("r+b") as file:
            file.write(b"x")
        return seal(*arguments)

    monkeypatch.setattr(template, "_seal", spoil)
    source = image(tmp_path)
    text = memctl.error("template", str(path), "--size", "8M", "--from", str(source))
    assert text == f"{path} does not hold what was written to it"
    assert not path.exists()


def test_a_daemon_elsewhere(fake: Callable[[Talk], Memctl], tmp_path: Path) -> None:
    """Its files are not seen here."""

    def talk(peer: Peer, request: dict[str, Any]) -> None:
        if request["execute"] == "qom-list":
            peer.refuse(request, "not found", "DeviceNotFound")
        else:
            peer.answer(request)

    path = tmp_path / "template"
    status, _out, err = fake(talk)("template", str(path), "--size", "1M")
    assert status == 1
    assert err.splitlines() == [
        f"memctl: cannot read {path} here: No such file or directory",
        "Run this where the daemon runs, as a user who may read what it makes.",
    ]


def test_clones_that_would_not_work(fake: Callable[[Talk], Memctl], tmp_path: Path) -> None:
    path = tmp_path / "template"

    def talk(peer: Peer, request: dict[str, Any]) -> None:
        name = request["execute"]
        if name == "qom-list":
            peer.refuse(request, "not found", "DeviceNotFound")
        elif name == "object-add":
            path.write_bytes(bytes(MIB))
            peer.answer(request)
        elif name == "x-memdev-explain":
            peer.answer(request, {"verdict": "fails", "text": ["It would fail: no"]})
        else:
            peer.answer(request)

    assert fake(talk).error("template", str(path), "--size", "1M") == (
        f"{path} is no template: It would fail: no"
    )
    assert not path.exists()


def test_a_size_that_is_not_what_was_made(fake: Callable[[Talk], Memctl], tmp_path: Path) -> None:
    path = tmp_path / "template"

    def talk(peer: Peer, request: dict[str, Any]) -> None:
        if request["execute"] == "object-add":
            path.write_bytes(b"short")
        peer.answer(request)

    text = fake(talk).error("template", str(path), "--size", "1M")
    assert text == f"{path} has 5 bytes and not 1048576"


@pytest.mark.parametrize(
    ("data", "runs"),
    [
        (b"", []),
        (bytes(200 << 10), []),
        (b"x", [(0, 1)]),
        (bytes(64 << 10) + b"x" + bytes(100 << 10), [(64 << 10, 128 << 10)]),
        (b"x" + bytes(127 << 10) + b"x", [(0, (127 << 10) + 2)]),
        (bytes((192 << 10) - 1) + b"x", [(128 << 10, 192 << 10)]),
    ],
)
def test_blocks_of_zeroes_are_left_out(data: bytes, runs: list[tuple[int, int]]) -> None:
    assert list(template._runs(data)) == runs
