"""The house's rules, kept by tests: ranks, sizes, linters, types, mirrors."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
PACKAGE = TREE / "memd"

RANKS = {
    "memd.__init__": 0,
    "memd.errors": 0,
    "memd.compat": 0,
    "memd.outcome": 0,
    "memd.wire": 1,
    "memd.qapi": 1,
    "memd.hostmem": 1,
    "memd.client": 1,
    "memd.session": 2,
    "memd.qom": 2,
    "memd.backends": 3,
    "memd.devices": 3.5,
    "memd.commands": 4,
    "memd.server": 5,
    "memd.faulty": 5.5,
    "memd.app": 6,
    "memd.cli": 6,
    "memd.memctl": 6.5,
    "memd.__main__": 7,
    "memd.man": 8,
    "memd.testing": 7,
}
"""Each room's rank: it imports itself, and rooms of a lower rank."""

GUESTS = {("memd.cli", "memd.app"), ("memd.app", "memd.cli")}
"""Rooms of one rank that know each other all the same: composition and its command line."""

LINES = 450

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """A module's dotted name."""
    return ".".join(path.relative_to(TREE).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """The room that a module belongs to: memd.ROOM, or memd's own top."""
    parts = module.split(".")
    return ".".join(parts[:2]) if len(parts) > 1 else "memd.__init__"


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module of memd that a file imports, wherever in it, with the line."""
    package = path.relative_to(TREE).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*parts, *([node.module] if node.module else [])])
            # `from memd import app` imports memd.app.
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "memd" else [base]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "memd")


def test_imports_go_down() -> None:
    """A room imports itself and lower ranks; so nothing lower calls upward."""
    wrong = []
    for path in MODULES:
        room = room_of(name_of(path))
        assert room in RANKS, f"{room} has no rank"
        for line, imported in imports(path):
            other = room_of(imported)
            if other.startswith("memd.__"):
                other = "memd.__init__"
            if other != room and (room, other) not in GUESTS and RANKS[other] >= RANKS[room]:
                wrong.append(f"{path.relative_to(TREE)}:{line} imports {imported}")
    assert wrong == []


def outside(path: Path) -> Iterator[str]:
    """The top-level names of every module that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").split(".")[0]


def test_hostmem_alone_maps_memory() -> None:
    """mmap and system calls by number stand in one room."""
    others = [path for path in MODULES if room_of(name_of(path)) != "memd.hostmem"]
    assert [path for path in others if {"mmap", "ctypes"} & set(outside(path))] == []


def test_wire_and_session_know_no_sockets() -> None:
    """Bytes and values come in, values and bytes go out."""
    rooms = ("memd.wire", "memd.session")
    pure = [path for path in MODULES if room_of(name_of(path)) in rooms]
    assert [path for path in pure if {"socket", "asyncio"} & set(outside(path))] == []


def test_modules_are_short() -> None:
    lengths = {
        name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES
    }
    assert {name: count for name, count in lengths.items() if count > LINES} == {}


def test_tests_mirror_modules() -> None:
    """tests/ROOM/test_MODULE.py for memd/ROOM/MODULE.py; what holds no function needs none."""
    missing = []
    for path in MODULES:
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        *room, name = path.relative_to(PACKAGE).with_suffix("").parts
        mirror = TREE.joinpath("tests", *room, f"test_{name.strip('_')}.py")
        has_code = any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) for node in nodes)
        if has_code and name != "__main__" and not mirror.exists():
            missing.append(str(mirror.relative_to(TREE)))
    assert missing == []


def run(*command: str) -> None:
    """Run a tool of the environment over the tree; its output is the failure's text."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=TREE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def test_ruff_check() -> None:
    run("ruff", "check", "--no-cache", ".")


def test_ruff_format() -> None:
    run("ruff", "format", "--no-cache", "--check", ".")


def test_mypy() -> None:
    run("mypy")


def sources() -> Iterator[Path]:
    """The project's own files: not what tools, builds and environments leave in the tree."""
    for folder, below, names in os.walk(TREE):
        below[:] = [
            name
            for name in below
            if (name[0] != "." or name == ".ci")
            and name not in ("__pycache__", "build", "dist")
            and not name.endswith(".egg-info")
        ]
        yield from (Path(folder, name) for name in names)


def test_the_tree_speaks_of_itself_alone() -> None:
    """No path of a machine that it was made on, and nothing left for later."""
    # Put together, so that this file does not hold what it looks for.
    unwanted = ["/" + "work/", "/" + "opt/trixie", "/" + "tmp/ref", "TO" + "DO", "FIX" + "ME"]
    unwanted += ["NotImplemented" + "Error", "X" * 3 + ":", "HA" + "CK"]
    for path in sources():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            found = [word for word in unwanted if word in line]
            assert not found, f"{path.relative_to(TREE)}:{number} holds {found}"
