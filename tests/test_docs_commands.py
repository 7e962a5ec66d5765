"""The commands of the documents, run as a reader would run them, print what is printed there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.differential.server import qemu_argv

DOCS = Path(__file__).resolve().parents[1] / "docs"
WITH_COMMANDS = [
    path for path in sorted(DOCS.glob("*.md")) if "```console" in path.read_text(encoding="utf-8")
]

_END = "--end-of-command--"


def commands(document: str) -> list[tuple[str, str]]:
    """The commands of ```console blocks, and what each prints."""
    found: list[tuple[str, str]] = []
    for block in re.findall(r"^```console\n(.*?)^```$", document, re.M | re.S):
        for line in block.splitlines(keepends=True):
            if line.startswith("$ "):
                found.append((line[2:], ""))
                continue
            command, output = found[-1]
            if line.startswith("> ") and not output:
                found[-1] = command + line[2:], output
            else:
                found[-1] = command, output + line
    return found


def as_printed(output: str, expected: str) -> bool:
    """Whether a command printed what is expected, where `…` stands for anything in a line."""
    pattern = "[^\n]*".join(map(re.escape, expected.split("…")))
    # Columns are aligned by what differs.
    return re.fullmatch(re.sub(r"(\\ )+", r"[ ]+", pattern), output) is not None


def test_what_stands_for_anything() -> None:
    assert as_printed("a 5   b\nc\n", "a … b\nc\n")
    assert not as_printed("a\nb\n", "a…\n")
    assert not as_printed("a.b\n", "a,b\n")
    document = "x\n```console\n$ a \\\n>   b\nc\nd\n$ e\n```\n```console\n$ f\n```\n"
    assert commands(document) == [("a \\\n  b\n", "c\nd\n"), ("e\n", ""), ("f\n", "")]


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=lambda path: path.name)
def test_commands(path: Path, directory: Path) -> None:
    qemu_argv()
    found = commands(path.read_text(encoding="utf-8"))
    script = "".join(f"{command}printf '%s\\n' {_END}\n" for command, _ in found)
    tools = os.path.dirname(sys.executable)
    env = dict(os.environ, PATH=f"{tools}:{os.environ['PATH']}", HOME=str(directory))
    try:
        done = subprocess.run(
            ["timeout", "90", "bash", "-c", script],
            cwd=directory,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    finally:
        end(directory)
    outputs = done.stdout.split(f"{_END}\n")
    for (command, expected), output in zip(found, outputs, strict=False):
        assert as_printed(output, expected), f"$ {command}{output}instead of\n{expected}"
    assert len(outputs) == len(found) + 1


def end(directory: Path) -> None:
    """End what the commands have left running: their process ids are in files."""
    for file in directory.glob("*.pid"):
        try:
            os.kill(int(file.read_text()), signal.SIGKILL)
        except (FileNotFoundError, ValueError, ProcessLookupError):
            # It may be ending right now, and its file with it.
            pass
