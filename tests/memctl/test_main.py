from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from memd.memctl.main import GROUPS, SUBCOMMANDS, main, parse, parser, subparser
from tests.differential.server import TREE, Server
from tests.memctl.conftest import Memctl, argv
from tests.memctl.fakes import Peer, Talk, interrupt


def test_help_names_every_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    for name, (_module, summary) in SUBCOMMANDS.items():
        if " " not in name:
            assert f"{name} {summary}" in out
    assert "exit status:" in out
    for group, summary in GROUPS.items():
        assert f"{group} {summary}" in out
        with pytest.raises(SystemExit) as ended:
            main([group, "--help"])
        assert ended.value.code == 0
        below = " ".join(capsys.readouterr().out.split())
        words = [name for name in SUBCOMMANDS if name.startswith(f"{group} ")]
        assert words
        for name in words:
            assert f"{name.partition(' ')[2]} {SUBCOMMANDS[name][1]}" in below


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_of_every_subcommand(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*name.split(), "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: memctl {name} [-h]")
    assert "--socket" in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("memctl version ")


@pytest.mark.parametrize(
    "argv",
    [
        *([], ["bogus"], ["explain"], ["explain", "a", "b"], ["--bogus"], ["--js", "explain", "a"]),
        *(["-s"], ["ls", "extra"], ["read", "m", "x"], ["read", "m", "1Q"], ["del"], ["export"]),
        *(["template"], ["template", "f"], ["template", "f", "--of", "m"]),
        *(["template", "make", "f"], ["template", "make", "f", "--of", "m", "--size", "1M"]),
        ["completion", "tcsh"],
    ],
    ids=" ".join,
)
def test_command_lines_that_are_wrong(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("usage: memctl")


def test_what_stands_before_a_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    """Help and usage are of the whole command line."""
    for words, status in ((["-h", "ls"], 0), (["--bogus", "ls"], 2)):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == status
    said = capsys.readouterr()
    assert "  list every memory backend" in said.out
    assert " SUBCOMMAND ...\n" in said.err


def test_a_template_is_made_by_its_word(capsys: pytest.CaptureFixture[str]) -> None:
    """Which was the subcommand itself once."""
    with pytest.raises(SystemExit):
        main(["template", "golden", "--size", "8M"])
    assert capsys.readouterr().err.endswith(
        "; to make a template: memctl template make golden ...\n"
    )


def test_the_whole_parser_and_the_short_way_agree() -> None:
    """The one is for help and the manual, the other for speed."""
    lines = [
        ["ls"],
        ["--json", "-s", "a", "ls", "-q"],
        ["ls", "-s", "b", "--json"],
        ["read", "m", "1k", "2k", "--raw"],
        ["write", "m", "0"],
        ["template", "make", "f", "--size", "1M", "--from", "-"],
        ["export", "m", "--read-only"],
        ["map", "m", "--png", "f"],
    ]
    for words in lines:
        assert vars(parse(words)) == vars(parser().parse_args(words)), words


def test_the_parser_is_whole() -> None:
    """As a manual is made of it."""
    for name in SUBCOMMANDS:
        sub = subparser(parser(), name)
        assert (sub.description or "").endswith(".")
        assert all(action.help for action in sub._actions)


def test_options_may_stand_between_arguments() -> None:
    made = parse(["template", "-s", "x", "make", "f", "--json", "--of", "m"])
    assert (made.subcommand, made.file, made.socket, made.json) == ("template make", "f", "x", True)
    found = parse(["read", "m", "--raw", "1M", "-s", "x", "8M"])
    assert (found.offset, found.length, found.raw, found.socket) == (1 << 20, 8 << 20, True, "x")


def test_what_stands_behind_two_dashes() -> None:
    found = parse(["export", "m", "--read-only", "--", "ls", "-l", "--", "--json"])
    assert found.command == ["ls", "-l", "--", "--json"]
    assert (found.id, found.writable, found.json) == ("m", False, False)
    assert parse(["export", "m", "true"]).command == ["true"]


def leaves(peer: Peer, request: dict[str, object]) -> None:
    peer.leave()


def test_a_daemon_that_goes_away(fake: Callable[[Talk], Memctl]) -> None:
    memctl = fake(leaves)
    status, out, err = memctl("ls")
    assert (status, out) == (3, "")
    assert err == "memctl: the daemon is gone: the server has closed the connection\n"
    status, out, _err = memctl("ls", "--json")
    assert status == 3
    assert json.loads(out)["error"]["class"] == "NoDaemon"


def test_errors_for_scripts(memctl: Memctl) -> None:
    status, out, err = memctl("del", "nope", "--json")
    assert (status, err) == (1, "memctl: object 'nope' not found\n")
    assert json.loads(out) == {
        "error": {"class": "GenericError", "desc": "object 'nope' not found"}
    }
    status, out, _err = memctl("show", "nope", "--json")
    assert json.loads(out)["error"]["class"] == "DeviceNotFound"


def run(server: Server, *words: str, shell: str = "") -> subprocess.CompletedProcess[str]:
    command = argv(server.path, *words)
    if shell:
        command = ["sh", "-c", f'"$@" {shell}', "sh", *command]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=TREE)


