"""Digital Ocean's go-qemu, in a small client: it is told the same as by a paused QEMU."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import GO_CACHE
from tests.differential.server import qemu_binary, qemu_compat, qemu_system_memd, running

SOURCES = "/usr/share/gocode"
OPTIONS = (
    *("-S", "-display", "none", "-nodefaults", "-machine", "q35", "-m", "16M"),
    *("-blockdev", "null-co,node-name=d0", "-device", "virtio-blk-pci,drive=d0,id=b0"),
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("go") is None:
        pytest.skip("needs go")
    if not Path(SOURCES, "src/github.com/digitalocean/go-qemu").exists():
        pytest.skip("needs golang-github-digitalocean-go-qemu-dev")
    directory = tmp_path_factory.mktemp("go")
    environment = dict(os.environ, GO111MODULE="off", GOPATH=SOURCES, GOCACHE=GO_CACHE, GOFLAGS="")
    built = directory / "client"
    source = Path(__file__).with_name("go") / "main.go"
    subprocess.run(["go", "build", "-o", built, source], env=environment, check=True, timeout=100)
    return built


def test_go_qemu(client: Path, tmp_path: Path) -> None:
    told = {}
    for name, argv in (("QEMU", qemu_binary()), ("memd", qemu_system_memd(qemu_compat()))):
        place = tmp_path / name
        place.mkdir()
        with running(name, [*argv, *OPTIONS], place) as server:
            done = subprocess.run(
                [client, server.path], capture_output=True, text=True, check=False, timeout=60
            )
        told[name] = done.stdout.splitlines()
        assert done.returncode == 0, done
    assert told["memd"] == told["QEMU"]
    assert told["memd"][-1] == "closed <nil>"
