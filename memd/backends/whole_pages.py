"""Memory of a file, whose size has to be whole pages of that file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.backends.base import MemoryBackend
from memd.errors import QMPError
from memd.hostmem.spec import READ_WRITE, MapSpec
from memd.sizes import size_text

if TYPE_CHECKING:
    from memd.hostmem.files import Backing
    from memd.hostmem.region import Region


class WholePagesBackend(MemoryBackend):
    """The common base of `-file`, `-memfd` and `-shm`.

    Attributes:
        offset: where in the file the memory begins, in bytes.
        align: of the mapping's address, in bytes; 0 for the file's page size.
        pmem: whether the file is persistent memory.
        protection: of the mapping, see `MapSpec`.
    """

    offset = 0
    align = 0
    pmem = False

    @property
    def protection(self) -> int:
        """Of the mapping: always writable."""
        return READ_WRITE

    def spec(self, backing: Backing | None) -> MapSpec:
        if backing is None:
            raise TypeError("memory of a file needs the file")
        return MapSpec(
            size=self.size,
            length=backing.fit(self.memory_name, self.size, self.offset, self.align),
            page_size=backing.page_size,
            align=max(self.align, backing.page_size),
            offset=self.offset,
            protection=self.protection,
            shared=self.share,
            reserve=self.reserve,
            sync=self.pmem,
        )

    def check_mapped(self, region: Region) -> None:
        if self.size % region.page_size:
            raise QMPError(
                f"backend '{self.qom_type.name}' memory size must be multiple of"
                f" {size_text(region.page_size)}"
            )
