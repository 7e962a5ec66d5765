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


def test_a_question_costs_no_daemon() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "memd", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=TREE,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "memd.cli.options" in loaded
    cold = {"asyncio", "argparse", "logging", "json", "subprocess", "tempfile", "inspect"}
    assert loaded & cold == set()
    assert not {name for name in loaded if name.startswith(("memd.qapi", "memd.qom", "memd.app"))}
