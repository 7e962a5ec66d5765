"""Programs of `python/`, which use clients that others have written."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.clients import kept
from tests.differential.harness import normalise
from tests.differential.server import TREE

_PROGRAMS = Path(__file__).with_name("python")

need_clients = pytest.mark.skipif(
    not kept.place().is_dir(), reason="needs clients: python3 -m tests.clients.kept makes them"
)
"""For tests that call `run`."""


def run(program: str, *arguments: str | Path, home: Path) -> list[Any]:
    """What a program says: the value of JSON of each line that it prints.

    Args:
        program: its name, without the ending.
        arguments: are passed to it.
        home: where it runs, its user's directory and that of temporary files.

    Raises:
        AssertionError: it has failed.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    environment |= {"HOME": str(home), "TMPDIR": str(home), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [kept.place() / "bin" / "python", _PROGRAMS / f"{program}.py", *arguments],
        env=environment,
        cwd=home,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def comparable(value: Any, place: Path, *left_out: str) -> Any:
    """What a program has said, in the form in which that of two servers is compared.

    Args:
        value: see `run`.
        place: where that server's files are.
        left_out: members of answers that differ.
    """
    return normalise(_masked(value, {"thread-id", *left_out}), place)


def _masked(value: Any, left_out: set[str]) -> Any:
    if isinstance(value, dict):
        return {
            _masked(name, left_out): _masked(member, left_out)
            for name, member in value.items()
            if name not in left_out
        }
    if isinstance(value, list):
        return [_masked(member, left_out) for member in value]
    if isinstance(value, str):
        # Of nodes and backends without a name, and of the directory of labgrid's console.
        return re.sub(r"(#block|#net|labgrid-qemu-tmp-)\w+", r"\1", value)
    return value


def write_script(path: Path, argv: Sequence[str], before: str = "") -> None:
    """Make an executable file that runs a command, which may be the tree's memd.

    Args:
        path: of the file.
        argv: the command; the file's arguments are added.
        before: a line of the shell's that is done first.
    """
    path.write_text(
        "#!/bin/sh\n"
        f"{before}\n"
        f"PYTHONPATH={shlex.quote(str(TREE))}"
        f" PYTHONPYCACHEPREFIX={shlex.quote(sys.pycache_prefix or '')}"
        f' exec {shlex.join(argv)} "$@"\n'
    )
    path.chmod(0o755)
