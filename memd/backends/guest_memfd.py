"""`memory-backend-guest-memfd`: KVM's guest_memfd, mapped as shared memory.

Not in QEMU 10.0.2 or 11.1.3. Its properties are those of all memory backends.
A guest_memfd belongs to the virtual machine that it was made with: another
process can map it, but its KVM can't take it as a guest's memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from memd.backends.base import MEMORY_BACKEND
from memd.backends.plan import NOBODY_SHARES, Plan, Proposals, Warnings
from memd.backends.whole_pages import WholePagesBackend
from memd.errors import QMPError
from memd.hostmem.spec import round_up
from memd.qom import ObjectType

if TYPE_CHECKING:
    from memd.hostmem.files import Backing
    from memd.hostmem.host import Host


class GuestMemfdBackend(WholePagesBackend):
    """Memory of a guest_memfd."""

    share = True

    def check(self) -> None:
        if not self.share:
            raise QMPError(
                "can't create guest-memfd backend with 'share=off': its memory can't be mapped"
                " private"
            )

    def may_block(self) -> bool:
        # Making a virtual machine takes the kernel up to some milliseconds.
        return True

    def open(self, host: Host) -> Backing:
        """Make the guest_memfd; see `Memory.open`."""
        from memd.hostmem.files import Backing
        from memd.hostmem.libc import PAGE_SIZE
        from memd.hostmem.opened import GUEST_MEMFD

        # KVM takes whole pages only; what is odd is refused once it is mapped,
        # in the words that other backends have.
        size = round_up(self.size, PAGE_SIZE)
        return Backing(host, host.guest_memfd(size), GUEST_MEMFD)

    def warnings(self, plan: Plan) -> Warnings:
        yield (
            "guest-memfd",
            "another process can map a guest_memfd, but its KVM can't take it as a guest's memory:"
            " it belongs to the virtual machine that it was made with.",
        )

    def proposals(self, plan: Plan) -> Proposals:
        if not self.share:
            yield NOBODY_SHARES
        elif plan.error is not None and plan.file is None:
            yield (
                {"qom-type": "memory-backend-memfd"},
                "a memfd is shared by descriptor just so, and needs no KVM.",
            )


MEMORY_BACKEND_GUEST_MEMFD = ObjectType(
    "memory-backend-guest-memfd", MEMORY_BACKEND, factory=GuestMemfdBackend
)
