"""NUMA: where memory may come from, and which CPUs are near it."""

from __future__ import annotations

import errno
import os

from memd.hostmem import libc

_NODES = "/sys/devices/system/node"


def bind(address: int, length: int, policy: str, nodes: list[int]) -> None:
    """Take the memory of `length` bytes from these nodes, moving what is there.

    Args:
        policy: one of `spec.POLICIES`; with "default" nothing is done.
        nodes: ascending; not empty unless the policy is "default".

    Raises:
        OSError: the kernel refused; EINVAL where none of the nodes exists.
    """
    if policy == "default":
        return
    flags = libc.MPOL_MF_STRICT | libc.MPOL_MF_MOVE
    if policy == "preferred":
        try:
            libc.mbind(address, length, libc.MPOL_PREFERRED_MANY, nodes, flags)
            return
        except OSError as failed:
            # Linux before 5.15 does not know several preferred nodes.
            if failed.errno != errno.EINVAL:
                raise
        libc.mbind(address, length, libc.MPOL_PREFERRED, nodes, flags)
        return
    mode = libc.MPOL_BIND if policy == "bind" else libc.MPOL_INTERLEAVE
    libc.mbind(address, length, mode, nodes, flags)


def cpus_of(nodes: list[int]) -> set[int]:
    """The CPUs of these host nodes; a node that does not exist has none."""
    if not os.path.isdir(_NODES):
        # A kernel without NUMA: all memory is near every CPU.
        return set(range(os.cpu_count() or 1)) if 0 in nodes else set()
    cpus: set[int] = set()
    for node in nodes:
        try:
            with open(f"{_NODES}/node{node}/cpulist", "rb") as file:
                cpus |= parse_list(file.read().decode())
        except OSError:
            continue
    return cpus


def parse_list(text: str) -> set[int]:
    """The members of a list in the kernel's notation, such as "0-3,8"."""
    members: set[int] = set()
    for part in text.strip().split(","):
        if part:
            first, _, last = part.partition("-")
            members.update(range(int(first), int(last or first) + 1))
    return members
