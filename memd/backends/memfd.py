"""`memory-backend-memfd`: memory that can be handed on by descriptor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.backends.base import MEMORY_BACKEND, unless_made
from memd.backends.plan import Plan, Proposals, Warnings
from memd.backends.whole_pages import WholePagesBackend
from memd.errors import QMPError
from memd.hostmem.spec import round_up
from memd.qapi.visit import visit_size
from memd.qom import ObjectType, attribute
from memd.sizes import size_text

if TYPE_CHECKING:
    from memd.hostmem.files import Backing
    from memd.hostmem.host import Host


_WITHOUT_MEMFD = dict.fromkeys(("hugetlb", "hugetlbsize", "seal"))


class MemfdBackend(WholePagesBackend):
    """Memory of a memfd.

    Attributes:
        hugetlb: whether it is made of huge pages.
        hugetlbsize: the size of one in bytes; 0 for the system's default.
        seal: whether growing and shrinking it is forbidden.
    """

    share = True
    hugetlb = False
    hugetlbsize = 0
    seal = True

    def may_block(self) -> bool:
        # The kernel may have to gather huge pages before it can set them aside.
        return self.prealloc or self.hugetlb

    def open(self, host: Host) -> Backing:
        """Make the memfd; see `Memory.open`."""
        import memd.hostmem.files as files

        return files.memfd(
            host,
            "memory-backend-memfd",
            self.size,
            hugetlb=self.hugetlb,
            hugetlbsize=self.hugetlbsize,
            seal=self.seal,
        )

    # What is said of it when it is to be explained

    def warnings(self, plan: Plan) -> Warnings:
        from memd.hostmem import capacity

        if not self.share and not self.hugetlb:
            yield (
                "private-memfd",
                "share=off takes the memory twice: a page that is written is in the memfd, and"
                f" copied for the mapping, {size_text(self.size * 2)} in the end; nobody else"
                " sees it.",
            )
        if self.hugetlbsize and not self.hugetlb:
            yield "hugetlbsize", "hugetlbsize has no effect without hugetlb=on."
        elif self.hugetlbsize & 1:
            yield (
                "hugetlbsize",
                f"hugetlbsize={self.hugetlbsize} is odd, which stands for the default size.",
            )
        if self.hugetlb and plan.spec is None:
            sizes = " and ".join(size_text(size) for size in capacity.huge_page_sizes())
            yield "hugetlb", f"the kernel has huge pages of {sizes or 'no size'}."
        if not self.seal:
            yield (
                "seal",
                "with seal=off a process with the descriptor can shrink the memory, and accesses"
                " past its end fail.",
            )

    def proposals(self, plan: Plan) -> Proposals:
        file, spec = plan.file, plan.spec
        if self.hugetlbsize and not self.hugetlb:
            yield {"hugetlb": True}, "hugetlbsize is about the huge pages that hugetlb=on asks for."
        if not self.share and not self.hugetlb:
            yield (
                {"qom-type": "memory-backend-ram", **_WITHOUT_MEMFD},
                "memory that nobody shares takes half as much without a file behind it.",
            )
        if not self.hugetlb or plan.error is None:
            return
        page_size = self._huge_page_size()
        if file is None and spec is None and page_size and self.size % page_size:
            size = round_up(self.size, page_size)
            yield {"size": size}, f"the size has to be whole pages of {size_text(page_size)}."
        yield (
            {"hugetlb": None, "hugetlbsize": None},
            "there are not the huge pages for it; ordinary ones need no setting up.",
        )

    def _huge_page_size(self) -> int:
        from memd.hostmem import capacity

        asked = self.hugetlbsize
        return asked if asked and not asked & (asked - 1) else capacity.default_huge_page_size()


def _check_hugetlbsize(backend: MemfdBackend, size: int) -> None:
    if size == 0:
        raise QMPError(f"Property '{backend.qom_type.name}.hugetlbsize' doesn't take value '0'")


MEMORY_BACKEND_MEMFD = ObjectType(
    "memory-backend-memfd",
    MEMORY_BACKEND,
    factory=MemfdBackend,
    properties=(
        attribute("hugetlb", "bool", description="Use huge pages"),
        attribute("seal", "bool", description="Seal growing & shrinking"),
        attribute(
            "hugetlbsize",
            "int",
            visit_size,
            guard=unless_made(),
            check=_check_hugetlbsize,
            description="Huge pages size (ex: 2M, 1G)",
        ),
    ),
)
