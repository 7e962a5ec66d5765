from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from memd.qom import Tree
from tests.backends.doing import MIB, add, refusal


def test_whole_pages_of_a_file(tree: Tree, directory: Path) -> None:
    path = directory / "f"
    for make in (path.unlink, path.touch, lambda: path.write_bytes(bytes(2 * MIB))):
        if path.exists() or make != path.unlink:
            make()
        assert refusal(lambda: add(tree, "file", size=MIB - 1, mem_path=str(path))) == (
            "backend 'memory-backend-file' memory size must be multiple of 4 KiB"
        )


@pytest.mark.parametrize("size", [2 * MIB + 1, 3 * MIB])
def test_whole_huge_pages(
    tree: Tree,
    directory: Path,
    mount: Callable[..., None],
    hugepages: Callable[[int], None],
    size: int,
) -> None:
    hugepages(4)
    mount("hugetlbfs", directory / "huge")
    for name in ("", "new"):
        path = str(directory / "huge" / name)
        assert refusal(lambda path=path: add(tree, "file", size=size, mem_path=path)) == (  # type: ignore[misc]
            "backend 'memory-backend-file' memory size must be multiple of 2 MiB"
        )
    assert not (directory / "huge/new").exists()


def test_memory_of_a_file_needs_the_file(tree: Tree) -> None:
    from memd.backends.memfd import MEMORY_BACKEND_MEMFD, MemfdBackend

    backend = MemfdBackend(MEMORY_BACKEND_MEMFD, tree, "m0")
    with pytest.raises(TypeError):
        backend.spec(None)
