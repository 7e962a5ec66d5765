from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from memd.app import passed
from memd.cli import start
from memd.cli.options import parse_arguments
from memd.cli.start import run_command
from memd.config import Config
from memd.errors import QMPError

Ready = Callable[[], None]


class App:
    """Stands in for the daemon: shows what it was to run."""

    def __init__(self) -> None:
        self.ran: list[Config] = []
        self.pid = ""
        self.pidfile: Path | None = None

    def run(self, config: Config, ready: Ready) -> int:
        self.ran.append(config)
        if config.pidfile is not None:
            self.pid = Path(config.pidfile).read_text()
        ready()
        return 7


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> App:
    stand_in = App()
    monkeypatch.setattr("memd.app.run", stand_in.run)
    monkeypatch.delenv("LISTEN_PID", raising=False)
    return stand_in


def command(*argv: str) -> int:
    return run_command("memd", parse_arguments, argv)


def test_it_runs(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--qmp", "unix:/s,server=on,wait=off") == 7
    assert [each.chardev.path for each in app.ran[0].monitors] == ["/s"]
    assert capsys.readouterr() == ("", "")


def test_the_default_socket_is_shown(
    app: App,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = f"{directory}/qmp.sock"
    monkeypatch.setattr(start, "default_socket", lambda *, shared: path)
    assert command() == 7
    (monitor,) = app.ran[0].monitors
    assert (
        monitor.chardev.kind,
        monitor.chardev.path,
        monitor.chardev.server,
        monitor.chardev.wait,
    ) == ("unix", path, True, False)
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"memd: QMP is served on {path}", f"memd: try: qmp-shell {path}"]
    assert err == ""


def test_sockets_of_a_service_manager_are_served_instead(
    app: App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "2")
    assert command() == 7
    served = [
        (each.chardev.kind, each.chardev.fd, each.chardev.server) for each in app.ran[0].monitors
    ]
    assert served == [("fd", 3, True), ("fd", 4, True)]
    assert capsys.readouterr() == ("", "")


def test_sockets_that_were_passed_to_another_process_are_left_alone(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert command("--qmp", "unix:/s,server=on,wait=off") == 7
    assert [each.chardev.kind for each in app.ran[0].monitors] == ["unix"]


def pass_on(monkeypatch: pytest.MonkeyPatch, fds: list[int], names: str | None) -> dict[int, int]:
    """Have descriptors passed; which number each has here."""
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", str(len(fds)))
    if names is not None:
        monkeypatch.setenv("LISTEN_FDNAMES", names)
    first = max(fds) + 1000
    for number, fd in enumerate(fds):
        os.dup2(fd, first + number)
    monkeypatch.setattr(passed, "_FIRST", first)
    return {first + number: fd for number, fd in enumerate(fds)}


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (None, ["activated0", "activated1", "activated2"]),
        ("qmp:memd.socket:x-1_y", ["qmp", "memd.socket", "x-1_y"]),
        ("qmp:qmp:other", ["activated0", "activated1", "other"]),
        ("1st:a b:", ["activated0", "activated1", "activated2"]),
        ("taken:qmp", ["activated0", "qmp", "activated2"]),
        ("memd-1:memd-list:memd-zz", ["memd-1", "memd-list", "memd-zz"]),
    ],
)
def test_sockets_have_the_names_that_they_are_passed_with(
    app: App, monkeypatch: pytest.MonkeyPatch, names: str | None, ids: list[str]
) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        passed = pass_on(monkeypatch, [sock.fileno()] * 3, names)
        assert command("--chardev", "null,id=taken") == 7
        assert [each.chardev.id for each in app.ran[0].monitors] == ids
        assert [each.chardev.fd for each in app.ran[0].monitors] == list(passed)
        assert app.ran[0].stored == {}
        for fd in passed:
            os.close(fd)


def test_what_was_kept_is_no_socket(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = os.memfd_create("memory")
    with socket.socket(socket.AF_UNIX) as sock:
        names = "qmp:memd-list:memd-1f:second"
        passed = pass_on(monkeypatch, [sock.fileno(), memory, memory, sock.fileno()], names)
        assert command() == 7
        numbers = list(passed)
        assert [each.chardev.fd for each in app.ran[0].monitors] == [numbers[0], numbers[3]]
        assert app.ran[0].stored == {"memd-list": numbers[1], "memd-1f": numbers[2]}
        for fd in (memory, *passed):
            os.close(fd)


def test_an_activated_socket_is_really_served() -> None:
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as client:
        listening.bind(f"\0memd-activation-{os.getpid()}")
        listening.listen()
        program = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid());" + (
            "os.dup2(int(sys.argv[1]), 3); os.execv(sys.executable, [sys.executable, '-m', 'memd'])"
        )
        daemon = subprocess.Popen(
            [sys.executable, "-c", program, str(listening.fileno())],
            env={**os.environ, "LISTEN_FDS": "1"},
            pass_fds=[listening.fileno()],
        )
        client.connect(listening.getsockname())
        client.settimeout(60)
        assert b'"QMP"' in client.recv(1000)
        daemon.terminate()
        assert daemon.wait(60) == 0


def test_no_place_for_the_default_socket(
    app: App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nowhere(*, shared: bool) -> str:
        raise QMPError("nowhere")

    monkeypatch.setattr(start, "default_socket", nowhere)
    assert command() == 1
    assert app.ran == []
    assert capsys.readouterr() == ("", "memd: nowhere\n")


def test_the_pidfile_is_there_while_it_runs(app: App, directory: Path) -> None:
    path = directory / "pid"
    assert command("--pidfile", str(path), "--qmp", "null") == 7
    assert app.pid == f"{os.getpid()}\n"
    assert not path.exists()


def test_the_pidfile_goes_when_it_fails(
    app: App, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(config: Config, ready: Ready) -> int:
        raise RuntimeError

    monkeypatch.setattr("memd.app.run", fail)
    with pytest.raises(RuntimeError):
        command("--pidfile", str(directory / "pid"), "--qmp", "null")
    assert not (directory / "pid").exists()


def test_no_pidfile(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--pidfile", "/nonexistent/x", "--qmp", "null") == 1
    assert app.ran == []
    assert capsys.readouterr().err == (
        "memd: cannot create PID file: "
        "Could not create '/nonexistent/x': No such file or directory\n"
    )


def test_refused(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--bogus") == 1
    assert app.ran == []
    assert capsys.readouterr() == ("", "memd: --bogus: invalid option\n")


def test_answered(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--version") == 0
    assert command("--chardev", "socket,help") == 1
    assert app.ran == []
    assert capsys.readouterr().out.startswith("memd version ")


def test_there_is_no_standard_output(
    app: App, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(start, "default_socket", lambda *, shared: f"{directory}/qmp.sock")
    assert command("--version") == 0
    assert command() == 7


def test_the_arguments_of_the_process(
    app: App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["memd", "--bogus"])
    assert run_command("memd", parse_arguments, None) == 1
    assert "--bogus" in capsys.readouterr().err


def test_an_answer_that_nobody_reads() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "memd", "--help"],
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
        cwd=Path(__file__).resolve().parents[2],
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")
