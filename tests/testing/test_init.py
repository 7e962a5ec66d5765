"""The package: what it offers, and that it costs nothing until it is used."""

from __future__ import annotations

from pathlib import Path

import pytest

import memd.testing
from tests.testing.runs import run_python


def test_everything_that_it_offers_is_there() -> None:
    for name in memd.testing.__all__:
        assert getattr(memd.testing, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = memd.testing.Nothing


def test_what_pytest_imports_of_it(tmp_path: Path) -> None:
    """The plugin is imported in every run of pytest wherever memd is installed."""
    program = (
        "import sys, pytest\n"
        "before = set(sys.modules)\n"
        "import memd.testing.plugin\n"
        "print(sorted(set(sys.modules) - before))\n"
    )
    done = run_python("-c", program, cwd=tmp_path)
    assert done.stdout == "['memd', 'memd.testing', 'memd.testing.plugin']\n", done.stderr


def test_what_the_command_imports(tmp_path: Path) -> None:
    """It starts a daemon, and needs nothing of what one is made of."""
    program = "import sys, memd.testing.run; print({*sys.modules} & {*sys.argv[1:]})"
    done = run_python("-c", program, "memd.server", "memd.qom", "asyncio", cwd=tmp_path)
    assert done.stdout == "set()\n", done.stderr