def test_a_reader_that_has_read_enough(start_memd: Callable[..., Server]) -> None:
    """As `| head`: nothing is said, and the status is that of SIGPIPE."""
    server = start_memd()
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        argv(server.path, "explain", "memory-backend-ram,size=1M"),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=TREE,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_output_that_can_not_be_written(start_memd: Callable[..., Server]) -> None:
    server = start_memd()
    full = run(server, "ls", shell=">/dev/full")
    assert (full.returncode, full.stderr) == (
        1,
        "memctl: cannot write the output: No space left on device\n",
    )
    closed = run(server, "ls", shell=">&-")
    assert (closed.returncode, closed.stderr) == (
        1,
        "memctl: cannot write the output: Bad file descriptor\n",
    )
    # What prints nothing needs none.
    assert run(server, "add", "ram,id=m,size=4k", shell=">&-").returncode == 0
    assert run(server, "del", "m", shell="<&- >&- 2>&-").returncode == 0
    assert run(server, "ls", shell="2>&-").returncode == 0


def test_little_is_imported() -> None:
    """What makes a start slow is left to who needs it (`memd.memctl.context` has figures)."""
    heavy = ["asyncio", "qemu", "rich", "PIL", "shtab", "shutil", "subprocess", "tempfile"]
    heavy += ["logging", "inspect", "ctypes", "memd.qapi", "memd.backends", "memd.hostmem"]
    code = (
        "import sys; from memd.memctl import main, ls, add, delete, read, write, save, export;"
        f" main.parse(['ls']); print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=TREE
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_it(number: signal.Signals, fake: Callable[[Talk], Memctl]) -> None:
    def talk(peer: Peer, _request: dict[str, Any]) -> None:
        interrupt(peer.pid, number)

    assert fake(talk).fed(b"", "ls") == (128 + number, "", "")


def test_an_interrupt_before_it_begins(memctl: Memctl, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_words: list[str]) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("memd.memctl.main.parse", interrupted)
    assert memctl("ls") == (130, "", "")


def test_signals_are_handled_as_before(memctl: Memctl) -> None:
    before = [signal.getsignal(each) for each in signal.Signals]
    assert memctl.out("ls", "-q") == ""
    assert [signal.getsignal(each) for each in signal.Signals] == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_more_signals_while_it_cleans_up(
    number: signal.Signals, fake: Callable[[Talk], Memctl], tmp_path: Path
) -> None:
    """What is made for a moment is deleted all the same."""
    asked: list[str] = []

    def talk(peer: Peer, request: dict[str, Any]) -> None:
        asked.append(request["execute"])
        if request["execute"] == "object-del":
            for each in (signal.SIGTERM, signal.SIGHUP):
                os.kill(peer.pid, each)
        if request["execute"] == "x-memdev-export":
            interrupt(peer.pid, number)
        else:
            peer.answer(request)

    status = fake(talk).fed(b"", "template", "make", f"{tmp_path}/t", "--size", "1M")
    assert status == (128 + number, "", "")
    assert asked == ["qom-list", "object-add", "x-memdev-export", "object-del"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_the_output_can_not_hold(start_memd: Callable[..., Server], encoding: str) -> None:
    """It is printed as an escape; JSON stays JSON."""
    server = start_memd()
    path = "/tmp/\u00e9\u4e00\udcff"
    words = ["explain", f"file,size=1M,mem-path={path[:-1]}"]

    def said(*words: str) -> bytes:
        return subprocess.run(
            argv(server.path, *words),
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
            check=False,
            cwd=TREE,
        ).stdout

    assert path[:-1].encode(encoding, "backslashreplace") in said(*words)
    told = json.loads(said("--json", *words).decode(encoding))
    assert any(path[:-1] in line for line in told["text"])


def test_a_directory_that_is_gone(memctl: Memctl, tmp_path: Path) -> None:
    place = tmp_path / "gone"
    place.mkdir()
    before = os.getcwd()
    os.chdir(place)
    place.rmdir()
    try:
        for words in (
            ["save", "m", "file"],
            ["template", "make", "file", "--size", "1M"],
            ["template", "export", "t", "file"],
            ["template", "serve", "t", "--qmp", "file"],
        ):
            assert memctl.error(*words) == (
                "the current directory is gone, so there is no 'file' in it"
            )
        assert memctl.out("ls", "-q") == ""
    finally:
        os.chdir(before)


LATE = """
import os, sys, time

class Late:
    def __del__(self, write=os.write, sleep=time.sleep):
        write(2, b"the end\\n")
        sleep(0.5)

sys.late = Late()
from memd.memctl.main import main
sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_when_all_is_done(memctl: Memctl, number: int) -> None:
    """The exit status says that it is, while the interpreter frees what there is."""
    command = [sys.executable, "-c", LATE, "-s", str(memctl.path), "ls"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=TREE
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"the end\n"
        process.send_signal(number)
        assert process.wait(60) == 0
