"""The rooms, their ranks, and who imports whom; `python -m tests.house` draws it.

The picture stands in docs/architecture.md, and `tests/test_house.py` holds both
together: run `python -m tests.house --write` after a room has come to import another one.
"""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
PACKAGE = TREE / "memd"
ARCHITECTURE = TREE / "docs" / "architecture.md"

RANKS = {
    "memd.__init__": 0,
    "memd.errors": 0,
    "memd.compat": 0,
    "memd.json_types": 0,
    "memd.config": 0,
    "memd.fd_passing": 0,
    "memd.option_text": 0,
    "memd.places": 0,
    "memd.sizes": 0,
    "memd.timer": 0,
    "memd.work": 0,
    "memd.wire": 1,
    "memd.qapi": 1,
    "memd.hostmem": 1,
    "memd.session": 2,
    "memd.qom": 2,
    "memd.client": 2,
    "memd.backends": 3,
    "memd.devices": 4,
    "memd.pages": 4,
    "memd.standin": 5,
    "memd.commands": 6,
    "memd.server": 7,
    "memd.persist": 7,
    "memd.faulty": 8,
    "memd.app": 9,
    "memd.cli": 10,
    "memd.memctl": 11,
    "memd.testing": 11,
    "memd.man": 12,
    "memd.__main__": 12,
}
"""Each room's rank: it imports itself, and rooms of a lower rank."""

MODULES = sorted(PACKAGE.rglob("*.py"))

BEGIN, END = "<!-- python -m tests.house -->\n", "<!-- end -->\n"


def name_of(path: Path) -> str:
    """A module's dotted name."""
    return ".".join(path.relative_to(TREE).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """The room that a module belongs to: memd.ROOM; the files of rank 0 are one."""
    room = ".".join(module.split(".")[:2])
    return room if RANKS.get(room) else "memd.__init__"


@functools.cache
def import_statements(path: Path) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """All of a file's, wherever in it."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return tuple(node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module of memd that a file imports, wherever in it, with the line."""
    package = path.relative_to(TREE).parent.parts
    for node in import_statements(path):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            parts = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*parts, *([node.module] if node.module else [])])
            # `from memd import app` imports memd.app.
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "memd" else [base]
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "memd")


def picture() -> str:
    """A row for each room, the highest first: a mark below each room that it imports."""
    needs: dict[str, set[str]] = {room: set() for room in RANKS if RANKS[room]}
    for path in MODULES:
        room = room_of(name_of(path))
        if room in needs:
            needs[room] |= {room_of(imported) for _line, imported in imports(path)} - {room}
    columns = [room for room in RANKS if RANKS[room] and room != "memd.__main__"]
    lines = [f"{'rank  room':<17}{' '.join(_short(room) for room in columns)}"]
    for room in sorted(needs, key=lambda each: -RANKS[each]):
        marks = [
            "■" if other in needs[room] else "·" if RANKS[other] < RANKS[room] else " "
            for other in columns
        ]
        name = room.removeprefix("memd.")
        lines.append(f"{RANKS[room]:>4}  {name:<11}{'   '.join(marks)}".rstrip())
    return "".join(f"    {line}\n" for line in lines)


def _short(room: str) -> str:
    return room.removeprefix("memd.")[:3].ljust(3)


def drawn(text: str) -> str:
    """The document with the picture as it is now."""
    before, _begin, rest = text.partition(BEGIN)
    _old, _end, after = rest.partition(END)
    return f"{before}{BEGIN}\n{picture()}\n{END}{after}"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        ARCHITECTURE.write_text(drawn(ARCHITECTURE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(picture(), end="")
