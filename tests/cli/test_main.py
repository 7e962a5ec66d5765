from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from memd import __version__
from memd.cli import qemu_system
from memd.cli.main import main

TREE = Path(__file__).resolve().parents[2]


def test_memd(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"memd version {__version__}\n"
    assert main(["--bogus"]) == 1
    assert capsys.readouterr().err == "memd: --bogus: invalid option\n"


def test_qemu_system_memd(capsys: pytest.CaptureFixture[str]) -> None:
    assert qemu_system.main(["-version"]) == 0
    assert capsys.readouterr().out.startswith("QEMU emulator version 10.0.2 ")
    assert qemu_system.main(["-bogus"]) == 1
    assert capsys.readouterr().err == "qemu-system-memd: -bogus: invalid option\n"


def test_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "memd", "--bogus"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=TREE,
    )
    assert (done.returncode, done.stdout, done.stderr) == (
        1,
        "",
        "memd: --bogus: invalid option\n",
    )


def loaded(program: str, *argv: str) -> set[str]:
    """The modules that a command imports; a daemon on its standard input is told to end."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", program, *argv],
        input='{"execute": "qmp_capabilities"} {"execute": "quit"}',
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=TREE,
    )
    assert done.returncode == 0, done.stderr
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_a_question_costs_no_daemon() -> None:
    names = loaded("memd", "--help")
    assert "memd.cli.options" in names
    cold = {"asyncio", "argparse", "logging", "json", "subprocess", "tempfile", "inspect"}
    assert names & cold == set()
    assert not {name for name in names if name.startswith(("memd.qapi", "memd.qom", "memd.app"))}


def test_a_daemon_imports_no_tls_and_no_human_monitor_before_they_are_asked_for() -> None:
    names = loaded("memd", "--qmp", "stdio")
    assert {"_asyncio", "memd.commands.misc"} <= names
    assert names & {"_ssl", "memd.commands.hmp", "memd.standin"} == set()
