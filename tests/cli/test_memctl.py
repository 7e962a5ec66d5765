from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from memd.cli import memctl
from memd.cli.memctl import SUBCOMMANDS, TROUBLE, Subcommand, main
from tests.differential.server import TREE, Server


def test_help_names_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for name, subcommand in SUBCOMMANDS.items():
        assert name in out
        assert subcommand.summary in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("memctl version ")


@pytest.mark.parametrize(
    "argv",
    [[], ["bogus"], ["explain"], ["explain", "a", "b"], ["--bogus"], ["--js", "explain", "a"]],
)
def test_command_lines_that_are_wrong(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == TROUBLE
    assert "memctl" in capsys.readouterr().err


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Where the subcommand `ask` connects to, and whether it is to print JSON."""
    seen: list[tuple[str, bool]] = []

    def run(context: memctl.Context, arguments: object) -> int:
        def client(path: str) -> None:
            seen.append((path, context.as_json))

        monkeypatch.setattr(memctl, "Client", client)
        context.connect()
        return 7

    monkeypatch.setitem(SUBCOMMANDS, "ask", Subcommand("ask", lambda parser: None, run))
    monkeypatch.delenv("MEMD_SOCKET", raising=False)
    return seen


def test_which_socket(
    asked: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert main(["ask"]) == 7
    monkeypatch.setenv("MEMD_SOCKET", "/m")
    main(["ask"])
    main(["-s", "/a", "ask"])
    main(["ask", "--socket", "/b", "--json"])
    main(["--json", "-s", "/a", "ask", "-s", "/c"])
    assert asked == [
        *((f"{tmp_path}/memd/qmp.sock", False), ("/m", False), ("/a", False), ("/b", True)),
        ("/c", True),
    ]
    # Asking is not making.
    assert os.listdir(tmp_path) == []


def test_no_place_for_a_socket(
    asked: list[tuple[str, bool]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    status = main(["ask"])
    err = capsys.readouterr().err
    assert (status, "name a socket with -s" in err) in ((TROUBLE, True), (7, False))


def test_nobody_listens(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = directory / "none.sock"
    argv = ["-s", str(path), "explain", "memory-backend-ram,size=1M"]
    assert main(argv) == TROUBLE
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        assert main(argv) == TROUBLE
    assert capsys.readouterr().err == (
        f"memctl: cannot connect to {path}: No such file or directory\n"
        f"memctl: cannot connect to {path}: Connection refused\n"
    )


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH\r\n", b"{}\r\n", b'{"QMP": 1}\r\n'])
def test_somebody_else_listens(
    directory: Path, capsys: pytest.CaptureFixture[str], said: bytes
) -> None:
    path = directory / "other.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def speak() -> None:
            with listening.accept()[0] as peer:
                peer.sendall(said)
                # Whatever it is asked, it goes.
                peer.settimeout(1)

        thread = threading.Thread(target=speak)
        thread.start()
        assert main(["-s", str(path), "explain", "memory-backend-ram,size=1M"]) == TROUBLE
        thread.join()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("memctl: ")


def test_a_reader_that_has_read_enough(start_memd: Callable[..., Server]) -> None:
    server = start_memd()
    command = [
        sys.executable,
        "-c",
        "import sys; from memd.cli.memctl import main; sys.exit(main())",
    ]
    command += ["-s", str(server.path), "explain", "memory-backend-ram,size=1M"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, cwd=TREE
    )
    os.close(writing)
    assert done.stderr == ""
    assert done.returncode == TROUBLE
