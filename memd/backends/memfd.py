"""`memory-backend-memfd`: memory that can be handed on by descriptor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.backends.base import MEMORY_BACKEND, unless_made
from memd.backends.whole_pages import WholePagesBackend
from memd.errors import QMPError
from memd.qapi.visit import visit_bool, visit_size
from memd.qom.property import Property
from memd.qom.types import ObjectType

if TYPE_CHECKING:
    from memd.hostmem.files import Backing
    from memd.qom.tree import Tree


class MemfdBackend(WholePagesBackend):
    """Memory of a memfd.

    Attributes:
        hugetlb: whether it is made of huge pages.
        hugetlbsize: the size of one in bytes; 0 for the system's default.
        seal: whether growing and shrinking it is forbidden.
    """

    __slots__ = ("hugetlb", "hugetlbsize", "seal")

    def __init__(self, qom_type: ObjectType, tree: Tree, id: str) -> None:
        super().__init__(qom_type, tree, id)
        self.share = True
        self.hugetlb = False
        self.hugetlbsize = 0
        self.seal = True

    def open(self, wait: bool) -> Backing:
        """Make the memfd; see `MemoryBackend.open`."""
        from memd.hostmem.files import memfd

        return memfd(
            "memory-backend-memfd",
            self.size,
            hugetlb=self.hugetlb,
            hugetlbsize=self.hugetlbsize,
            seal=self.seal,
        )


def _set_hugetlb(backend: MemfdBackend, hugetlb: bool) -> None:
    backend.hugetlb = hugetlb


def _set_hugetlbsize(backend: MemfdBackend, size: int) -> None:
    if size == 0:
        raise QMPError(f"Property '{backend.qom_type.name}.hugetlbsize' doesn't take value '0'")
    backend.hugetlbsize = size


def _set_seal(backend: MemfdBackend, seal: bool) -> None:
    backend.seal = seal


MEMORY_BACKEND_MEMFD = ObjectType(
    "memory-backend-memfd",
    MEMORY_BACKEND,
    factory=MemfdBackend,
    properties=(
        Property(
            "hugetlb",
            "bool",
            visit=visit_bool,
            get=lambda backend: backend.hugetlb,
            set=_set_hugetlb,
            description="Use huge pages",
        ),
        Property(
            "seal",
            "bool",
            visit=visit_bool,
            get=lambda backend: backend.seal,
            set=_set_seal,
            description="Seal growing & shrinking",
        ),
        Property(
            "hugetlbsize",
            "int",
            visit=visit_size,
            guard=unless_made,
            get=lambda backend: backend.hugetlbsize,
            set=_set_hugetlbsize,
            description="Huge pages size (ex: 2M, 1G)",
        ),
    ),
)
