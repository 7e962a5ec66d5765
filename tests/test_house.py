"""The rules of the code's structure: ranks, linters, types."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from types import FunctionType

import pytest

from tests.house import (
    ARCHITECTURE,
    MODULES,
    RANKS,
    TREE,
    drawn,
    import_statements,
    imports,
    name_of,
    room_of,
)


def test_imports_go_down() -> None:
    """A room imports itself and lower ranks; so nothing lower calls upward."""
    wrong = []
    for path in MODULES:
        room = room_of(name_of(path))
        for line, imported in imports(path):
            other = room_of(imported)
            if other != room and RANKS[other] >= RANKS[room]:
                wrong.append(f"{path.relative_to(TREE)}:{line} imports {imported}")
    assert wrong == []


def test_what_outlives_is_composition_s_alone() -> None:
    """What is kept over a restart is told by listeners; nobody knows who they are."""
    found = {
        room_of(name_of(path))
        for path in MODULES
        for _line, imported in imports(path)
        if room_of(imported) == "memd.persist"
    }
    assert found <= {"memd.persist", "memd.app"}


def test_the_picture_of_the_rooms() -> None:
    """What docs/architecture.md shows is what `python -m tests.house` draws."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    assert drawn(text) == text, "run python -m tests.house --write"


def imported_modules(path: Path) -> Iterator[str]:
    """The modules of its own room that a file imports, types included."""
    here = name_of(path)
    names = {name_of(each) for each in MODULES if room_of(name_of(each)) == room_of(here)}
    for node in import_statements(path):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        else:
            module = node.module or ""
            inside = [f"{module}.{alias.name}" for alias in node.names]
            # What is not a module is a name in the one that it is imported from.
            found = [each if each in names else module for each in inside]
        yield from (each for each in found if each in names and each != here)


def test_no_circle_of_modules() -> None:
    """Inside a room, too, some module comes first: each can be read after those it needs."""
    needs = {name_of(path): set(imported_modules(path)) for path in MODULES}
    while ready := [name for name, needed in needs.items() if not needed]:
        for name in ready:
            del needs[name]
        for needed in needs.values():
            needed.difference_update(ready)
    assert needs == {}


def outside(path: Path) -> Iterator[str]:
    """The top-level names of every module that a file imports."""
    for node in import_statements(path):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif not node.level:
            yield (node.module or "").split(".")[0]


def test_hostmem_alone_maps_memory() -> None:
    """mmap and system calls by number stand in one room; the lexer has strcspn(3) alone."""
    others = [path for path in MODULES if room_of(name_of(path)) != "memd.hostmem"]
    found = [path for path in others if {"mmap", "ctypes"} & set(outside(path))]
    assert [name_of(path) for path in found] == ["memd.wire.lexer"]


def test_wire_and_session_know_no_sockets() -> None:
    """Bytes and values come in, values and bytes go out."""
    rooms = ("memd.wire", "memd.session")
    pure = [path for path in MODULES if room_of(name_of(path)) in rooms]
    assert [path for path in pure if {"socket", "asyncio"} & set(outside(path))] == []


def methods(cls: type) -> Iterator[str]:
    """The public methods and properties that a class defines."""
    for name, member in vars(cls).items():
        kinds = (FunctionType, classmethod, property, cached_property)
        if not name.startswith("_") and isinstance(member, kinds):
            yield name


def test_methods_are_documented_or_override_one_that_is() -> None:
    """What a linter can't tell: it sees one class at a time."""
    missing = [
        f"{module.__name__}: {cls.__name__}.{name}"
        for path in MODULES
        if path.name != "__main__.py"
        for module in [importlib.import_module(name_of(path))]
        for cls in vars(module).values()
        if inspect.isclass(cls) and cls.__module__ == module.__name__
        if not cls.__name__.startswith("_")
        for name in methods(cls)
        if not any(getattr(vars(each).get(name), "__doc__", None) for each in cls.__mro__)
    ]
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


# Half a minute of a core where nothing is cached, of which others may have most.
@pytest.mark.timeout(600)
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
        # In a further worktree of git, `.git` is a file. A daemon may have its
        # socket in the tree, as the README's has.
        paths = (Path(folder, name) for name in names if name != ".git")
        yield from (path for path in paths if path.is_file())


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
