from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from memd.memctl.completion import SHELLS
from memd.memctl.main import SUBCOMMANDS
from tests.differential.server import TREE
from tests.memctl.conftest import Memctl, argv


@pytest.fixture
def bash(memctl: Memctl, tmp_path: Path) -> Iterator[Bash]:
    """A bash with the completion, beside a daemon with the backends m0, m1 and x0."""
    for id in ("m0", "m1", "x0"):
        memctl.out("add", f"ram,id={id},size=4k")
    yield Bash(memctl, tmp_path)
    memctl.out("del", "m0", "m1", "x0")


class Bash:
    """Asks a real bash what it would offer."""

    def __init__(self, memctl: Memctl, place: Path) -> None:
        self._script = place / "completion"
        self._script.write_text(memctl.out("completion", "bash"), encoding="utf-8")
        # As it is found on PATH.
        command = place / "bin" / "memctl"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.memctl.program "$@"\n')
        command.chmod(0o755)
        self._env = dict(
            os.environ,
            PATH=f"{command.parent}:{os.environ['PATH']}",
            PYTHONPATH=str(TREE),
            MEMD_SOCKET=str(memctl.path),
        )
        self._place = place

    def offers(self, line: str, **more: str) -> list[str]:
        """What is offered for the last word of a line."""
        words = shlex.split(line) + ([""] if line.endswith(" ") else [])
        program = (
            f"source {self._script}; COMP_WORDS=({shlex.join(words)});"
            f" COMP_CWORD={len(words) - 1}; _shtab_memctl; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        )
        done = subprocess.run(
            ["bash", "--norc", "-c", program],
            capture_output=True,
            text=True,
            check=True,
            cwd=self._place,
            env=self._env | more,
        )
        assert done.stderr == ""
        return sorted(done.stdout.split())


def test_subcommands_and_options(bash: Bash) -> None:
    assert bash.offers("memctl ") == sorted({name.split()[0] for name in SUBCOMMANDS})
    assert "make" in bash.offers("memctl template ")
    assert bash.offers("memctl d") == ["del", "discard", "doctor"]
    assert bash.offers("memctl map --") == ["--cells", "--help", "--json", "--png", "--socket"]


def test_ids(bash: Bash) -> None:
    assert bash.offers("memctl show ") == ["m0", "m1", "x0"]
    assert bash.offers("memctl del x0 m") == ["m0", "m1"]
    assert bash.offers("memctl template make f --of x") == ["x0"]


def test_ids_of_another_daemon(bash: Bash) -> None:
    """With a socket on the line, that one is asked; with none, nothing is offered or said."""
    socket = bash._env["MEMD_SOCKET"]
    assert bash.offers(f"memctl -s {socket} show m", MEMD_SOCKET="/nope") == ["m0", "m1"]
    assert bash.offers("memctl -s /nope show m") == []


def test_types_and_files(bash: Bash, tmp_path: Path) -> None:
    assert bash.offers("memctl add me") == ["memfd"]
    assert "guest-memfd" in bash.offers("memctl explain ")
    (tmp_path / "some-image").touch()
    assert bash.offers("memctl write m0 0 some") == ["some-image"]
    assert bash.offers("memctl map m0 --png some") == ["some-image"]
    assert bash.offers("memctl completion z") == ["zsh"]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell(memctl: Memctl, shell: str) -> None:
    text = memctl.out("completion", shell)
    assert "_memctl_ids" in text
    assert "$TYPES" not in text
    assert "guest-memfd" in text
    assert all(word in text for name in SUBCOMMANDS for word in name.split())
    assert memctl.data("completion", shell)["script"].rstrip() == text.rstrip()


def test_without_shtab() -> None:
    done = subprocess.run(
        argv("", "completion", "bash", without="shtab"), capture_output=True, check=False, cwd=TREE
    )
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.endswith(
        b"\nThe extra memctl brings it: in memd's source tree, pip install '.[memctl]'\n"
    )
