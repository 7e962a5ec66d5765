"""`memory-backend`: what all kinds of memory have in common.

Names, types, defaults, texts and what may change when were observed on QEMU
10.0.2 and 11.1.3, which agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from memd.backends.memory import Memory
from memd.compat import Compat
from memd.errors import QMPError
from memd.hostmem.spec import MAX_NODES, POLICIES, MapSpec
from memd.json_types import JSONObject
from memd.qapi.visit import (
    visit_enum,
    visit_list,
    visit_size,
    visit_uint16,
    visit_uint32,
)
from memd.qom import (
    ANONYMOUS,
    COPIED,
    OBJECT,
    Description,
    LinkProperty,
    ObjectType,
    UserCreatable,
    attribute,
)
from memd.work import Command

if TYPE_CHECKING:
    from memd.backends.thread_context import ThreadContext

LINK = "prealloc-context"
"""The property that names another object."""


class MemoryBackend(Memory):
    """Host memory with an id: its making, its end, and how a restart finds it again."""

    def complete(self) -> Command[None]:
        """Make the memory; see `UserCreatable.complete`."""
        # In this form it takes less than half the time of `from`, here and where memory is freed.
        import memd.backends.allocation as allocation

        return allocation.allocate(self)

    def give_up(self) -> bool:
        """Cancel its allocation; see `UserCreatable.give_up`."""
        if self.cancel is None:
            return False
        self.cancel()
        return True

    def check_delete(self) -> None:
        if self.mapped_by is None:
            return
        if self.tree.compat is Compat.V10_0:
            raise QMPError(f"object '{self.name}' is in use, can not be deleted")
        raise QMPError(f"Cannot delete host memory backend '{self.name}' which is mapped")

    async def finalize(self) -> None:
        """Free the memory; see `UserCreatable.finalize`."""
        import memd.backends.allocation as allocation

        region, self.region = self.region, None
        if region is not None:
            job = allocation.free(region, self.discard_data)
            self.lingers = job is not None and not await job

    # A restart

    def describe(self) -> Description:
        """With how it is mapped, and of which file; see `UserCreatable.describe`."""
        described = super().describe()
        region = self.region
        if region is not None:
            described["map"] = region.spec._asdict()
            described["exports"] = region.exports
            described["bound"] = self.bound
            if region.fd >= 0:
                from memd.hostmem.identity import identify

                described["file"] = identify(region.fd, region.opened)
        return described

    def restoring(self, described: Description) -> JSONObject:
        """All but what names another object; see `relink`."""
        properties = super().restoring(described)
        return {name: value for name, value in properties.items() if name != LINK}

    async def restore(self, described: Description, fd: int) -> None:
        """Map its memory as it was mapped: no path is opened, no page is touched."""
        from memd.backends.allocation import map_again

        spec = MapSpec(**described["map"])
        if not all(type(value) in (int, bool) for value in spec):
            raise ValueError("how it was mapped")
        self.bound = described["bound"]
        region = map_again(self, spec, fd)
        region.exports = described["exports"]
        self.outlived = True
        self.adopt(region)

    def relink(self, described: Description) -> None:
        """Name the thread-context again; see `UserCreatable.relink`."""
        if LINK in described["properties"]:
            self.set_property(LINK, described["properties"][LINK])

    @property
    def memory_fd(self) -> int:
        """Its file's descriptor; see `UserCreatable.memory_fd`."""
        return -1 if self.region is None else self.region.fd

    @property
    def holds_much(self) -> bool:
        """Whether it is huge pages, or takes the kernel long to free."""
        from memd.hostmem.libc import PAGE_SIZE
        from memd.hostmem.region import LARGE

        region = self.region
        return region is not None and (region.page_size > PAGE_SIZE or region.length > LARGE)

    def lost_reason(self) -> str | None:
        """ANONYMOUS or COPIED where its memory does not outlive the daemon."""
        region = self.region
        if region is None or (region.fd >= 0 and not region.writable):
            return None
        if region.opened is None or region.opened.zero_device:
            return ANONYMOUS
        return None if region.shared else COPIED

    def untouched(self) -> bool:
        """Whether a private mapping has no page of its own."""
        from memd.hostmem.usage import untouched

        return self.region is not None and untouched(self.region)

    def would_be(self, other: UserCreatable) -> bool:
        """Whether the other one would be the same memory: a default may be spelled out."""
        return self.describe() == other.describe()


