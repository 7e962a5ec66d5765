from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memd.hostmem import libc
from memd.json_types import JSON
from memd.qom import Tree
from memd.work import run_here
from tests.backends.doing import MIB, add, delete
from tests.backends.test_explain import arguments, happened, told
from tests.conftest import hugepage_state, need_shm, need_sys
from tests.kvm import needs_guest_memfd

Warnings = dict[str, str]


def warnings(tree: Tree, kind: str, **options: JSON) -> Warnings:
    """The warnings by what they are about."""
    answer = told(tree, arguments(kind, **options))
    return {each["about"]: each["text"] for each in answer["warnings"]}


def suggestion(tree: Tree, kind: str, **options: JSON) -> dict[str, Any]:
    """The arguments that are suggested, which have to work; {} for none."""
    answer = told(tree, arguments(kind, **options))
    if "suggestion" not in answer:
        return {}
    found: dict[str, Any] = answer["suggestion"]["options"]
    assert happened(tree, found) is None
    delete(tree)
    return found


@pytest.fixture
def full(directory: Path) -> str:
    """The path of a file with content."""
    path = directory / "full"
    path.write_bytes(b"x" * (2 * MIB + 100))
    return str(path)


def test_nothing_to_say(tree: Tree, full: str) -> None:
    for kind, options in (
        ("ram", {}),
        ("memfd", {"prealloc": True}),
        ("file", {"mem-path": full, "share": True}),
        ("file", {"mem-path": full, "readonly": True, "rom": "off"}),
        ("shm", {}),
    ):
        answer = told(tree, arguments(kind, size=MIB, **options))
        assert answer["warnings"] == []
        assert "suggestion" not in answer


def test_a_template_that_is_opened_for_writing(tree: Tree, full: str) -> None:
    said = warnings(tree, "file", size=MIB, mem_path=full)
    assert "discarding memory changes it for everybody" in said["template"]
    found = suggestion(tree, "file", size=MIB, mem_path=full)
    assert (found["readonly"], found["rom"]) == (True, "off")
    assert found["size"] == MIB
    # Where such discarding is denied, there is no advice on it.
    denied = told(tree, arguments("file", size=MIB, mem_path=full), deny=True)
    assert "discarding" not in denied["warnings"][0]["text"]


def test_a_file_that_nothing_is_written_to(tree: Tree, directory: Path) -> None:
    new = str(directory / "new")
    assert set(warnings(tree, "file", size=MIB, mem_path=new)) == {"private-file"}
    found = suggestion(tree, "file", size=MIB, mem_path=new, offset=4096)
    assert found == arguments("ram", size=MIB)
    assert not (directory / "new").exists()
    assert suggestion(tree, "file", size=MIB, mem_path=str(directory)) == found


def test_read_only_memory_where_ram_was_wanted(tree: Tree, full: str) -> None:
    rom = {"size": MIB, "mem_path": full, "readonly": True}
    assert set(warnings(tree, "file", **rom)) == {"rom"}
    assert suggestion(tree, "file", **rom)["rom"] == "off"
    for asked in ({"rom": "on"}, {"share": True}):
        assert warnings(tree, "file", **rom, **asked) == {}
        assert suggestion(tree, "file", **rom, **asked) == {}


def test_options_that_contradict_each_other(tree: Tree, full: str) -> None:
    found = suggestion(tree, "file", size=MIB, mem_path=full, readonly=True, share=True, rom="off")
    assert found["share"] is False
    found = suggestion(tree, "file", size=MIB, mem_path=full, rom="on", share=True)
    assert found["readonly"] is True
    assert "rom" not in found


def test_a_file_that_is_too_small(tree: Tree, full: str) -> None:
    found = suggestion(tree, "file", size=4 * MIB, mem_path=full, share=True, offset=4096)
    assert found["size"] == 2 * MIB - 4096


def test_empty_files_that_get_no_size(tree: Tree, directory: Path) -> None:
    path = directory / "empty"
    path.touch()
    said = warnings(tree, "file", size=MIB, mem_path=str(path), readonly=True, rom="off")
    assert "every access to it fails" in said["file-size"]


def test_persistent_memory(tree: Tree, full: str) -> None:
    file = {"size": MIB, "mem_path": full, "pmem": True}
    assert "(DAX)" in warnings(tree, "file", **file, share=True)["pmem"]
    assert "no effect with share=off" in warnings(tree, "file", **file)["pmem"]


def test_data_that_is_discarded(tree: Tree, full: str) -> None:
    file = {"size": MIB, "mem_path": full, "discard_data": True}
    assert "thrown away" in warnings(tree, "file", **file, share=True)["discard-data"]
    assert "no effect" in warnings(tree, "file", **file)["discard-data"]


def test_preallocated_clones(tree: Tree, full: str) -> None:
    file = {"size": MIB, "mem_path": full, "readonly": True, "prealloc": True}
    assert "copies all 1 MiB" in warnings(tree, "file", **file, rom="off")["prealloc"]
    assert "prealloc" not in warnings(tree, "file", **file)


def test_numa_policies_of_files(tree: Tree, full: str) -> None:
    file = {"size": MIB, "mem_path": full, "policy": "bind", "host_nodes": [0]}
    with open(full, "rb") as opened:
        in_memory = libc.file_system_type(opened.fileno()) == libc.TMPFS_MAGIC
    found = warnings(tree, "file", **file, share=True)
    assert ("host-nodes" in found) == (not in_memory)
    assert "host-nodes" not in warnings(tree, "memfd", size=MIB, policy="bind", host_nodes=[0])


