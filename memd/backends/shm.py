"""`memory-backend-shm`: POSIX shared memory, where a memfd will not do."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from memd.backends.base import MEMORY_BACKEND
from memd.backends.plan import NOBODY_SHARES, Plan, Proposals
from memd.backends.whole_pages import WholePagesBackend
from memd.errors import QMPError
from memd.qom import ObjectType
from memd.work import SHARED_MEMORY

if TYPE_CHECKING:
    from memd.hostmem.files import Backing
    from memd.hostmem.host import Host

_numbers = count()


class ShmBackend(WholePagesBackend):
    """Memory of a file that shm_open(3) made and that has lost its name."""

    share = True

    def check(self) -> None:
        if not self.share:
            raise QMPError("can't create shm backend with `share=off`")

    def may_block(self) -> bool:
        """See `Memory.may_block`; its name is in a directory that any process may have locked."""
        return True

    @property
    def waits_on(self) -> frozenset[int]:
        return SHARED_MEMORY

    def open(self, host: Host) -> Backing:
        """Make the shared memory; see `Memory.open`."""
        from memd.hostmem.files import posix_shm

        return posix_shm(host, next(_numbers), self.size)

    def proposals(self, plan: Plan) -> Proposals:
        from memd.hostmem.planning import lacks_space

        if not self.share:
            yield NOBODY_SHARES
        elif lacks_space(plan.spec, plan.file):
            yield (
                {"qom-type": "memory-backend-memfd"},
                "a memfd is the same without the limit of /dev/shm.",
            )


MEMORY_BACKEND_SHM = ObjectType("memory-backend-shm", MEMORY_BACKEND, factory=ShmBackend)
