from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from memd.cli.process import default_socket_path
from memd.errors import COMMAND_NOT_FOUND, QMPError
from memd.memctl.context import Address, Context, Trouble, no_daemon, refused, report
from tests.differential.harness import Side
from tests.differential.server import TREE
from tests.ports import free_port
from tests.users import need_root


def trouble(given: str | None, **how: float) -> tuple[str, int, str]:
    with pytest.raises(Trouble) as raised:
        Context(given, False, **how).connect()
    return raised.value.text, raised.value.status, raised.value.hint


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("/a/b", "/a/b"),
        ("a:b", "a:b"),
        ("unix:/a", "/a"),
        ("tcp:localhost:5", ("localhost", 5)),
        ("tcp:[::1]:5", ("::1", 5)),
    ],
)
def test_addresses(given: str, address: Address) -> None:
    assert Context(given, False).address() == address


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        *((given, "tcp:HOST:PORT") for given in ("tcp:", "tcp:5", "tcp::5", "tcp:host:port")),
        ("unix:", "unix:PATH"),
    ],
)
def test_addresses_that_are_none(given: str, expected: str) -> None:
    text, status, _ = trouble(given)
    assert (text, status) == (f"'{given}' is not an address: {expected} is expected", 2)


def test_which_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("MEMD_SOCKET", raising=False)
    assert Context(None, False).address() == default_socket_path()
    monkeypatch.setenv("MEMD_SOCKET", "/m")
    assert Context(None, False).address() == "/m"
    assert Context("/a", False).address() == "/a"
    # Asking is not making.
    assert os.listdir(tmp_path) == []


@need_root
def test_no_place_for_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_RUNTIME_DIR", "MEMD_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    become = (
        "import locale, os, sys; from memd.memctl import ls; from memd.memctl.main import main;"
        " from memd.cli import process; os.setresuid(987654, 987654, 987654);"
        " sys.exit(main(['ls']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", become], capture_output=True, text=True, check=False, cwd=TREE
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        3,
        "",
        "memctl: XDG_RUNTIME_DIR is not set\nName memd's socket with -s PATH or $MEMD_SOCKET.\n",
    )


def test_nobody_listens(directory: Path) -> None:
    path = directory / "none.sock"
    way = (
        f"Start a daemon there: memd --qmp unix:{path},server=on,wait=off\n"
        "or name the socket of one that runs: -s PATH or $MEMD_SOCKET"
    )
    reason = f"cannot connect to {path}: "
    assert trouble(str(path)) == (f"{reason}No such file or directory", 3, way)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        assert trouble(str(path)) == (f"{reason}Connection refused", 3, way)
    assert "unix:/a,,b,server=on" in trouble("/a,b")[2]


def test_nobody_listens_where_memd_serves_by_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its name is enough."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    told = no_daemon(default_socket_path(), FileNotFoundError(2, "No such file or directory"))
    assert told.hint.startswith("Start a daemon there: memd\n")


def test_what_is_no_socket(directory: Path) -> None:
    """Nobody is told to start a daemon in the place of a file."""
    path = directory / "file"
    path.touch()
    for each in (path, directory):
        assert trouble(str(each)) == (
            f"{each} is not a socket",
            3,
            "Name memd's socket with -s PATH or $MEMD_SOCKET.",
        )


def test_an_address_in_brackets() -> None:
    refused = ConnectionRefusedError(111, "Connection refused")
    told = no_daemon(("::1", 5), refused)
    assert told.text == "cannot connect to tcp:[::1]:5: Connection refused"
    assert told.hint == "Start a daemon there: memd --qmp tcp:[::1]:5,server=on,wait=off"


def test_nobody_listens_on_tcp() -> None:
    port = free_port()
    text, status, hint = trouble(f"tcp:127.0.0.1:{port}")
    assert (text, status) == (f"cannot connect to tcp:127.0.0.1:{port}: Connection refused", 3)
    assert hint == f"Start a daemon there: memd --qmp tcp:127.0.0.1:{port},server=on,wait=off"


def test_a_host_without_a_name() -> None:
    # .invalid never is one (RFC 2606).
    text, status, hint = trouble("tcp:nowhere.invalid:5")
    assert text.startswith("cannot connect to tcp:nowhere.invalid:5: ")
    assert status == 3
    assert "memd --qmp" not in hint


def test_somebody_elses_socket(directory: Path) -> None:
    hint = no_daemon(f"{directory}/sock", PermissionError(13, "Permission denied")).hint
    assert hint.startswith("It is another user's")


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH\r\n", b"[]\r\n", b'{"QMP": 1}\r\n'])
def test_somebody_else_listens(directory: Path, said: bytes) -> None:
    path = directory / "other.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def speak() -> None:
            with listening.accept()[0] as peer:
                peer.sendall(said)
                peer.shutdown(socket.SHUT_WR)
                # Whatever it is asked, it goes.
                peer.recv(100)

        thread = threading.Thread(target=speak)
        thread.start()
        text, status, hint = trouble(str(path))
        thread.join()
    assert text.startswith(f"{path} does not serve QMP: ")
    assert (status, hint) == (
        3,
        "Another program listens there. Name memd's socket with -s PATH.",
    )


def test_somebody_says_nothing(directory: Path) -> None:
    """A QEMU that has a client lets the next one wait."""
    path = directory / "busy.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        text, status, hint = trouble(str(path), patience=0.01)
    assert (text, status) == (f"{path} does not answer", 3)
    assert "one client at a time" in hint


def test_answers_may_take_long(memd: Side) -> None:
    """Only the greeting may not."""
    with Context(str(memd.server.path), False).connect() as client:
        assert client.timeout is None


def test_refusals() -> None:
    found = refused(QMPError("no", "GenericError"))
    assert (found.text, found.status, found.hint) == ("no", 1, "")
    assert "another version" in refused(QMPError("no", COMMAND_NOT_FOUND)).hint


def test_reports(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(None, Trouble("no", 2, "do this\nor that")) == 2
    assert report(Context(None, False), Trouble("no")) == 1
    # A client's path may be part of it.
    report(None, Trouble("a\nmemctl: b\x1b[2J"))
    assert capsys.readouterr() == (
        "",
        "memctl: no\ndo this\nor that\nmemctl: no\nmemctl: a\\nmemctl: b\\x1b[2J\n",
    )
    assert report(Context(None, True), refused(QMPError("no", "DeviceNotFound"))) == 1
    report(Context(None, True), Trouble("no", 3))
    said = capsys.readouterr()
    assert said.err == "memctl: no\n" * 2
    assert said.out.count('"class": "DeviceNotFound"') == 1
    assert said.out.count('"class": "NoDaemon"') == 1