def test_a_private_memfd(tree: Tree) -> None:
    private = {"size": 4 * MIB, "share": False, "seal": True}
    assert "8 MiB in the end" in warnings(tree, "memfd", **private)["private-memfd"]
    found = suggestion(tree, "memfd", **private)
    assert found == arguments("ram", size=4 * MIB, share=False)


def test_shared_ram(tree: Tree) -> None:
    assert "not sealed" in warnings(tree, "ram", size=MIB, share=True)["share"]
    assert suggestion(tree, "ram", size=MIB, share=True)["qom-type"] == "memory-backend-memfd"
    # A size of no whole pages is for memory-backend-ram alone.
    assert suggestion(tree, "ram", size=4097, share=True) == {}


@need_sys
def test_huge_page_sizes(tree: Tree) -> None:
    assert (
        "without hugetlb=on"
        in warnings(tree, "memfd", size=MIB, hugetlbsize=2 * MIB)["hugetlbsize"]
    )
    assert "odd" in warnings(tree, "memfd", size=MIB, hugetlb=True, hugetlbsize=3)["hugetlbsize"]
    assert "seal" in warnings(tree, "memfd", size=MIB, seal=False)
    said = warnings(tree, "memfd", size=MIB, hugetlb=True, hugetlbsize=4096)
    assert said["hugetlb"].startswith("the kernel has huge pages of ")


def test_huge_pages_that_are_not_there(tree: Tree, hugepages: Callable[[int], None]) -> None:
    hugepages(3)
    total = hugepage_state()["Total"]
    huge = {"size": 8 * MIB, "hugetlb": True}
    answer = told(tree, arguments("memfd", **huge))
    assert answer["verdict"] == "fails"
    assert answer["warnings"] == [
        {
            "about": "huge-pages",
            "text": f"4 huge pages of 2 MiB are wanted, and 3 of {total} are free.",
        }
    ]
    assert answer["suggestion"]["options"] == arguments("memfd", size=8 * MIB)
    assert told(tree, arguments("memfd", **{**huge, "size": 6 * MIB}))["verdict"] == "works"
    said = warnings(tree, "memfd", **huge, reserve=False)
    assert "touching more fails" in said["huge-pages"]
    further = Path("/proc/sys/vm/nr_overcommit_hugepages")
    before = further.read_text()
    further.write_text("1")
    try:
        answer = told(tree, arguments("memfd", **huge))
    finally:
        further.write_text(before)
    assert answer["verdict"] == "works"
    assert answer["warnings"][0]["about"] == "huge-pages"


@need_shm
def test_room(tree: Tree) -> None:
    large = {"size": 1 << 42}
    said = warnings(tree, "shm", **large)
    assert said["space"].startswith("the file system of /dev/shm has ")
    assert "may need 4 TiB" in said["space"]
    assert "memory" in said
    assert suggestion(tree, "shm", **large)["qom-type"] == "memory-backend-memfd"


@pytest.mark.parametrize("size", [4097, MIB + 1])
@pytest.mark.parametrize("kind", ["memfd", "shm"])
def test_odd_sizes(tree: Tree, kind: str, size: int) -> None:
    assert suggestion(tree, kind, size=size)["size"] == (size + 4095) // 4096 * 4096


def test_memory_that_nobody_shares(tree: Tree) -> None:
    for kind in ("shm", "guest-memfd"):
        found = suggestion(tree, kind, size=MIB, share=False)
        assert found == arguments("ram", size=MIB, share=False)


@needs_guest_memfd
def test_guest_memfd(tree: Tree) -> None:
    assert (
        "belongs to the virtual machine" in warnings(tree, "guest-memfd", size=MIB)["guest-memfd"]
    )
    assert suggestion(tree, "guest-memfd", size=4097)["size"] == 8192


def test_merging(tree: Tree, merging: None) -> None:
    assert "only private" in warnings(tree, "memfd", size=MIB, merge=True)["merge"]
    ksm = Path("/sys/kernel/mm/ksm/run")
    for runs in ("1", "0"):
        ksm.write_text(runs)
        assert ("merge" in warnings(tree, "ram", size=MIB, merge=True)) != (runs == "1")
    assert warnings(tree, "ram", size=MIB) == {}


def test_what_goes_with_preallocation(tree: Tree) -> None:
    add_context(tree)
    options: dict[str, JSON] = {"prealloc_threads": 2, "prealloc_context": "tc"}
    assert set(warnings(tree, "ram", size=MIB, **options)) == {
        "prealloc-threads",
        "prealloc-context",
    }
    assert warnings(tree, "ram", size=MIB, prealloc=True, **options) == {}
    # A suggestion keeps what leads elsewhere.
    found = suggestion(tree, "memfd", size=MIB, share=False, **options)
    assert found["prealloc-context"] == "tc"


def add_context(tree: Tree) -> None:

    run_here(tree.objects.create({"qom-type": "thread-context", "id": "tc"}))


def test_memory_that_is_not_set_aside(tree: Tree) -> None:
    assert "more may be promised" in warnings(tree, "ram", size=MIB, reserve=False)["reserve"]
    assert "no effect" in warnings(tree, "memfd", size=MIB, reserve=False)["reserve"]


def test_an_object_is_not_in_the_way(tree: Tree) -> None:
    """What is suggested is tried in thought only: its id is not taken by that."""
    add(tree, "ram", "m1", size=MIB)
    for _ in range(2):
        assert suggestion(tree, "memfd", size=MIB, share=False)["id"] == "m0"
