"""`python -m tests.memctl.screenshot docs/memctl.svg`: the picture in docs/memctl.md.

memctl is run in a terminal beside a daemon, and what it shows there is drawn.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from memd.client import Client
from tests.differential.server import memd_argv, running
from tests.memctl.conftest import in_terminal

WIDTH = 100
MIB = 1 << 20


def fill(path: Path, place: Path) -> None:
    """Make backends that there is something to see of."""
    template = place / "golden"
    with Client(path) as client:
        add = {"qom-type": "memory-backend-file", "mem-path": str(template), "size": 64 * MIB}
        client.execute("object-add", {**add, "id": "maker", "share": True})
        client.write("maker", 0, b"t" * 24 * MIB)
        client.execute("object-del", {"id": "maker"})
        client.execute("object-add", {**add, "id": "rom0", "readonly": True})
        client.execute("object-add", {**add, "id": "clone0", "readonly": True, "rom": "off"})
        for start, count in ((0, 700), (2900, 150), (7000, 1500), (12000, 37)):
            client.write("clone0", start * 4096, b"c" * count * 4096)
        client.read("clone0", 8 * MIB, 16 * MIB)
        memory = {"qom-type": "memory-backend-memfd", "id": "vm0", "size": 256 * MIB}
        client.execute("object-add", memory)
        client.write("vm0", 5 * MIB, b"v" * 50 * MIB)


def main(target: str) -> None:
    """Draw the picture."""
    with tempfile.TemporaryDirectory(prefix="memd-") as directory:
        place = Path(directory)
        with running("memd", memd_argv(), place) as server:
            fill(server.path, place)
            console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
            for words in (["ls"], ["map", "clone0"]):
                _status, shown = in_terminal(server.path, *words, columns=WIDTH)
                console.print(Text(f"$ memctl {' '.join(words)}", "bold green"))
                console.print(Text.from_ansi(shown))
    console.save_svg(target, title="memctl")


if __name__ == "__main__":
    main(sys.argv[1])
