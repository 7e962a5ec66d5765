from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from memd.cli.options import parse_arguments
from memd.cli.start import run_command
from tests import NOT_THERE
from tests.differential.harness import settle
from tests.differential.server import PATIENCE, TREE, Monitor, Server, memd_argv
from tests.users import need_root


def command(*argv: str) -> int:
    return run_command("memd", parse_arguments, argv)


def accepts(path: Path) -> bool:
    """Whether a client can connect: between bind(2) and listen(2) the file is there already."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@need_root
@pytest.mark.parametrize("closed", ["", ">&-"])
def test_the_default_socket(closed: str) -> None:
    """It is shown, where there is a standard output."""
    alone = f'mount -t tmpfs none /run && exec "$@" {closed}'
    daemon = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", alone, "sh", *memd_argv()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=TREE,
        text=True,
    )
    path = Path(f"/proc/{daemon.pid}/root/run/memd/qmp.sock")
    try:
        settle(lambda: accepts(path) or daemon.poll() is not None, bool, PATIENCE)
        Monitor(path).close()
        monitor = Monitor(path)
        (told,) = monitor.execute("query-chardev")["return"]
        assert told["label"] == "compat_monitor0"
        monitor.execute("quit")
        monitor.close()
        out, err = daemon.communicate(timeout=PATIENCE)
    finally:
        daemon.kill()
    shown = ["memd: QMP is served on ", "memd: try: qmp-shell "]
    assert out == ("" if closed else "".join(f"{each}/run/memd/qmp.sock\n" for each in shown))
    assert (daemon.returncode, err) == (0, "")


@need_root
def test_no_place_for_the_default_socket() -> None:
    alone = ["unshare", "-m", "sh", "-c", 'mount --bind /proc /run && exec "$@"', "sh"]
    done = subprocess.run(
        [*alone, *memd_argv()], capture_output=True, text=True, check=False, cwd=TREE
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        "memd: Could not create directory '/run/memd': No such file or directory\n",
    )


def test_an_answer_without_a_standard_output() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *memd_argv(), "--version"],
        stderr=subprocess.PIPE,
        check=False,
        cwd=TREE,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_no_pidfile(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--pidfile", f"{NOT_THERE}/x", "--qmp", "null") == 1
    assert capsys.readouterr().err == (
        "memd: cannot create PID file: "
        f"Could not create '{NOT_THERE}/x': No such file or directory\n"
    )


def test_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--bogus") == 1
    assert capsys.readouterr() == ("", "memd: --bogus: invalid option\n")


def test_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--version") == 0
    assert command("--chardev", "socket,help") == 1
    assert capsys.readouterr().out.startswith("memd version ")
    assert gc.isenabled()


def test_the_pidfile_is_there_while_it_runs(
    start_memd: Callable[..., Server], directory: Path
) -> None:
    path = directory / "pid"
    server = start_memd("--pidfile", str(path))
    assert path.read_text() == f"{server.pid}\n"
    server.process.terminate()
    assert server.wait() == 0
    assert not path.exists()


def test_the_pidfile_goes_when_the_start_fails(directory: Path) -> None:
    words = [*memd_argv(), "--pidfile", f"{directory}/pid", "--object", "secret,id=s"]
    assert subprocess.run(words, capture_output=True, check=False, cwd=TREE).returncode == 1
    assert list(directory.iterdir()) == []


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
