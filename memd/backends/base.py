"""`memory-backend`: what all kinds of memory have in common.

Names, types, defaults, texts and what may change when were observed on QEMU
10.0.2 and 11.1.3, which agree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

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
    MemoryRegion,
    ObjectType,
    QObject,
    Tree,
    UserCreatable,
    attribute,
)
from memd.work import Command

if TYPE_CHECKING:
    # What touches the kernel is imported when memory is first made: it brings
    # in ctypes, a millisecond that a daemon's start need not pay.
    from memd.backends.allocation import Preallocation
    from memd.backends.plan import Plan, Proposals, Warnings
    from memd.backends.thread_context import ThreadContext
    from memd.hostmem.files import Backing
    from memd.hostmem.host import Host
    from memd.hostmem.region import Region


LINK = "prealloc-context"
"""The property that names another object."""

_ON = {True: "true", False: "false"}


class MemoryBackend(UserCreatable, ABC):
    """Host memory with an id.

    Attributes:
        size: in bytes.
        share: whether the mapping is shared.
        reserve: whether swap space or huge pages are set aside for it.
        prealloc: whether all its pages are there.
        prealloc_threads: how many threads may populate it.
        preallocation: cancels its allocation, if a thread does that; else None.
        prealloc_context: on whose CPUs these threads run, or None.
        merge: whether equal pages may be merged (KSM).
        dump: whether core dumps hold it.
        policy: of NUMA, one of `POLICIES`.
        host_nodes: the nodes that the policy is about, ascending.
        canonical_path: whether the memory is named after the object's path.
        region: the memory; None before it is made and once it is freed.
        mapped_by: the device, or machine, that has it as its memory, or None.
        shown: the object that tells where in a machine the memory is; None until
            it is made.
        outlived: whether it was restored from an earlier daemon.
        row: its member of the answer of `query-memdev`, in JSON.
    """

    tree: Tree
    size = 0
    share = False
    reserve = True
    prealloc = False
    preallocation: Preallocation | None = None
    prealloc_context: ThreadContext | None = None
    policy = "default"
    canonical_path = False
    region: Region | None = None
    mapped_by: QObject | None = None
    shown: MemoryRegion | None = None
    outlived = False
    row = ""

    def __init__(self, qom_type: ObjectType, tree: Tree, id: str) -> None:
        super().__init__(qom_type, tree, id)
        self.prealloc_threads = tree.machine.get_property("smp")["cpus"]
        # The machine's word on it is the default.
        self.merge: bool = tree.machine.get_property("mem-merge")
        self.dump: bool = tree.machine.get_property("dump-guest-core")
        self.host_nodes: list[int] = []

    @property
    def memory_name(self) -> str:
        """The name of the memory in messages and in /proc/PID/maps."""
        return f"/objects/{self.name}" if self.canonical_path else self.name

    @property
    def memory_size(self) -> int:
        """See `UserCreatable.memory_size`."""
        return self.size

    # What the kinds of memory differ in

    def check(self) -> None:
        """Raise `QMPError` where options contradict each other."""

    def may_block(self) -> bool:
        """Whether making it may take long, as far as the options tell."""
        return self.prealloc

    @abstractmethod
    def open(self, host: Host) -> Backing | None:
        """Open the file behind the memory; None for anonymous memory.

        Raises:
            QMPError: it can't be opened.
        """

    @abstractmethod
    def spec(self, backing: Backing | None) -> MapSpec:
        """The mapping that is wanted; gives an empty file its size.

        Raises:
            QMPError: it does not fit.
        """

    def map_failure(self) -> str:
        """The beginning of the error for memory that can't be mapped; the reason follows."""
        return "unable to map backing store for guest RAM"

    def check_mapped(self, region: Region) -> None:
        """Raise `QMPError` where memory that could be mapped can't be used."""

    # For x-memdev-explain

    @property
    def file_path(self) -> str | None:
        """The path of its file, which others may know as well; None where it has none."""
        return None

    def warnings(self, plan: Plan) -> Warnings:
        """Options that are probably a mistake."""
        return iter(())

    def proposals(self, plan: Plan) -> Proposals:
        """Better options, the best first."""
        return iter(())

    # Life

    def complete(self) -> Command[None]:
        """Make the memory; see `UserCreatable.complete`."""
        from memd.backends.allocation import allocate

        return allocate(self)

    def give_up(self) -> bool:
        """Cancel its allocation; see `UserCreatable.give_up`."""
        if self.preallocation is None:
            return False
        self.preallocation.cancel()
        return True

    def check_delete(self) -> None:
        """See `UserCreatable.check_delete`."""
        if self.mapped_by is None:
            return
        if self.tree.compat is Compat.V10_0:
            raise QMPError(f"object '{self.name}' is in use, can not be deleted")
        raise QMPError(f"Cannot delete host memory backend '{self.name}' which is mapped")

    async def finalize(self) -> None:
        """Free the memory; see `UserCreatable.finalize`."""
        from memd.backends.allocation import free

        region, self.region = self.region, None
        if region is not None:
            self.lingers = not await free(region, **self.freeing)

    @property
    def freeing(self) -> dict[str, bool]:
        """How its memory is freed: arguments of `allocation.free`."""
        return {}

    def refresh(self) -> None:
        """Make `row`. An id needs no escapes."""
        merge, dump, prealloc = _ON[self.merge], _ON[self.dump], _ON[self.prealloc]
        self.row = (
            f'{{"id": "{self.name}", "size": {self.size}, "merge": {merge}, "dump": {dump},'
            f' "prealloc": {prealloc}, "share": {_ON[self.share]}, "reserve": {_ON[self.reserve]},'
            f' "host-nodes": {self.host_nodes}, "policy": "{self.policy}"}}'
        )

    # A restart

    def describe(self, before: Description | None = None) -> Description:
        """With how it is mapped, and of which file; see `UserCreatable.describe`."""
        described = super().describe(before)
        region = self.region
        if region is not None:
            described["map"] = region.spec._asdict()
            described["exports"] = region.exports
            described["bound"] = before["bound"] if before else [self.policy, self.host_nodes]
            if region.fd >= 0:
                from memd.hostmem.identity import identify

                described["file"] = before["file"] if before else identify(region.fd, region.opened)
        return described

    def restoring(self, described: Description) -> JSONObject:
        """All but what names another object; see `relink`."""
        properties = super().restoring(described)
        return {name: value for name, value in properties.items() if name != LINK}

    async def restore(self, described: Description, fd: int) -> None:
        """Map its memory as it was mapped: no path is opened, no page is touched."""
        from memd.backends.allocation import map_again

        # What the properties say of NUMA may have been changed since, the memory
        # stays where it was bound to.
        shown = self.policy, self.host_nodes
        self.policy, self.host_nodes = described["bound"]
        spec = MapSpec(**described["map"])
        if not all(type(value) in (int, bool) for value in spec):
            raise ValueError("how it was mapped")
        region = map_again(self, spec, fd)
        self.policy, self.host_nodes = shown
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
        from memd.backends.allocation import LARGE
        from memd.hostmem.libc import PAGE_SIZE

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

    def adopt(self, region: Region) -> None:
        """Take the memory that was made."""
        self.region = region
        if self.charge is not None:
            # A thread that uses it may keep it for longer than the object.
            self.charge.hold()
            region.on_release = self.charge.memory_freed
        # QEMU spells a slash so that the name stays one part of a path.
        name = self.memory_name.replace("/", "\\x2f")
        self.shown = MemoryRegion(self.tree, self.size)
        self.add_child(f"{name}[0]", self.shown)


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
