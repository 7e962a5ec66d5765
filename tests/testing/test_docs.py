"""The examples of docs/testing.md, run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from memd.faulty.dispatcher import OWN_HANDLERS
from memd.faulty.fault import _EFFECTS, _WHERE
from memd.qapi import load_schema
from memd.qapi.types import EnumType
from tests.conftest import GO_CACHE
from tests.differential.server import PATIENCE, TREE
from tests.testing.runs import outcomes, run_pytest, run_python

TEXT = (TREE / "docs" / "testing.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", TEXT, re.M | re.S))


def run(directory: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `memd-test` on a command."""
    tools = os.path.dirname(sys.executable)
    path = f"{tools}:{os.environ['PATH']}"
    env = {**os.environ, "PYTHONPATH": str(TREE), "PATH": path, "HOME": str(directory)}
    return subprocess.run(
        [sys.executable, "-m", "memd.testing.run", *command],
        cwd=directory,
        env={**env, **environment},
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )


def test_the_examples_are_found() -> None:
    assert set(FILES) == {
        *("manager.py", "test_manager.py", "test_unittest.py", "test.sh", "plug_test.go"),
        *("unplug.rs", "plug.c", "recorded.jsonl"),
    }


def test_pytest(tmp_path: Path) -> None:
    (tmp_path / "manager.py").write_text(FILES["manager.py"], encoding="utf-8")
    done = run_pytest(tmp_path, FILES["test_manager.py"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(outcomes(done)) == FILES["test_manager.py"].count("def test_")


def test_unittest(tmp_path: Path) -> None:
    (tmp_path / "test_unittest.py").write_text(FILES["test_unittest.py"], encoding="utf-8")
    done = run_python("test_unittest.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_shell(tmp_path: Path) -> None:
    (tmp_path / "test.sh").write_text(FILES["test.sh"], encoding="utf-8")
    done = run(tmp_path, "--check-schema", "--", "bash", "./test.sh")
    assert (done.returncode, done.stdout) == (0, "passed\n"), done.stderr


@pytest.mark.timeout(300)
def test_go(tmp_path: Path) -> None:
    if shutil.which("go") is None:
        pytest.skip("needs Go: there is no go on PATH")
    (tmp_path / "plug_test.go").write_text(FILES["plug_test.go"], encoding="utf-8")
    (tmp_path / "go.mod").write_text("module example/plug\n\ngo 1.19\n", encoding="utf-8")
    settings = {"GOPROXY": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    settings["GOCACHE"] = GO_CACHE
    done = run(tmp_path, "--", "go", "test", "./...", **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("ok")


def test_rust(tmp_path: Path) -> None:
    # Where rustc is rustup's, the compiler itself is below the home that `run` hides.
    rustup = os.environ.get("RUSTUP_HOME", os.path.expanduser("~/.rustup"))
    if shutil.which("rustc") is None or shutil.which("cc") is None:
        pytest.skip("needs Rust and a linker: there is no rustc or no cc on PATH")
    (tmp_path / "unplug.rs").write_text(FILES["unplug.rs"], encoding="utf-8")
    script = "rustc --test unplug.rs && ./unplug"
    done = run(tmp_path, "--", "sh", "-c", script, RUSTUP_HOME=rustup)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_c(tmp_path: Path) -> None:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler: there is no cc on PATH")
    for name in ("plug.c", "recorded.jsonl"):
        (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    made = ["cc", "-std=gnu11", "-Wall", "-Werror", "-o", "plug", "plug.c"]
    subprocess.run(made, cwd=tmp_path, check=True)
    done = run(tmp_path, "--compare", "recorded.jsonl", "--", "./plug")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('{"return": {}}') == 2
    named = ("--options", "--name other", "--compare", "recorded.jsonl", "--", "./plug")
    assert "message 5, at message.return.name:" in run(tmp_path, *named).stderr


def test_everything_is_told_of() -> None:
    """Every member of a fault, every kind of system call, every command."""
    members = _WHERE.union(*_EFFECTS.values()) - {"id"}
    syscalls = load_schema(test=True).type("TestSyscall")
    assert isinstance(syscalls, EnumType)
    names = {*members, *OWN_HANDLERS, *(member.name for member in syscalls.members)}
    assert {name for name in names if not re.search(rf"`{name}\b", TEXT)} == set()
