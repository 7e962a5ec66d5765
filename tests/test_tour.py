"""The README's five minutes, gone through as they stand there, and what they print."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.differential.server import PATIENCE
from tests.test_readme import README

BIN = Path(sys.executable).parent
PROMPT = "(QEMU) "

# What differs from run to run: addresses, the file's device and inode, where it lies.
VARYING = [
    (re.compile(r"\b[0-9a-f]{12}-[0-9a-f]{12}\b"), "ADDRESS"),
    (re.compile(r"\b[0-9a-f]{2}:[0-9a-f]{2} \d+ +/\S*/"), "FILE /"),
    (re.compile(r"file system \w+, [\d.]+ [KMGT]iB free"), "FREE"),
    # The temporary directory may be in memory.
    (re.compile(r" A restart of the host loses it: .*"), ""),
]


def blocks() -> list[list[str]]:
    text = README.read_text(encoding="utf-8")
    return [
        block.splitlines()
        for block in re.findall(r"^<!-- tour -->\n```\n(.*?)^```$", text, re.M | re.S)
    ]


def without_varying(lines: list[str]) -> list[str]:
    for pattern, word in VARYING:
        lines = [pattern.sub(word, line) for line in lines]
    return lines


def steps(block: list[str]) -> list[tuple[str, list[str]]]:
    """Each line that is typed, prompt included, and what is printed after it."""
    found: list[tuple[str, list[str]]] = []
    for line in block:
        if line.startswith((PROMPT, "$ ")):
            found.append((line, []))
        else:
            found[-1][1].append(line)
    return found


@pytest.mark.skipif(not (BIN / "qmp-shell").exists(), reason="qmp-shell is not installed")
def test_the_tour(tmp_path: Path) -> None:
    daemon = subprocess.Popen(
        [BIN / "memd", "--qmp", "unix:memd.sock,server=on,wait=on"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert daemon.stderr is not None
    assert "waiting for connection" in daemon.stderr.readline()
    shell = subprocess.Popen(
        [BIN / "qmp-shell", "memd.sock"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    gone_through = 0
    try:
        for _banner in range(3):
            shell.stdout.readline()
        for block in blocks():
            for typed, printed in steps(block):
                gone_through += 1
                if typed.startswith(PROMPT):
                    shell.stdin.write(typed.removeprefix(PROMPT) + "\n")
                    shell.stdin.flush()
                    answer = json.loads(shell.stdout.readline().removeprefix(PROMPT))
                    assert answer == json.loads("".join(printed)), typed
                    continue
                command = (
                    typed.removeprefix("$ ")
                    .replace(".venv/bin/", f"{BIN}/")
                    .replace("$(pgrep -f memd.sock,server)", str(daemon.pid))
                )
                result = subprocess.run(
                    command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False
                )
                assert without_varying(result.stdout.splitlines()) == without_varying(printed), (
                    typed + result.stderr
                )
    finally:
        shell.stdin.close()
        shell.wait(PATIENCE)
        daemon.terminate()
        assert daemon.wait(PATIENCE) == 0
        daemon.stderr.close()
        shell.stdout.close()
    assert gone_through >= 12
