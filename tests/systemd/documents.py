"""What docs/systemd.md tells an operator to write, taken from there."""

from __future__ import annotations

import re
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "systemd.md"


def drop_in(name: str) -> str:
    """The drop-in of that name, such as "memd.service.d/tcp.conf"."""
    text = DOCUMENT.read_text(encoding="utf-8")
    blocks: list[tuple[str, str]] = re.findall(r"^```ini\n# (\S+)\n(.*?)^```$", text, re.M | re.S)
    return dict(blocks)[name]