def unless_made(text: str = "cannot change property value") -> Callable[..., None]:
    """Refuses a change once the memory is made, with a text; `{}` in it is the type's name."""

    def refuse(backend: MemoryBackend, _value: object = None) -> None:
        if backend.region is not None:
            raise QMPError(text.format(backend.qom_type.name))

    return refuse


_unless_made = unless_made()


def _not_zero(name: str) -> Callable[[MemoryBackend, int], None]:
    """Refuses 0 as the value of a property."""

    def check(backend: MemoryBackend, value: int) -> None:
        if value == 0:
            kind = backend.qom_type.name
            raise QMPError(f"property '{name}' of {kind} doesn't take value '0'")

    return check


def _check_prealloc(prealloc: bool, reserve: bool) -> None:
    if prealloc and not reserve:
        raise QMPError("'prealloc=on' and 'reserve=off' are incompatible")


def _check_reserve(backend: MemoryBackend, reserve: bool) -> None:
    _unless_made(backend)
    _check_prealloc(backend.prealloc, reserve)


def _set_prealloc(backend: MemoryBackend, prealloc: bool) -> Command[None] | None:
    _check_prealloc(prealloc, backend.reserve)
    if backend.region is None:
        backend.prealloc = prealloc
    elif prealloc and not backend.prealloc:
        from memd.backends.allocation import populate_made

        return populate_made(backend, backend.region)
    # Pages that are there are not taken back.
    return None


def _set_prealloc_context(backend: MemoryBackend, context: ThreadContext | None) -> None:
    backend.prealloc_context = context


def _set_merge(backend: MemoryBackend, merge: bool) -> Command[None] | None:
    if merge != backend.merge and backend.region is not None:
        from memd.backends.allocation import set_merge

        return set_merge(backend, backend.region, merge)
    backend.merge = merge
    return None


def _set_dump(backend: MemoryBackend, dump: bool) -> None:
    if dump != backend.dump and backend.region is not None:
        backend.region.set_dump(dump)
    backend.dump = dump


def _set_host_nodes(backend: MemoryBackend, nodes: list[int]) -> None:
    for node in nodes:
        if node >= MAX_NODES:
            raise QMPError(f"Invalid host-nodes value: {node}")
    # Nodes are only ever added (observed on QEMU 10.0.2).
    backend.host_nodes = sorted({*backend.host_nodes, *nodes})


MEMORY_BACKEND = ObjectType(
    "memory-backend",
    OBJECT,
    abstract=True,
    interfaces=("user-creatable",),
    properties=(
        attribute(
            "share",
            "bool",
            check=_unless_made,
            description="Mark the memory as private to QEMU or shared",
        ),
        attribute(
            "size",
            "int",
            visit_size,
            # A space ends QEMU's text.
            guard=unless_made("cannot change property size of {} "),
            check=_not_zero("size"),
            description="Size of the memory region (ex: 500M)",
        ),
        attribute(
            "dump",
            "bool",
            set=_set_dump,
            description="Set to 'off' to exclude from core dump",
        ),
        attribute(
            "prealloc-threads",
            "int",
            visit_uint32,
            check=_not_zero("prealloc-threads"),
            description="Number of CPU threads to use for prealloc",
        ),
        attribute("x-use-canonical-path-for-ramblock-id", "bool", of="canonical_path"),
        # Once the memory is made, this and host-nodes change nothing but what is
        # shown (observed on QEMU 10.0.2).
        attribute(
            "policy", "HostMemPolicy", visit_enum(POLICIES), description="Set the NUMA policy"
        ),
        LinkProperty(
            "prealloc-context",
            "thread-context",
            follow=lambda backend: backend.prealloc_context,
            set=_set_prealloc_context,
            description="Context to use for creating CPU threads for preallocation",
        ),
        attribute("prealloc", "bool", set=_set_prealloc, description="Preallocate memory"),
        attribute(
            "reserve",
            "bool",
            check=_check_reserve,
            description="Reserve swap space (or huge pages) if applicable",
        ),
        attribute(
            "host-nodes",
            "int",
            visit_list(visit_uint16),
            get=lambda backend: list(backend.host_nodes),
            set=_set_host_nodes,
            description="Binds memory to the list of NUMA host nodes",
        ),
        attribute("merge", "bool", set=_set_merge, description="Mark memory as mergeable"),
    ),
)
