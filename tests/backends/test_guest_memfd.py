from __future__ import annotations

import mmap
import os
import subprocess
import sys

import pytest

from memd.backends.base import MEMORY_BACKEND
from memd.backends.guest_memfd import MEMORY_BACKEND_GUEST_MEMFD
from memd.hostmem import libc
from memd.json_types import JSON
from memd.qom import Tree
from tests.backends.doing import MIB, add, change, delete, get, refusal, region_of
from tests.kvm import needs_guest_memfd
from tests.stepping import Running


def test_its_properties_are_those_of_all_memory() -> None:
    assert MEMORY_BACKEND_GUEST_MEMFD.parent is MEMORY_BACKEND
    assert set(MEMORY_BACKEND_GUEST_MEMFD.all_properties) == set(MEMORY_BACKEND.all_properties)


@needs_guest_memfd
def test_life(tree: Tree) -> None:
    add(tree, "guest-memfd", size=MIB)
    assert get(tree, "share") is True
    assert get(tree, "type") == "memory-backend-guest-memfd"
    region = region_of(tree)
    assert region.shared
    assert region.writable
    assert os.readlink(f"/proc/self/fd/{region.fd}") == "anon_inode:[kvm-gmem]"
    assert libc.write_memory(region.address, bytes([1]) * MIB) == MIB
    region.discard()
    seen = bytearray(MIB)
    assert libc.read_memory(region.address, seen) == MIB
    assert not any(seen)
    change(tree, "prealloc", True)
    delete(tree)


@needs_guest_memfd
@pytest.mark.parametrize(
    "options",
    [
        {"prealloc": True, "prealloc-threads": 2},
        {"reserve": False, "dump": False, "merge": False},
        {"policy": "bind", "host-nodes": [0]},
        {"x-use-canonical-path-for-ramblock-id": True},
    ],
)
def test_options(tree: Tree, options: dict[str, JSON]) -> None:
    add(tree, "guest-memfd", size=MIB, **options)
    delete(tree)


def test_share_off(tree: Tree) -> None:
    assert refusal(lambda: add(tree, "guest-memfd", size=MIB, share=False)) == (
        "can't create guest-memfd backend with 'share=off': its memory can't be mapped private"
    )


@needs_guest_memfd
@pytest.mark.parametrize("size", [1, 4097, MIB + 1])
def test_odd_sizes(tree: Tree, size: int) -> None:
    assert refusal(lambda: add(tree, "guest-memfd", size=size)) == (
        "backend 'memory-backend-guest-memfd' memory size must be multiple of 4 KiB"
    )


@needs_guest_memfd
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 1 << 62}, "unable to map backing store for guest RAM: Cannot allocate memory"),
        (
            {"size": (1 << 64) - 4096},
            "can't create guest_memfd of 18446744073709547520 bytes: Invalid argument",
        ),
        (
            {"size": (1 << 64) - 1},
            "can't create guest_memfd of 18446744073709551616 bytes: Invalid argument",
        ),
        (
            {"size": MIB, "policy": "bind", "host-nodes": [127]},
            "cannot bind memory to host NUMA nodes: Invalid argument",
        ),
    ],
)
def test_failures_leave_nothing(tree: Tree, options: dict[str, JSON], text: str) -> None:
    # The fixture counts descriptors and mappings.
    assert refusal(lambda: add(tree, "guest-memfd", **options)) == text


def test_without_kvm(tree: Tree) -> None:
    tree.host.kvm_device = "/nowhere/kvm"
    assert refusal(lambda: add(tree, "guest-memfd", size=MIB)) == (
        "can't create guest_memfd: /nowhere/kvm: No such file or directory"
    )
    # The id is free again.
    add(tree, "ram", size=MIB)


@needs_guest_memfd
def test_the_event_loop_does_not_wait(tree: Tree) -> None:
    """A virtual machine is made and let go beside it."""
    options: dict[str, JSON] = {"qom-type": "memory-backend-guest-memfd", "id": "m0", "size": MIB}
    for command in (tree.objects.create(options), tree.objects.delete("m0")):
        running = Running(command)
        assert running.wait is not None
        running.finish()


@needs_guest_memfd
def test_another_process_sees_what_is_written(tree: Tree) -> None:
    add(tree, "guest-memfd", size=MIB)
    region = region_of(tree)
    with mmap.mmap(region.fd, MIB) as here:
        here[:4] = b"memd"
        program = "import mmap, sys; print(mmap.mmap(int(sys.argv[1]), 1 << 20)[:4].decode())"
        done = subprocess.run(
            [sys.executable, "-c", program, str(region.fd)],
            pass_fds=[region.fd],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "memd\n"
