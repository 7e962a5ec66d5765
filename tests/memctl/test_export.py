from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.differential.server import TREE
from tests.memctl.conftest import Memctl, argv
from tests.memctl.fakes import Peer, Talk


@pytest.fixture
def m(memctl: Memctl, tmp_path: Path) -> Iterator[str]:
    """A backend that begins with `hello`."""
    path = tmp_path / "data"
    path.write_bytes(b"hello")
    memctl.out("add", "memfd,id=m,size=1M")
    memctl.out("write", "m", "0", str(path))
    yield "m"
    memctl.out("del", "m")


def run(memctl: Memctl, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv(memctl.path, "export", *words), capture_output=True, text=True, check=False, cwd=TREE
    )


def python(program: str) -> list[str]:
    return [
        "--",
        sys.executable,
        "-c",
        f"import os, mmap; fd = int(os.environ['MEMD_FD']); {program}",
    ]


def test_a_command(memctl: Memctl, m: str) -> None:
    program = (
        "size = int(os.environ['MEMD_SIZE']);"
        "there = mmap.mmap(fd, size, offset=int(os.environ['MEMD_OFFSET']));"
        "print(there[:5].decode(), size); there[0] = ord('j')"
    )
    done = run(memctl, m, *python(program))
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello 1048576\n", "")
    assert memctl.out("read", "--raw", "m", "0", "5") == "jello"


def test_the_environment(memctl: Memctl, m: str) -> None:
    done = run(memctl, "--read-only", m, "sh", "--", "-c", "env | grep ^MEMD_ | sort")
    lines = (line.split("=", 1) for line in done.stdout.splitlines())
    found = {name: value for name, value in lines if name not in os.environ}
    del found["MEMD_FD"]
    assert found == {
        "MEMD_ID": "m",
        "MEMD_OFFSET": "0",
        "MEMD_PAGE_SIZE": "4096",
        "MEMD_SIZE": "1048576",
        "MEMD_WRITABLE": "0",
    }


def test_read_only(memctl: Memctl, m: str) -> None:
    done = run(memctl, "--read-only", m, *python("mmap.mmap(fd, 4096)"))
    assert done.returncode == 1
    assert "PermissionError" in done.stderr


def test_only_that_descriptor_is_inherited(memctl: Memctl, m: str) -> None:
    """Not the connection, and SIGPIPE is not ignored."""
    program = (
        "paths = [f'/proc/self/fd/{n}' for n in os.listdir('/proc/self/fd') if int(n) > 2];"
        # That of the listing itself is closed by now.
        "print([os.readlink(path) for path in paths if os.path.lexists(path)])"
    )
    done = run(memctl, m, *python(program))
    assert done.stdout.count("'") == 2, done.stdout
    assert "/memfd:" in done.stdout
    ignored = run(memctl, m, "--", "grep", "SigIgn", "/proc/self/status").stdout
    assert not int(ignored.split()[1], 16) >> (signal.SIGPIPE - 1) & 1


@pytest.mark.parametrize(
    ("command", "status"),
    [(["false"], 1), (["sh", "-c", "exit 42"], 42), (["sh", "-c", "kill -9 $$"], -9)],
)
def test_the_status_is_the_commands(
    memctl: Memctl, m: str, command: list[str], status: int
) -> None:
    assert run(memctl, m, "--", *command).returncode == status


def test_what_can_not_be_run(
    memctl: Memctl, m: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A directory of it that this user may not look into would be another error.
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    done = run(memctl, m, "--", "no-such-command")
    assert (done.returncode, done.stderr) == (
        127,
        "memctl: cannot run no-such-command: No such file or directory\n",
    )
    assert run(memctl, m, "--", str(tmp_path)).returncode == 126


def test_without_a_command(memctl: Memctl, m: str) -> None:
    lines = memctl.out("export", m).splitlines()
    assert lines[:5] == [
        *("id: m", "size: 1048576", "offset: 0", "page-size: 4096"),
        "writable: on",
    ]
    found = memctl.data("export", m, "--read-only")
    assert found.pop("path").startswith("/proc/")
    assert found == {
        "id": "m",
        "size": 1 << 20,
        "offset": 0,
        "page-size": 4096,
        "writable": False,
    }


def test_what_is_refused(memctl: Memctl, m: str) -> None:
    memctl.out("add", "ram,id=r,size=4k")
    assert "private memory without a descriptor" in memctl.error("export", "r", "--", "true")
    memctl.out("del", "r")
    status, _out, err = memctl("--json", "export", m, "--", "true")
    assert status == 2
    assert "leave --json out" in err


def test_no_descriptor_comes(fake: Callable[[Talk], Memctl]) -> None:
    """As over TCP."""

    def talk(peer: Peer, request: dict[str, Any]) -> None:
        value = {"size": 4096, "offset": 0, "page-size": 4096, "writable": True, "path": ""}
        peer.answer(request, value)

    memctl = fake(talk)
    assert memctl.error("export", "m", "--", "true") == (
        "the answer of the server: no descriptor came along"
    )
