"""What roff would take for its own is shown as it is."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from memd.man.roff import Page, escaped


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("plain", "plain"),
        (".TH", "\\&.TH"),
        ("a\\b", "a\\eb"),
        ("--qmp", "\\-\\-qmp"),
        ("'x'", "\\(aqx\\(aq"),
        ("~ ^ `", "\\(ti \\(ha \\(ga"),
    ],
)
def test_escaping(text: str, source: str) -> None:
    assert escaped(text) == source


def test_what_is_shown() -> None:
    """Prose is filled, what is indented keeps its lines; every character comes through."""
    if shutil.which("mandoc") is None:
        pytest.skip("needs mandoc(1): it is not on PATH")
    page = Page("thing", 8, "a thing")
    page.heading("OPTIONS")
    page.tagged("--size N", "how large:\n  k  'kibi'\n  .M mebi\nand so on,\nand on")
    page.example("a\\b --c")
    shown = subprocess.run(
        ["mandoc", "-Tutf8", "-O", "width=60"],
        input=page.source(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # Bold is struck over.
    plain = "".join(c for i, c in enumerate(shown) if c != "\b" and shown[i + 1 : i + 2] != "\b")
    assert "--size N\n" in plain
    assert "k  'kibi'\n" in plain
    assert ".M mebi\n" in plain
    assert "and so on, and on\n" in plain
    assert "a\\b --c\n" in plain
