from __future__ import annotations

from pathlib import Path

from memd.backends.explain_words import spelled
from memd.cli.objects import parse_object
from memd.compat import Compat
from memd.json_types import JSON
from memd.qom import Tree
from tests.backends.doing import MIB
from tests.backends.test_explain import arguments, told
from tests.conftest import need_shm, need_sys
from tests.kvm import needs_guest_memfd


def text(tree: Tree, kind: str, **options: JSON) -> str:
    lines: list[str] = told(tree, arguments(kind, **options))["text"]
    assert all(line and line == line.strip() and "\n" not in line for line in lines)
    return "\n".join(lines)


def test_arguments_as_the_command_line_takes_them() -> None:
    options: dict[str, JSON] = {
        "qom-type": "memory-backend-file",
        "id": "m0",
        "size": 3 * MIB + 4096,
        "mem-path": "/a,b/c",
        "align": 0,
        "offset": 1 << 30,
        "share": False,
        "prealloc": True,
        "host-nodes": [0, 3],
        "policy": "bind",
        "prealloc-threads": 2048,
    }
    line = spelled(options)
    assert "offset=1G" in line
    assert "share=off,prealloc=on" in line
    assert parse_object(line, Compat.V10_0, set(), None, nesting=True) == options


def test_anonymous_memory(tree: Tree) -> None:
    assert text(tree, "ram", size=MIB) == (
        "It would work: memory-backend-ram, 1 MiB.\n"
        "There is no file behind it: it is anonymous memory.\n"
        "It is mapped private, for reading and writing, in pages of 4 KiB"
        " (PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS).\n"
        "What is written to it is the daemon's alone.\n"
        "Discarding a range drops its pages; it reads as zeroes then.\n"
        "No other process can share it.\n"
        "Its content does not outlive the daemon."
    )
    assert "8 KiB for 4097 bytes asked for" in text(tree, "ram", size=4097)


def test_files(tree: Tree, directory: Path) -> None:
    path = directory / "file"
    new = text(tree, "file", size=MIB, mem_path=str(path), share=True, offset=4096)
    assert f"{path} does not exist: it is made with mode 0644 and given 1028 KiB" in new
    assert "from offset 0x1000 of the file" in new
    assert "The file changes by making it, giving it its size, what is written to" in new
    path.touch()
    empty = text(tree, "file", size=MIB, mem_path=str(path), share=True)
    assert "it is empty, and given 1 MiB" in empty
    path.write_bytes(b"x" * MIB)
    template = text(tree, "file", size=MIB, mem_path=str(path), readonly=True, rom="off")
    assert f"{path} is opened read-only (O_RDONLY|O_NONBLOCK|O_CLOEXEC); its 1 MiB stay" in template
    assert "The file can't change through it." in template
    assert "Discarding a range is refused." in template
    rom = text(tree, "file", size=MIB, mem_path=str(path), readonly=True)
    assert "the kernel refuses (ROM)" in rom
    unnamed = text(tree, "file", size=MIB, mem_path=str(directory), share=True)
    assert f"A file without a name is made in the directory {directory}" in unnamed


@need_shm
def test_files_in_memory(tree: Tree) -> None:
    shm = text(tree, "file", size=MIB, mem_path="/dev/shm/memd-none", share=True)
    assert "A restart of the host loses it: the file is in memory (tmpfs)." in shm


@need_sys
def test_what_else_is_done(tree: Tree) -> None:
    told = text(
        tree,
        "memfd",
        size=MIB,
        prealloc=True,
        prealloc_threads=2,
        dump=False,
        policy="bind",
        host_nodes=[0],
    )
    assert "All its pages are allocated before the answer, by up to 2 threads." in told
    assert "Its pages come from NUMA nodes [0]: bind." in told
    assert "Core dumps of the daemon leave it out." in told


@needs_guest_memfd
def test_guest_memfd(tree: Tree) -> None:
    assert "a guest_memfd of a virtual machine that is made for it" in text(
        tree, "guest-memfd", size=MIB
    )


def test_a_failure_is_short(tree: Tree) -> None:
    assert text(tree, "ram", size=0) == (
        "It would fail: property 'size' of memory-backend-ram doesn't take value '0'"
    )
