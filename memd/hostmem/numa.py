"""NUMA: where memory may come from, and which CPUs are near it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from memd.hostmem import libc

NODES = "/sys/devices/system/node"
"""Where the kernel tells of nodes."""

_MODES = {
    "preferred": libc.MPOL_PREFERRED_MANY,
    "bind": libc.MPOL_BIND,
    "interleave": libc.MPOL_INTERLEAVE,
}


def with_memory(where: str = NODES) -> set[int]:
    """The nodes that have memory; none on a kernel without NUMA.

    Args:
        where: the kernel tells of nodes.
    """
    try:
        with open(f"{where}/has_memory", "rb") as file:
            return parse_list(file.read().decode())
    except OSError:
        return set()


def bind(address: int, length: int, policy: str, nodes: list[int]) -> None:
    """Take the memory of `length` bytes from these nodes, moving existing pages.

    Args:
        policy: one of `spec.POLICIES`; with "default" nothing is done.
        nodes: ascending; not empty unless the policy is "default".

    Raises:
        OSError: the kernel refused; EINVAL where none of the nodes exists.
    """
    if policy != "default":
        flags = libc.MPOL_MF_STRICT | libc.MPOL_MF_MOVE
        libc.mbind(address, length, _MODES[policy], nodes, flags)


def cpus_of(nodes: list[int], where: str = NODES) -> set[int]:
    """The CPUs of these host nodes; a node that does not exist has none.

    Args:
        where: the kernel tells of nodes.
    """
    if not os.path.isdir(where):
        # A kernel without NUMA: all memory is near every CPU.
        return set(range(os.cpu_count() or 1)) if 0 in nodes else set()
    cpus: set[int] = set()
    for node in nodes:
        try:
            with open(f"{where}/node{node}/cpulist", "rb") as file:
                cpus |= parse_list(file.read().decode())
        except OSError:
            continue
    return cpus


def places(nodes: Sequence[int] = (), where: str = NODES) -> list[set[int]]:
    """The CPUs of each NUMA node, for threads that fill memory of these nodes.

    Memory is filled faster from CPUs near it, and where the policy leaves the
    choice to the kernel it is taken from the node whose CPU asks first.

    Args:
        nodes: where the memory comes from; none for any node that has some.
        where: the kernel tells of nodes.

    Returns:
        A set for each node with CPUs that this thread may run on; none at all
        where that makes no difference, on a host with one node.
    """
    there = with_memory(where)
    if len(there) < 2:
        return []
    allowed = os.sched_getaffinity(0)
    found = (cpus_of([node], where) & allowed for node in nodes or sorted(there))
    return [cpus for cpus in found if cpus]


def parse_list(text: str) -> set[int]:
    """The members of a list in the kernel's notation, such as "0-3,8"."""
    members: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            members.update(range(int(first), int(last or first) + 1))
    return members
