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
    """What `-file`, `-memfd` and `-shm` have in common."""

    __slots__ = ()

    def spec(self, backing: Backing | None) -> MapSpec:
        """See `MemoryBackend.spec`."""
        return self.fit(backing)

    def fit(
        self,
        backing: Backing | None,
        offset: int = 0,
        align: int = 0,
        protection: int = READ_WRITE,
        sync: bool = False,
    ) -> MapSpec:
        """What is to be mapped of the file, once it was found to fit.

        Args:
            backing: the file.
            offset: in the file, in bytes.
            align: of the mapping, in bytes; 0 for that of the file's pages.
            protection, sync: of the mapping, see `MapSpec`.

        Raises:
            QMPError: it does not fit.
        """
        from memd.hostmem.files import fit

        if backing is None:
            raise TypeError("memory of a file needs the file")
        length = fit(backing, self.memory_name, self.size, offset, align)
        return MapSpec(
            size=self.size,
            length=length,
            page_size=backing.page_size,
            align=max(align, backing.page_size),
            offset=offset,
            protection=protection,
            shared=self.share,
            reserve=self.reserve,
            sync=sync,
        )

    def check_mapped(self, region: Region) -> None:
        """See `MemoryBackend.check_mapped`."""
        self.check_pages(region.page_size)

    def check_pages(self, page_size: int) -> None:
        """See `MemoryBackend.check_pages`."""
        if self.size % page_size:
            raise QMPError(
                f"backend '{self.qom_type.name}' memory size must be multiple of"
                f" {size_text(page_size)}"
            )
