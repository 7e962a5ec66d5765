"""The README's commands, as a stranger would paste them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def marked(name: str) -> str:
    """The one line of the block that the README marks with a name."""
    text = README.read_text(encoding="utf-8")
    (block,) = re.findall(rf"^<!-- command: {name} -->\n```sh\n(.*?)^```$", text, re.M | re.S)
    lines = block.splitlines()
    assert len(lines) == 1, f"the command {name!r} is one line to paste"
    return str(lines[0])


def test_the_commands_are_marked() -> None:
    """`.ci/run` runs the one; the other starts the daemon."""
    assert "pytest" in shlex.split(marked("test"))[-1]
    assert ".venv/bin/memd" in shlex.split(marked("run"))
