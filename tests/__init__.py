"""memd's tests; they mirror the package, and stand beside a real QEMU in `differential`."""

import os
import sys
from pathlib import Path

KEPT = Path(__file__).resolve().parents[1] / ".pytest_cache"
"""What a run of the tests leaves for the next one; it may be removed."""

NOT_THERE = "/proc/nonexistent"
"""A path that there is nothing at, and nobody can make anything at."""

if sys.dont_write_bytecode:
    # Not beside the sources, then. The tests start memd some thousand times, and
    # without bytecode half of a start is spent on compiling it. First of all, before
    # Hypothesis is imported, whose asserts pytest rewrites.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(KEPT / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

if "pytest" in sys.modules:
    # Not in the programs that tests start: importing it takes longer than what most of them do.
    import pytest

    # A failing assert in the harness says what was compared, as one in a test does.
    pytest.register_assert_rewrite("tests.differential.harness")
