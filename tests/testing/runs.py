"""Runs pytest, and other programs, as somebody who has memd installed would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.differential.server import TREE

INI = """
[pytest]
addopts = --strict-markers -p no:cacheprovider
filterwarnings =
    error
    ignore::pytest.PytestConfigWarning
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
"""

QUICK = ("-p", "no:hypothesispytest")
"""Options of a run that needs no Hypothesis, whose import takes most of a second."""


def run_python(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this Python away from the tree."""
    env = {**os.environ, "PYTHONPATH": str(TREE), **environment}
    # A run inside a run is not one of its workers.
    for name in [name for name in env if name.startswith("PYTEST_")]:
        del env[name]
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        # The test has as much: several processes each import much, and start daemons.
        timeout=110,
        check=False,
    )


def run_pytest(directory: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a file of tests; every outcome is listed at the end of its output."""
    (directory / "test_it.py").write_text(text, encoding="utf-8")
    (directory / "pytest.ini").write_text(INI, encoding="utf-8")
    return run_python("-m", "pytest", "-rA", *QUICK, *options, cwd=directory)


def outcomes(run: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The outcome of each test by its name."""
    found = {}
    for line in run.stdout.splitlines():
        outcome, _, rest = line.partition(" test_it.py::")
        if rest and outcome in ("PASSED", "FAILED", "ERROR", "SKIPPED"):
            found[rest.split(" - ")[0]] = outcome
    return found
