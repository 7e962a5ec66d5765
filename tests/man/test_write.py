"""The pages as they are written: whole, and clean to who checks such."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from memd.man.roff import Page
from memd.man.write import pages, write_pages


def test_written(tmp_path: Path) -> None:
    written = write_pages(str(tmp_path / "new"))
    names = ["memd.8", "memctl.1", "memd-test.1", "memd-qmp-ref.7"]
    assert [Path(path).name for path in written] == names
    for path, page in zip(written, pages(), strict=True):
        assert Path(path).read_text(encoding="utf-8") == page.source()


def test_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "memd.man", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / page.file_name) for page in pages()]
    without = subprocess.run(command[:-1], capture_output=True, text=True, check=False)
    assert (without.returncode, without.stderr) == (1, "usage: python -m memd.man DIRECTORY\n")


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.file_name)
def test_nothing_to_complain_of(page: Page) -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("needs mandoc(1): it is not on PATH")
    done = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning"],
        input=page.source(),
        capture_output=True,
        text=True,
        check=False,
    )
    # A date would make every build another.
    complaints = [line for line in done.stdout.splitlines() if "missing date" not in line]
    assert complaints == []
