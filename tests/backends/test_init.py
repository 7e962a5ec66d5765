from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from memd.backends.thread_context import THREAD_CONTEXT
from memd.json_types import JSON
from memd.qom import Tree
from memd.work import run_here
from tests.backends.doing import MIB, add, delete, get, refusal
from tests.conftest import need_shm
from tests.stepping import close_all


def test_types(tree: Tree) -> None:
    for name in ("ram", "file", "memfd", "shm"):
        found = tree.type_by_name(f"memory-backend-{name}")
        assert found is not None
        assert found.factory is not None
        assert found.is_a("memory-backend")
        assert found.is_a("user-creatable")
    assert THREAD_CONTEXT.is_a("user-creatable")
    assert not THREAD_CONTEXT.is_a("memory-backend")


@pytest.mark.parametrize("id", ["a", "Z", "a.b", "a_b-c", "x0", "a" * 300, "string"])
def test_ids(tree: Tree, id: str) -> None:
    assert add(tree, "ram", id, size=1) == {}
    assert get(tree, "type", id) == "memory-backend-ram"
    assert delete(tree, id) == {}


@pytest.mark.parametrize(
    "id", ["", "9a", "a/b", "-a", "_a", ".a", "a b", "a ", "é", "aé", "m[0]", "a\n", "a\0", "a:b"]
)
def test_what_is_no_id(tree: Tree, id: str) -> None:
    for kind in ("ram", "epc"):
        assert refusal(lambda kind=kind: add(tree, kind, id, size=0)) == (  # type: ignore[misc]
            "Parameter 'id' expects an identifier"
        )


@pytest.mark.parametrize(
    "name", ["memory-backend-epc", "memory-backend", "iothread", "container", "memory-region"]
)
def test_types_that_can_not_be_made(tree: Tree, name: str) -> None:
    arguments: dict[str, JSON] = {"qom-type": name, "id": "m0", "size": 0}
    assert refusal(lambda: tree.objects.create(arguments)) == f"invalid object type: {name}"


def test_a_taken_id(tree: Tree) -> None:
    text = "attempt to add duplicate property '{}' to object (type 'container')"
    add(tree, "ram", size=MIB)
    assert refusal(lambda: add(tree, "ram", size=MIB)) == text.format("m0")
    # After the values, before the making.
    assert refusal(lambda: add(tree, "ram", size=0)) != text.format("m0")
    assert refusal(lambda: add(tree, "ram", size=1 << 62)) == text.format("m0")
    assert refusal(lambda: add(tree, "shm", size=MIB, share=False)) == text.format("m0")
    assert refusal(lambda: add(tree, "ram", "type", size=MIB)) == text.format("type")
    # It is the first one that is there.
    assert get(tree, "size") == MIB


def test_a_file_is_not_made_for_a_taken_id(tree: Tree, directory: Path) -> None:
    add(tree, "ram", size=MIB)
    refusal(lambda: add(tree, "file", size=MIB, mem_path=str(directory / "new")))
    assert os.listdir(directory) == []


def test_options_are_left_as_they_were(tree: Tree) -> None:
    arguments: dict[str, JSON] = {"qom-type": "memory-backend-ram", "id": "m0", "size": 1}
    before = dict(arguments)
    run_here(tree.objects.create(arguments))
    assert arguments == before


def test_delete(tree: Tree) -> None:
    for id in ("m0", "", "type", "/objects/m0", "objects"):
        assert refusal(lambda id=id: delete(tree, id)) == f"object '{id}' not found"  # type: ignore[misc]
    add(tree, "ram", size=MIB)
    assert refusal(lambda: delete(tree, "m0/m0[0]")) == "object 'm0/m0[0]' not found"
    assert delete(tree) == {}
    assert refusal(lambda: delete(tree)) == "object 'm0' not found"
    add(tree, "ram", size=MIB)


@need_shm
def test_close_all(tree: Tree, directory: Path) -> None:
    for at, kind in enumerate(("ram", "memfd", "shm")):
        add(tree, kind, f"m{at}", size=128 * MIB)
    add(tree, "file", "f", size=MIB, mem_path=str(directory / "new"))
    close_all(tree)
    assert tree.objects.children == {}
    # What clients asked to be made is theirs.
    assert os.listdir(directory) == ["new"]
    close_all(tree)


@need_shm
def test_many(tree: Tree) -> None:
    for at in range(300):
        add(tree, ("ram", "memfd", "shm")[at % 3], f"m{at}", size=MIB)
    assert len(tree.objects.children) == 300
    for at in range(300):
        delete(tree, f"m{at}")


def test_ctypes_is_not_needed_to_start() -> None:
    script = (
        "import sys\n"
        "from memd import backends\n"
        "from memd.qom import Tree\n"
        "backends.register(Tree())\n"
        "print('ctypes' in sys.modules, 'logging' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.split() == ["False", "False"]
