"""`memory-backend-ram`: anonymous memory, or a memfd's with share=on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.backends.base import MEMORY_BACKEND, MemoryBackend
from memd.backends.plan import Plan, Proposals, Warnings
from memd.hostmem.spec import MapSpec, round_up
from memd.qom import ObjectType

if TYPE_CHECKING:
    from memd.hostmem.files import Backing
    from memd.hostmem.host import Host


class RamBackend(MemoryBackend):
    """Memory without a name, whose size need not be whole pages."""

    @property
    def descriptors(self) -> int:
        """See `UserCreatable.descriptors`."""
        return int(self.share)

    def open(self, host: Host) -> Backing | None:
        """Make the memfd behind shared memory; see `Memory.open`."""
        if not self.share:
            return None
        from memd.hostmem.files import plain_memfd

        return plain_memfd(host, self.memory_name)

    def spec(self, backing: Backing | None) -> MapSpec:
        from memd.hostmem.libc import PAGE_SIZE
        from memd.hostmem.region import ANONYMOUS_ALIGN

        length = round_up(self.size, PAGE_SIZE)
        if backing is not None:
            backing.try_truncate(length)
        return MapSpec(
            size=self.size,
            length=length,
            page_size=PAGE_SIZE,
            align=ANONYMOUS_ALIGN,
            shared=self.share,
            reserve=self.reserve,
        )

    def map_failure(self) -> str:
        return f"cannot set up guest memory '{self.memory_name}'"

    def warnings(self, plan: Plan) -> Warnings:
        if self.share:
            yield (
                "share",
                "memory-backend-ram with share=on is a memfd whose size is not sealed; a process"
                " with its descriptor can shrink it.",
            )

    def proposals(self, plan: Plan) -> Proposals:
        if self.share:
            yield (
                {"qom-type": "memory-backend-memfd"},
                "it is the same memory with its size sealed, and can have huge pages.",
            )


MEMORY_BACKEND_RAM = ObjectType("memory-backend-ram", MEMORY_BACKEND, factory=RamBackend)
