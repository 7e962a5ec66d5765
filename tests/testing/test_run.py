"""memd-test: any command, and a server for as long as it runs."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from memd.testing import run as room
from memd.testing.run import main, parse_fault
from tests import NOT_THERE
from tests.differential.server import PATIENCE, TREE, qemu_argv
from tests.terminal import open_terminal

ASK = """
import os, sys
from memd.client import Client
with Client(os.environ["MEMD_SOCKET"], timeout=60) as client:
    for command in sys.argv[1:]:
        try:
            print(client.execute(command))
        except Exception as error:
            print(repr(error))
"""

ENVIRONMENT = dict(os.environ, PYTHONPATH=str(TREE))


@pytest.fixture
def sockets(
    directory: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Where sockets are made; nothing may be left there."""
    # It is made when it is first asked for, and not to be made in here.
    tmp_path_factory.getbasetemp()
    place = directory / "sockets"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setenv("PYTHONPATH", str(TREE))
    yield place
    assert list(place.iterdir()) == []


def ask(*commands: str) -> list[str]:
    """A command that asks the server, and prints what it answers."""
    return ["--", sys.executable, "-c", ASK, *commands]


def test_a_command_with_a_server(sockets: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--options", "--name 'vm 1'", *ask("query-name")]) == 0
    assert capfd.readouterr() == ("{'name': 'vm 1'}\n", "")


def test_faults(sockets: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = ["--fault", "command=query-name,answer=5", "--fault", '{"error": {"desc": "no"}}']
    told += ["--fault", "command=qmp_capabilities,answer={},run=true,id=first"]
    # All of them would be refused by the second.
    told = [*told[4:], *told[:4]]
    assert main([*told, *ask("query-name", "query-status")]) == 0
    assert capfd.readouterr().out == "5\nQMPError('no')\n"


def test_both_sockets_are_told_of(sockets: Path, capfd: pytest.CaptureFixture[str]) -> None:
    script = 'test -S "$MEMD_SOCKET" && test -S "$MEMD_CONTROL" && echo both'
    assert main(["--compat", "11.1", "--", "sh", "-c", script]) == 0
    assert capfd.readouterr().out == "both\n"


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -9 $$", 137)],
)
def test_the_status_is_the_commands(sockets: Path, script: str, status: int) -> None:
    assert main(["--", "sh", "-c", script]) == status


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ([], 125, "no CMD to run"),
        (["--"], 125, "no CMD to run"),
        (["--", f"{NOT_THERE}/command"], 127, f"{NOT_THERE}/command: No such file or directory"),
        (["--", os.devnull], 126, "/dev/null: Permission denied"),
        (["--option=--foo", "--", "true"], 125, "memd did not start"),
        (["--fault", "foo=1", "--", "true"], 125, "'foo' is unexpected"),
        (["--fault", "foo", "--", "true"], 125, "not MEMBER=VALUE: foo"),
        (["--server", "false", "--", "true"], 125, "false ended with status 1"),
        (["--server", "x", "--fault", "drop=true", "--", "true"], 125, "only a memd of our own"),
        (["--replay", f"{NOT_THERE}/file", "--", "true"], 125, f"cannot read '{NOT_THERE}/file'"),
    ],
)
def test_what_can_not_be_done(
    sockets: Path,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    text: str,
) -> None:
    assert main(arguments) == status
    error = capfd.readouterr().err
    assert error.startswith("memd-test: ")
    assert text in error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_go_to_the_command(sockets: Path, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo got it; exit 5' {name}; echo up; while :; do sleep 0.01; done"
    process = subprocess.Popen(
        [sys.executable, "-m", "memd.testing.run", "--", "bash", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        # What is typed at the terminal of these tests is not for it.
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    assert process.stdout.read() == "got it\n"
    assert process.wait(PATIENCE) == 5
    process.stdout.close()


def test_signals_are_for_the_command_while_it_runs(sockets: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    script = "kill -TERM $PPID; while :; do sleep 0.01; done"
    assert main(["--", "sh", "-c", script]) == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_typed_goes_to_the_command_once(sockets: Path) -> None:
    """The terminal sends it to both; passed on, it would come twice."""
    script = """
import signal, sys
counted = {signal.SIGINT: 0, signal.SIGUSR1: 0}
signal.pthread_sigmask(signal.SIG_BLOCK, counted)
print("up", flush=True)
while not counted[signal.SIGUSR1]:
    counted[signal.sigwaitinfo(counted).si_signo] += 1
    print("got", *counted.values(), flush=True)
sys.exit(6)
"""
    ours, theirs = open_terminal()
    process = subprocess.Popen(
        [sys.executable, "-m", "memd.testing.run", "--", sys.executable, "-c", script],
        stdin=theirs,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    os.write(ours, b"\x03")
    assert process.stdout.readline() == "got 1 0\n"
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.read() == "got 1 1\n"
    assert process.wait(PATIENCE) == 6
    process.stdout.close()
    os.close(ours)


def test_when_it_is_killed_itself_the_server_goes(sockets: Path) -> None:
    script = "echo $MEMD_SOCKET; exec sleep 600"
    process = subprocess.Popen(
        [sys.executable, "-m", "memd.testing.run", "--", "sh", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        path = Path(process.stdout.readline().strip())
        assert path.parent == sockets
        process.kill()
        process.wait()
        while list(sockets.iterdir()):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def test_the_log_is_shown_if_the_command_fails(
    sockets: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--", "false"]) == 1
    assert capfd.readouterr().err == ""
    # What does not match is noted in the log.
    transcript = tmp_path / "t"
    transcript.write_text('{"from": "server", "message": {"QMP": {}}}\n')
    command = [*ask()[:-1], ASK + "sys.exit(7)"]
    assert main(["--replay", str(transcript), *command]) == 125
    error = capfd.readouterr().err
    assert "memd-test: memd's log:\nreplay: " in error
    log = tmp_path / "log"
    assert main(["--replay", str(transcript), "--log", str(log), *command]) == 125
    assert "memd's log" not in capfd.readouterr().err
    assert log.read_text().startswith("replay: ")


def test_against_the_schema(sockets: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--check-schema", *ask("query-name")]) == 0
    assert main(["--check-schema", *ask("query-nothing")]) == 125
    assert "there is no command 'query-nothing'" in capfd.readouterr().err
    # One that resets the server in between hides nothing.
    reset = "Client(os.environ['MEMD_CONTROL']).execute('x-test-reset')"
    command = ["--", sys.executable, "-c", f"{ASK}\n{reset}", "query-nothing"]
    assert main(["--check-schema", *command]) == 125
    assert "there is no command 'query-nothing'" in capfd.readouterr().err


def memd_test(*words: str) -> str:
    """A line of a shell script that has an enclosing `memd-test` told something."""
    return shlex.join([sys.executable, "-m", "memd.testing.run", *words])


def test_words_below_it(sockets: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What a test in any language says by a command instead of over the control socket."""
    ask = shlex.join([sys.executable, "-c", ASK])
    script = tmp_path / "script"
    steps = (
        memd_test("answer", "query-name", '{"name": "told"}', "listed=true"),
        f"{ask} query-name",
        memd_test("expect", "qmp_capabilities", '{"execute": "query-name"}'),
        memd_test("expect", "query-name", "only=false"),
        memd_test("expect", "query-name") + " && exit 9",
        memd_test("reset"),
        memd_test("faults"),
        memd_test("send", "x") + " && " + memd_test("emit", "STOP"),
    )
    script.write_text("\n".join(["set -e", *steps]))
    assert main(["--", "sh", str(script)]) == 0
    told = capfd.readouterr()
    assert told.out.splitlines()[1:] == ["{'name': 'told'}", "[]"]
    assert "memd-test: expect: expected:\n > query-name\nsent:" in told.err
    assert main(["--", "sh", "-c", memd_test("emit", "A", "{}", "B")]) == 125
    assert "nothing is known of 'B'" in capfd.readouterr().err
    assert main(["reset"]) == 125
    assert "there is no MEMD_CONTROL" in capfd.readouterr().err


def test_compared(sockets: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "t")
    assert main(["--record", file, *ask("query-name", "stop")]) == 0
    assert main(["--compare", file, *ask("query-name", "stop")]) == 0
    assert main(["--compare", file, *ask("query-name", "cont")]) == 125
    assert 'came:     {"from": "client", "message": {"execute": "cont"' in capfd.readouterr().err


def test_recorded_and_replayed(
    sockets: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "t")
    assert main(["--options", "--name vm1", "--record", file, *ask("query-name", "stop")]) == 0
    first = capfd.readouterr().out
    assert "vm1" in first
    assert main(["--replay", file, *ask("query-name", "stop")]) == 0
    assert capfd.readouterr().out == first
    assert main(["--replay", file, *ask("query-name", "cont")]) == 125
    told = capfd.readouterr()
    assert 'is expected, and {"execute": "cont"} came' in told.out
    assert "1 recorded messages of clients did not come" in told.err


def test_a_real_qemu_is_recorded(
    sockets: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "t")
    qemu = shlex.join([*qemu_argv(), "-name", "qemu1"])
    assert main(["--record", file, "--server", qemu, *ask("query-name", "query-kvm")]) == 0
    first = capfd.readouterr()
    assert (first.err, first.out.splitlines()[0]) == ("", "{'name': 'qemu1'}")
    assert main(["--replay", file, *ask("query-name", "query-kvm")]) == 0
    assert capfd.readouterr().out == first.out


def test_another_server_that_leaves_its_socket(sockets: Path, tmp_path: Path) -> None:
    script = tmp_path / "server"
    script.write_text(
        f"#!{sys.executable}\nimport signal, socket, sys\n"
        "listener = socket.socket(socket.AF_UNIX)\n"
        "listener.bind(sys.argv[-1].removeprefix('unix:').split(',')[0])\n"
        "listener.listen()\nsignal.pause()\n"
    )
    script.chmod(0o755)
    assert main(["--server", str(script), "--", "sh", "-c", "test -S $MEMD_SOCKET"]) == 0


def test_a_server_that_is_there(
    sockets: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from memd.testing import Server

    with Server(["--name", "there"]) as server:
        arguments = ["--connect", server.socket, "--record", str(tmp_path / "t")]
        assert main([*arguments, *ask("query-name")]) == 0
    assert capfd.readouterr().out == "{'name': 'there'}\n"
    sides = [json.loads(line)["from"] for line in (tmp_path / "t").read_text().splitlines()]
    assert sides[0] == "server"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("command=stop,delay=5", {"command": "stop", "delay": 5}),
        ("drop=true,raw=a=b", {"drop": True, "raw": "a=b"}),
        ('{"event": "", "drop": true}', {"event": "", "drop": True}),
        ("event=,drop=true", {"event": "", "drop": True}),
        ("answer={}", {"answer": {}}),
    ],
)
def test_faults_as_they_are_written(text: str, fault: dict[str, Any]) -> None:
    assert parse_fault(text) == fault


@pytest.mark.parametrize("text", ["{", "x", "a=1,b", '{"a"}'])
def test_what_is_no_fault(text: str) -> None:
    with pytest.raises(ValueError):
        parse_fault(text)


def test_it_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", room.__name__, "--help"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "MEMD_SOCKET" in done.stdout


def test_a_server_that_knows_all_of_qemus_commands(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script = tmp_path / "client.py"
    script.write_text(
        "import os\n"
        "from memd.client import Client\n"
        "from memd.errors import QMPError\n"
        "with Client(os.environ['MEMD_SOCKET']) as client:\n"
        "    print(client.execute('query-tpm-models'))\n"
        "    try:\n"
        "        print(client.execute('xen-load-devices-state', {'filename': 'f'}))\n"
        "    except QMPError as error:\n"
        "        print(error)\n"
    )
    for unmodelled, said in (("refuse", "does not act on it"), ("sample", "{}")):
        argv = ["--unmodelled", unmodelled, "--", sys.executable, str(script)]
        assert main(argv) == 0
        out = capfd.readouterr().out
        assert "['tpm-crb', 'tpm-tis']" in out
        assert said in out
