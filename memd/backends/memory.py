"""The memory of a backend: its options, and what its kinds differ in.

This is all of a backend that `allocation` knows, which makes the memory and frees it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from memd.hostmem.spec import MapSpec
from memd.qom import MemoryRegion, ObjectType, QObject, Tree, UserCreatable
from memd.work import MEMORY

if TYPE_CHECKING:
    # What touches the kernel is imported when memory is first made: it brings
    # in ctypes, a millisecond that a daemon's start need not pay.
    from memd.backends.plan import Plan, Proposals, Warnings
    from memd.backends.thread_context import ThreadContext
    from memd.hostmem.files import Backing
    from memd.hostmem.host import Host
    from memd.hostmem.region import Region

_ON = {True: "true", False: "false"}


class Memory(UserCreatable):
    """A memory backend, as far as it is memory; `MemoryBackend` is the whole of it.

    Attributes:
        size: in bytes.
        share: whether the mapping is shared.
        reserve: whether swap space or huge pages are set aside for it.
        prealloc: whether all its pages are there.
        prealloc_threads: how many threads may populate it.
        cancel: cancels its allocation, if a thread does that; else None.
        prealloc_context: on whose CPUs these threads run, or None.
        merge: whether equal pages may be merged (KSM).
        dump: whether core dumps hold it.
        policy: of NUMA, one of `POLICIES`.
        host_nodes: the nodes that the policy is about, ascending.
        discard_data: whether its file's data goes with it.
        bound: the NUMA policy and nodes that the memory was made with; None before that.
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
    cancel: Callable[[], None] | None = None
    prealloc_context: ThreadContext | None = None
    policy = "default"
    bound: tuple[str, list[int]] | None = None
    discard_data = False
    canonical_path = False
    region: Region | None = None
    mapped_by: QObject | None = None
    shown: MemoryRegion | None = None
    outlived = False
    row = ""

    def __init__(self, qom_type: ObjectType, tree: Tree, id: str) -> None:
        super().__init__(qom_type, tree, id)
        values = tree.machine.values
        self.prealloc_threads = values["smp"]["cpus"]
        self.prealloc = tree.prealloc
        # The machine's word on it is the default.
        self.merge: bool = values["mem-merge"]
        self.dump: bool = values["dump-guest-core"]
        self.host_nodes: list[int] = []

    @property
    def memory_name(self) -> str:
        """The name of the memory in messages and in /proc/PID/maps."""
        return f"/objects/{self.name}" if self.canonical_path else self.name

    @property
    def memory_size(self) -> int:
        return self.size

    @property
    def descriptors(self) -> int:
        """See `UserCreatable.descriptors`."""
        return 1

    @property
    def binding(self) -> tuple[str, list[int]]:
        """The NUMA policy and nodes of the memory: the properties' values when it was made."""
        return (self.policy, self.host_nodes) if self.bound is None else self.bound

    # What the kinds of memory differ in

    def check(self) -> None:
        """Raise `QMPError` where options contradict each other."""

    def may_block(self) -> bool:
        """Whether making it may take long, as far as the options tell."""
        return self.prealloc

    @property
    def waits_on(self) -> frozenset[int]:
        """`Job.on` for making it, or looking at its file."""
        return MEMORY

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

    # Once it is made

    def adopt(self, region: Region) -> None:
        """Take the memory that was made."""
        self.region = region
        self.bound = self.binding
        if self.charge is not None:
            # A thread that uses it may keep it for longer than the object.
            self.charge.hold()
            region.on_release = self.charge.memory_freed
        # QEMU spells a slash so that the name stays one part of a path.
        name = self.memory_name.replace("/", "\\x2f")
        self.shown = MemoryRegion(self.tree, self.size)
        self.add_child(f"{name}[0]", self.shown)

    def refresh(self) -> None:
        """Make `row`. An id needs no escapes."""
        merge, dump, prealloc = _ON[self.merge], _ON[self.dump], _ON[self.prealloc]
        self.row = (
            f'{{"id": "{self.name}", "size": {self.size}, "merge": {merge}, "dump": {dump},'
            f' "prealloc": {prealloc}, "share": {_ON[self.share]}, "reserve": {_ON[self.reserve]},'
            f' "host-nodes": {self.host_nodes}, "policy": "{self.policy}"}}'
        )
