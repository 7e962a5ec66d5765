"""What the tests of memctl share: a memctl beside a daemon, and terminals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memd.memctl.main import main
from tests.differential.harness import Side
from tests.differential.server import TREE
from tests.memctl.fakes import Fake, Talk
from tests.terminal import open_terminal


class Memctl:
    """`memctl -s SOCKET ...` in this process, beside a daemon."""

    def __init__(self, path: Path | str, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """The exit status, and what is printed on standard output and error."""
        try:
            status = main(["-s", str(self.path), *words])
        except SystemExit as ended:
            status = int(ended.code or 0)
        said = self._capsys.readouterr()
        return status, said.out, said.err

    def fed(self, stdin: bytes | None, *words: str) -> tuple[int, str, str]:
        """As a call, of a process of its own.

        Args:
            stdin: what comes from a pipe on its standard input; None: that is closed.
        """
        command = argv(self.path, *words)
        if stdin is None:
            command = ["sh", "-c", 'exec "$@" <&-', "sh", *command]
        done = subprocess.run(
            command, input=stdin or b"", capture_output=True, cwd=TREE, check=False
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def out(self, *words: str) -> str:
        """What is printed by what succeeds, and says nothing on standard error."""
        status, out, err = self(*words)
        assert (status, err) == (0, "")
        return out

    def data(self, *words: str) -> Any:
        """What `--json` prints."""
        return json.loads(self.out("--json", *words))

    def error(self, *words: str) -> str:
        """The text with which the daemon or the host refuses."""
        return refusal(self(*words))


def refusal(done: tuple[int, str, str]) -> str:
    """The text with which a memctl was refused."""
    status, out, err = done
    assert (status, out) == (1, "")
    line, *_hint = err.splitlines()
    assert line.startswith("memctl: ")
    return line.removeprefix("memctl: ")


@pytest.fixture(autouse=True)
def as_people_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever those have set who run the tests, memctl runs without."""
    for name in ("PYTHONUNBUFFERED", "MEMD_SOCKET", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def memctl(memd: Side, capsys: pytest.CaptureFixture[str]) -> Memctl:
    return Memctl(memd.server.path, capsys)


@pytest.fixture
def fake(directory: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[Talk], Memctl]]:
    """A memctl beside a server that answers as a function says."""
    fakes: list[Fake] = []

    def start(talk: Talk) -> Memctl:
        fakes.append(Fake(directory / "fake.sock", talk))
        return Memctl(fakes[-1].path, capsys)

    yield start
    for each in fakes:
        each.close()


def argv(path: Path | str, *words: str, without: str = "") -> list[str]:
    """The command line of a memctl in a process of its own.

    Args:
        without: libraries that it is not to find.
    """
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({without.split()!r}));"
        " from memd.memctl.main import main; sys.exit(main())"
    )
    return [sys.executable, "-c", program, "-s", str(path), *words]


def in_terminal(
    path: Path | str, *words: str, without: str = "", columns: int = 100
) -> tuple[int, str]:
    """Run memctl in a terminal; its exit status, and what it shows."""
    import fcntl
    import struct
    import termios

    ours, theirs = open_terminal()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 30, columns, 0, 0))
        environment = dict(os.environ, TERM="xterm-256color", LC_ALL="C.UTF-8")
        for name in ("NO_COLOR", "COLUMNS", "LINES"):
            environment.pop(name, None)
        process = subprocess.Popen(
            argv(path, *words, without=without),
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env=environment,
        )
        os.close(theirs)
        theirs = -1
        shown = b""
        while True:
            try:
                data = os.read(ours, 1 << 16)
            except OSError:
                # The last one has closed it.
                break
            if not data:
                break
            shown += data
        return process.wait(60), shown.decode("utf-8").replace("\r\n", "\n")
    finally:
        os.close(ours)
        if theirs >= 0:
            os.close(theirs)
