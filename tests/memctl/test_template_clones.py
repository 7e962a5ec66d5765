"""What memctl tells of machines that are sent a template."""

from __future__ import annotations

import pytest

from memd.json_types import JSON
from memd.memctl.template_serve import summary
from memd.memctl.template_show import picture

PAGES = {"asked": 30, "zeroes": 10, "working-set": 40, "rest": 20}


def test_picture() -> None:
    """A fifth was asked for, two fifths are of the working set, a fifth is not there yet."""
    bar = "#" * 8 + "=" * 16 + "-" * 8 + "." * 8
    assert picture(PAGES, 100).startswith(f"[{bar}] # 20 pages asked for, = 40 of the working set")
    assert picture(dict.fromkeys(PAGES, 0), 0).startswith(f"[{'.' * 40}]")


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ({"outcome": "complete"}, "has all of its memory"),
        ({"outcome": "left"}, "has ended"),
        ({"outcome": "lost"}, "connection to the machine is lost"),
        ({"outcome": "failed", "error": "no room"}, "failed: no room"),
    ],
)
def test_summary(outcome: dict[str, JSON], said: str) -> None:
    text = summary({"name": "t", "pages": PAGES, "bytes": 5 << 20, **outcome})
    assert text.startswith("t: ")
    assert said in text
    assert "5 MiB sent: 30 pages that it asked for (10 of them zeroes)" in text
