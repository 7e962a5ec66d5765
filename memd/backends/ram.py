"""`memory-backend-ram`: anonymous memory, or a memfd's with share=on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.backends.base import MEMORY_BACKEND, MemoryBackend
from memd.qom.types import ObjectType

if TYPE_CHECKING:
    from memd.hostmem.files import Backing
    from memd.hostmem.spec import MapSpec


class RamBackend(MemoryBackend):
    """Memory without a name, whose size need not be whole pages."""

    __slots__ = ()

    def open(self, wait: bool) -> Backing | None:
        """Make the memfd behind shared memory; see `MemoryBackend.open`."""
        if not self.share:
            return None
        from memd.hostmem.files import plain_memfd

        return plain_memfd(self.memory_name)

    def spec(self, backing: Backing | None) -> MapSpec:
        """See `MemoryBackend.spec`."""
        from memd.backends.making import log
        from memd.hostmem.libc import PAGE_SIZE
        from memd.hostmem.region import ANONYMOUS_ALIGN
        from memd.hostmem.spec import MapSpec, round_up

        length = round_up(self.size, PAGE_SIZE)
        if backing is not None:
            try:
                backing.truncate(length)
            except OSError as failed:
                log(f"ftruncate: {failed.strerror}")
        return MapSpec(
            size=self.size,
            length=length,
            page_size=PAGE_SIZE,
            align=ANONYMOUS_ALIGN,
            shared=self.share,
            reserve=self.reserve,
        )

    def map_failure(self) -> str:
        """See `MemoryBackend.map_failure`."""
        return f"cannot set up guest memory '{self.memory_name}'"


MEMORY_BACKEND_RAM = ObjectType("memory-backend-ram", MEMORY_BACKEND, factory=RamBackend)
